"""Mapped tasks that start work elsewhere, wait for it in the triggerer and finish on a worker."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, timezone

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

BENCH = json.loads(os.environ["MACHFIVE_BENCH"])
NUMBERS = range(BENCH["batches"])


class Bare(BaseOperator):
    """Defers once and resumes: what any deferrable task costs Airflow."""

    def execute(self, context: Any, event: Any = None) -> None:
        if event is None:
            moment = timezone.utcnow() + timedelta(seconds=BENCH["seconds"])
            self.defer(trigger=DateTimeTrigger(moment=moment), method_name="execute")


with DAG("bench_bare", schedule=None):
    Bare.partial(task_id="bare").expand(doc=[str(number) for number in NUMBERS])

for way in ("machfive", "limited", "pooled"):
    with DAG(f"bench_{way}", schedule=None):
        MachFiveGenerateBatchOperator.partial(
            task_id="batch",
            machfive_conn_id=f"machfive_{way}",
            campaign_id=BENCH["campaigns"][way],
            deferrable=True,
            poll_interval=BENCH["interval"],
            export_to=f"{BENCH['folder']}/{way}-{{{{ ti.map_index }}}}.csv",
            pool=BENCH["pool"] if way == "pooled" else "default_pool",
            retries=0,
        ).expand(leads=[[{"email": f"lead@{way}{number}.example.com"}] for number in NUMBERS])

if BENCH["with_dbt"]:
    from airflow.providers.dbt.cloud.operators import dbt

    from tests.benchmarks.plain_dbt import PlainRunJobTrigger

    dbt.DbtCloudRunJobTrigger = PlainRunJobTrigger

    with DAG("bench_dbt", schedule=None):
        dbt.DbtCloudRunJobOperator.partial(
            task_id="job",
            dbt_cloud_conn_id="bench_dbt",
            job_id=1,
            deferrable=True,
            check_interval=BENCH["interval"],
            retries=0,
        ).expand(trigger_reason=[f"batch {number}" for number in NUMBERS])

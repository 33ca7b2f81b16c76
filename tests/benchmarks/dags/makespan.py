"""The same work three ways: this provider, the HTTP provider, and nothing but Airflow's own hand-over."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, task_group, timezone

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

BENCH = json.loads(os.environ["MACHFIVE_BENCH"])
OPTIONS = {"email_count": 2, "email_signature": "Bench"}


def leads(way: str, number: int) -> list[dict[str, str]]:
    return [{"email": f"lead@{way}{number}.example.com"}]


for way in {"plain", "hinted"} & {*BENCH["ways"]}:
    with DAG(f"bench_{way}", schedule=None):
        MachFiveGenerateBatchOperator.partial(
            task_id="batch",
            machfive_conn_id=f"machfive_{way}",
            campaign_id=BENCH["campaigns"][way],
            email_count=2,
            email_signature="Bench",
            deferrable=True,
            poll_interval=2,
            retries=0,
        ).expand(leads=[leads(way, number) for number in range(BENCH["batches"])])

if "http" in BENCH["ways"]:
    from airflow.providers.http.operators.http import HttpOperator
    from airflow.providers.http.sensors.http import HttpSensor

    with DAG("bench_http", schedule=None):

        @task_group
        def one_batch(body: str) -> None:
            buy = HttpOperator(
                task_id="buy",
                http_conn_id="bench_http",
                method="POST",
                endpoint=f"api/v1/campaigns/{BENCH['campaigns']['http']}/generate-batch",
                data=body,
                headers={"Content-Type": "application/json"},
                response_filter=lambda response: response.json()["list_id"],
                retries=100,
                # Tuned to the work, as a user who knows the batch time would.
                retry_delay=timedelta(seconds=BENCH["batch_seconds"]),
            )
            # With a response_check it pokes on a worker whatever `deferrable` says; without one it takes any 200 for
            # done, and of an endpoint that answers 409 until then its trigger asks without a pause.
            wait = HttpSensor(
                task_id="wait",
                http_conn_id="bench_http",
                endpoint="api/v1/lists/{{ ti.xcom_pull(task_ids='one_batch.buy', map_indexes=ti.map_index) }}",
                response_check=lambda response: response.json()["processing_status"] == "completed",
                deferrable=True,
                poke_interval=2,
            )
            buy >> wait

        one_batch.expand(
            body=[json.dumps({"leads": leads("http", n), "options": OPTIONS}) for n in range(BENCH["batches"])]
        )


class HandOver(BaseOperator):
    """Defers to a moment again and again, and writes down how long after it a worker runs the task."""

    def execute(self, context: Any, event: Any = None, done: int = 0, moment: float = 0.0) -> None:
        if done:
            with Path(BENCH["hand_overs"]).open("a") as file:
                file.write(f"{time.time() - moment}\n")
        if done < BENCH["hand_overs_each"]:
            moment = time.time() + 5
            self.defer(
                trigger=DateTimeTrigger(moment=timezone.utcnow() + timedelta(seconds=5)),
                method_name="execute",
                kwargs={"done": done + 1, "moment": moment},
            )


with DAG("bench_hand_over", schedule=None):
    # As many at once as the workspace has slots, as in the work above.
    HandOver.partial(task_id="bare").expand(doc=[str(number) for number in range(BENCH["slots"])])

"""A DAG of mapped batches for each half, one of mapped sensors, and two that run when people's lists end.

What to do comes from the environment, because the DAG is read anew by every task process. `tests/chaos/accounting.py`
expects these leads in these files.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sensors.lead_list import MachFiveListSensor
from machfive_provider.triggers.list_event import MachFiveListEventTrigger

PLAN = json.loads(os.environ["MACHFIVE_DISTRIBUTED"])
RETRIED = {"retries": PLAN["retries"], "retry_delay": timedelta(seconds=PLAN["retry_delay"])}


def batch(half: str, number: int) -> dict[str, object]:
    """Return the arguments of one batch."""
    emails = [f"lead{lead}@b{number:03d}.{half}.example.com" for lead in range(1, PLAN["leads"] + 1)]
    return {
        "leads": [{"email": email, "name": f"Lead {number}", "company": "Distributed"} for email in emails],
        "export_to": f"{PLAN['results']}/{half}-{number:03d}.jsonl",
    }


for half, campaign_id in PLAN["campaign_ids"].items():
    with DAG(f"distributed_{half}", schedule=None, default_args=RETRIED):
        MachFiveGenerateBatchOperator.partial(
            task_id="batches",
            campaign_id=campaign_id,
            email_count=2,
            email_signature="Distributed",
            deferrable=True,
            poll_interval=PLAN["poll_interval"],
            machfive_conn_id=f"machfive_{half}",
        ).expand_kwargs([batch(half, number) for number in range(PLAN["batches"])])

with DAG("distributed_sensors", schedule=None, default_args=RETRIED):
    MachFiveListSensor.partial(
        task_id="sensors",
        deferrable=True,
        poke_interval=PLAN["poll_interval"],
        machfive_conn_id="machfive_people",
    ).expand(list_id=PLAN["list_ids"])

for watched, name in PLAN["watched"].items():
    ended = Asset(
        f"distributed_{watched}",
        watchers=[
            AssetWatcher(
                name=watched,
                trigger=MachFiveListEventTrigger(
                    machfive_conn_id="machfive_people", name=name, poll_interval=PLAN["watch_interval"]
                ),
            )
        ],
    )
    start = pendulum.datetime(2026, 1, 1, tz="UTC")
    with DAG(f"distributed_{watched}", schedule=[ended], start_date=start, catchup=False):
        EmptyOperator(task_id="nothing")

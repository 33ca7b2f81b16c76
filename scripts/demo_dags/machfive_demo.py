"""What `make ui` runs beside the example: a queue for capacity, and everything that can go wrong with a batch.

What goes wrong is scripted in `scripts/target.py` by the addresses of the leads, once for each task.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

RESULTS = os.environ.get("MACHFIVE_RESULTS", "results")
SHARDS = 20
COMMON: dict[str, Any] = {
    "campaign_name": os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
    "email_count": 3,
    "email_signature": "Alex Morgan\nNorthwind Analytics",
    "deferrable": True,
    "poll_interval": 5,
}


def leads(name: str, count: int) -> list[dict[str, str]]:
    return [{"email": f"{name}@company{number}.example.com", "name": "Sam Vale"} for number in range(count)]


with DAG("machfive_demo_queue", schedule=None, tags=["machfive", "demo"], default_args={"retries": 3}):
    MachFiveGenerateBatchOperator.partial(
        task_id="write_emails",
        list_name="Newsletter readers, shard {{ ti.map_index }}",
        export_to=f"{RESULTS}/shard-{{{{ ti.map_index }}}}.jsonl",
        **COMMON,
    ).expand(leads=[leads(f"shard{number}", 5 + number) for number in range(SHARDS)])

with DAG("machfive_demo_failures", schedule=None, tags=["machfive", "demo"], default_args={"retries": 0}):
    MachFiveGenerateBatchOperator(task_id="no_credits", leads=leads("no-credits", 30), **COMMON)
    MachFiveGenerateBatchOperator(task_id="list_fails", leads=leads("list-fails", 12), max_resubmissions=0, **COMMON)
    MachFiveGenerateBatchOperator(
        task_id="leads_missing",
        leads=leads("leads-missing", 8),
        export_to=f"{RESULTS}/leads-missing.jsonl",
        **COMMON,
    )
    MachFiveGenerateBatchOperator(task_id="never_ends", leads=leads("never-ends", 25), **COMMON)
    MachFiveGenerateBatchOperator(
        task_id="response_lost",
        leads=leads("response-lost", 6),
        retries=2,
        retry_delay=timedelta(seconds=5),
        **COMMON,
    )

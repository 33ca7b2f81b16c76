"""Many leads as several batches: one mapped task instance for each shard.

Shards are told apart by their leads, not by their number, so a retry finds its own batch again even
if the shards come in another order. Files travel between the tasks by path: XCom stays small.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pendulum
from airflow.sdk import DAG, task

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

LEADS = Path(__file__).parent / "data" / "leads.csv"
RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))
SHARDS = 3

with DAG(
    dag_id="machfive_sharded_batches",
    description="A leads file in shards, a batch for each",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def split_leads() -> list[str]:
        """Write the shards as files and return their paths."""
        with LEADS.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if any(row)]
        folder = Path(RESULTS) / "shards"
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number in range(SHARDS):
            path = folder / f"leads-{number}.csv"
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([header, *rows[number::SHARDS]])
            paths.append(str(path))
        return paths

    MachFiveGenerateBatchOperator.partial(
        task_id="write_emails",
        campaign_name=os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
        email_count=3,
        email_signature="Alex Morgan\nNorthwind Analytics",
        on_invalid_lead="skip",
        on_duplicate_lead="first",
        deferrable=True,
        poll_interval=10,
        export_to=f"{RESULTS}/shards/emails-{{{{ ti.map_index }}}}.jsonl",
    ).expand(leads_path=split_leads())

"""Export what is finished in MachFive's own app: the DAG runs when a list completes that no Airflow task has bought.

The asset's watcher polls the workspace once a minute. Several lists may come in one run, and a list may come twice:
the list's id is the key, and an export that is written twice costs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import DAG, Asset, AssetWatcher, task

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.triggers.list_event import MachFiveListEventTrigger

RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))

finished = Asset(
    "machfive_finished_lists",
    watchers=[
        AssetWatcher(
            name="machfive_finished_lists",
            trigger=MachFiveListEventTrigger(statuses=["completed"], poll_interval=60),
        )
    ],
)

with DAG(
    dag_id="machfive_finished_lists",
    description="Export each list that completes in MachFive's own app",
    schedule=[finished],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def choose_files(triggering_asset_events: Any = None) -> list[dict]:
        """Return what to export and where to, each list once; nothing if a person has started the run."""
        lists = {event.extra["payload"]["list_id"] for event in triggering_asset_events.get(finished, [])}
        return [{"list_id": each, "export_to": f"{RESULTS}/finished/{each}.jsonl"} for each in sorted(lists)]

    # Its asset events carry path, leads, emails and missing leads, for DAGs that run on the files.
    MachFiveExportListOperator.partial(
        task_id="export", deferrable=True, poll_interval=10, outlets=[Asset("machfive_exported_emails")]
    ).expand_kwargs(choose_files())

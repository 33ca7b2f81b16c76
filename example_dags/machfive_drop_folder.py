"""A drop folder: put `leads.csv` there, then an empty file `READY`, and one file of emails appears in `emails`.

The standard provider's `FileDeleteTrigger` looks for `READY` every few seconds, removes it and so starts a run. It is a
file of its own because only its writer knows when `leads.csv` is complete. The run moves the leads away before it reads
them, so the next ones can be dropped meanwhile; they wait for their own run. The triggerer must see the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.triggers.file import FileDeleteTrigger
from airflow.sdk import DAG, Asset, AssetWatcher, task

from machfive_provider.pipeline.task_group import machfive_pipeline

RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))
DROP = Path(RESULTS) / "drop"

dropped = Asset(
    "machfive_dropped_leads",
    watchers=[
        AssetWatcher(name="ready", trigger=FileDeleteTrigger(filepath=str(DROP / "READY"), poke_interval=5)),
    ],
)

with DAG(
    dag_id="machfive_drop_folder",
    description="A file of leads is dropped, a file of emails appears",
    schedule=[dropped],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def take_leads(run_id: str | None = None) -> str:
        """Move the leads to a file of this run, and return its path; skip the run if there are none."""
        mine = DROP / "taken" / f"{run_id}.csv"
        mine.parent.mkdir(parents=True, exist_ok=True)
        if not mine.exists():  # a retry or clear has it already
            try:
                (DROP / "leads.csv").rename(mine)
            except FileNotFoundError:
                raise AirflowSkipException("No leads.csv was dropped.") from None
        return str(mine)

    machfive_pipeline(
        leads_path=take_leads(),
        leads_folder=f"{RESULTS}/leads",
        batch_size=500,
        on_invalid_lead="skip",
        on_duplicate_lead="first",
        campaign_name=os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
        email_count=3,
        email_signature="Alex Morgan\nNorthwind Analytics",
        max_credits=1000,
        poll_interval=10,
        export_to=f"{DROP}/emails/{{{{ run_id }}}}.csv",
        export_shape="flat",
        escape_formulas=True,  # people open it in a spreadsheet
    )

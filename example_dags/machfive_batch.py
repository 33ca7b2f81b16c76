"""The main job: a file of leads becomes a file of written emails, in one task.

The task submits the leads, lets go of its worker while MachFive writes, then exports and counts the
result. Give it `schedule="@daily"` and a templated `leads_path` to have it every morning.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.sdk import DAG, Param

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

LEADS = Path(__file__).parent / "data" / "leads.csv"
RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))

with DAG(
    dag_id="machfive_batch",
    description="Leads file in, written emails out",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    params={"campaign": Param(os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"), type="string")},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:
    MachFiveGenerateBatchOperator(
        task_id="write_emails",
        leads_path=str(LEADS),
        campaign_name="{{ params.campaign }}",
        list_name="Leads of {{ dag_run.run_after.strftime('%Y-%m-%d') }}",
        email_count=3,
        email_signature="Alex Morgan\nNorthwind Analytics",
        on_invalid_lead="skip",
        on_duplicate_lead="first",
        max_credits=500,
        deferrable=True,
        poll_interval=10,
        export_to=f"{RESULTS}/emails-{{{{ dag_run.run_after.strftime('%Y-%m-%d') }}}}.jsonl",
    )

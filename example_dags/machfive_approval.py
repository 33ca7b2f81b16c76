"""Somebody signs off the spending: check, ask in the Airflow UI, buy what was approved and nothing else.

The question waits under *Required actions* in the Airflow UI, with leads, credits and campaign in it. A rejection fails
the task, and nothing is bought. The pipeline asks in the same way with `approval=True`: docs/approval.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

from machfive_provider.operators.check import MachFiveCheckLeadsOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))
WHAT = {
    "leads_path": str(Path(__file__).parent / "data" / "leads.csv"),
    "campaign_name": os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
    "email_count": 3,
    "email_signature": "Alex Morgan\nNorthwind Analytics",
    "on_invalid_lead": "skip",
    "on_duplicate_lead": "first",
}

with DAG(
    dag_id="machfive_approval",
    description="A batch that somebody has to approve",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:
    check = MachFiveCheckLeadsOperator(task_id="check_leads", **WHAT)
    approve = ApprovalOperator(
        task_id="approve",
        subject="{{ ti.xcom_pull('check_leads')['credits'] }} credits for emails?",
        body="{{ ti.xcom_pull('check_leads')['summary'] }}",
        fail_on_reject=True,
        retries=0,  # a rejection is an answer, not an error to be tried again
    )
    buy = MachFiveGenerateBatchOperator(
        task_id="write_emails",
        approved=check.output,
        deferrable=True,
        poll_interval=10,
        export_to=f"{RESULTS}/approved/{{{{ run_id }}}}.jsonl",
        **WHAT,
    )
    check >> approve >> buy

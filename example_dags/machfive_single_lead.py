"""One lead, for instance somebody who has just filled in a form: trigger the DAG with the lead as its conf."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import DAG, Param, task

from machfive_provider.operators.generate import MachFiveGenerateOperator

with DAG(
    dag_id="machfive_single_lead",
    description="The emails of a single lead",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
    params={
        "lead": Param(
            {"email": "dana.reyes@example.com", "name": "Dana Reyes", "title": "COO", "company": "Reyes Logistics"},
            type="object",
        )
    },
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:
    written = MachFiveGenerateOperator(
        task_id="write_sequence",
        lead="{{ params.lead | tojson }}",
        campaign_name=os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
        email_count=3,
        email_signature="Alex Morgan\nNorthwind Analytics",
        deferrable=True,
        poll_interval=10,
    )

    @task
    def count_emails(result: dict) -> int:
        """Stand for what you do with the sequence: send it to your sales engagement tool, say."""
        return len(result["sequence"])

    count_emails(written.output)

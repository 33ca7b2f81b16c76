"""Submit in one task, wait in another, export in a third: for lists that several tasks depend on.

The sensor takes any list's id, also of one submitted in the MachFive app.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.sdk import DAG

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sensors.lead_list import MachFiveListSensor

RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))

with DAG(
    dag_id="machfive_wait_for_list",
    description="Submit, wait and export as separate tasks",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:
    submit = MachFiveGenerateBatchOperator(
        task_id="submit",
        leads=[
            {"email": "dana.reyes@example.com", "name": "Dana Reyes", "company": "Reyes Logistics"},
            {"email": "li.wei@example.org", "name": "Li Wei", "company": "Harbour Foods"},
        ],
        campaign_name=os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
        email_count=2,
        email_signature="Alex Morgan\nNorthwind Analytics",
        wait_for_completion=False,
    )
    wait = MachFiveListSensor(
        task_id="wait", list_id=submit.output, deferrable=True, poke_interval=10, timeout=6 * 60 * 60
    )
    export = MachFiveExportListOperator(
        task_id="export", list_id=submit.output, export_to=f"{RESULTS}/two-leads.csv", expected_leads=2
    )
    wait >> export

"""The waits that the example DAGs, all deferrable, do not show: on a worker, and rescheduled between polls."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sensors.lead_list import MachFiveListSensor

RESULTS = os.environ["MACHFIVE_RESULTS"]
COMMON = {"campaign_name": "Spring Outreach", "email_count": 2, "email_signature": "E2E", "poll_interval": 2}

with DAG("e2e_batch_on_worker", schedule=None):
    MachFiveGenerateBatchOperator(
        task_id="write_emails",
        leads=[{"email": "ada@example.com", "name": "Ada"}, {"email": "bob@example.com", "name": "Bob"}],
        deferrable=False,
        export_to=f"{RESULTS}/on-worker.jsonl",
        **COMMON,
    )

with DAG("e2e_single_on_worker", schedule=None):
    MachFiveGenerateOperator(
        task_id="write_sequence", lead={"email": "cleo@example.com", "name": "Cleo"}, deferrable=False, **COMMON
    )

with DAG("e2e_sensor_on_worker", schedule=None):
    submit = MachFiveGenerateBatchOperator(
        task_id="submit",
        leads=[{"email": "dora@example.com", "name": "Dora"}],
        wait_for_completion=False,
        **COMMON,
    )
    wait = MachFiveListSensor(
        task_id="wait",
        list_id=submit.output,
        deferrable=False,
        mode="reschedule",
        # Long enough for the scheduler to receive the end of one poke before the next is queued: Airflow takes a
        # late report for the failure of the poke that is queued by then.
        poke_interval=15,
        timeout=120,
    )
    export = MachFiveExportListOperator(
        task_id="export",
        list_id=submit.output,
        export_to=f"{RESULTS}/sensor.csv",
        expected_leads=1,
        deferrable=True,
        poll_interval=2,
    )
    wait >> export

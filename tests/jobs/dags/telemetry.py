"""A batch that comes back to a worker, and a sensor that ends in the triggerer, on a connection of their own."""

from __future__ import annotations

from airflow.sdk import DAG

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sensors.lead_list import MachFiveListSensor

COMMON = {"machfive_conn_id": "machfive_telemetry", "deferrable": True}

with DAG("telemetry", schedule=None):
    submit = MachFiveGenerateBatchOperator(
        task_id="submit",
        leads=[{"email": "tove@example.com", "name": "Tove Quist"}],
        campaign_name="Spring Outreach",
        wait_for_completion=False,
        machfive_conn_id="machfive_telemetry",
    )
    wait = MachFiveListSensor(task_id="wait", list_id=submit.output, poke_interval=2, **COMMON)
    write = MachFiveGenerateBatchOperator(
        task_id="write",
        leads=[{"email": "ebbe@example.com", "name": "Ebbe Quist"}],
        campaign_name="Spring Outreach",
        poll_interval=2,
        **COMMON,
    )
    wait >> write

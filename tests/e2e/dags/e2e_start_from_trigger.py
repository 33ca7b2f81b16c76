"""Sensors that no worker starts, where Airflow can do that, and one that is mapped and needs a worker all the same."""

from __future__ import annotations

import os

import airflow
from airflow.sdk import DAG
from packaging.version import Version

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sensors.lead_list import MachFiveListSensor

# An older Airflow refuses it; the templates are rendered by a worker there.
START = {"start_from_trigger" if Version(airflow.__version__).release >= (3, 3) else "deferrable": True}
LIST_ID = os.environ["MACHFIVE_E2E_LIST"]

with DAG("e2e_start_from_trigger", schedule=None, params={"list_id": LIST_ID}):
    submit = MachFiveGenerateBatchOperator(
        task_id="submit",
        leads=[{"email": "finn@example.com", "name": "Finn"}],
        campaign_name="Spring Outreach",
        email_count=2,
        email_signature="E2E",
        wait_for_completion=False,
    )
    pulled = "{{ ti.xcom_pull(task_ids='submit', map_indexes=-1) }}"
    waits = {
        "plain": LIST_ID,
        "params": "{{ params.list_id }}",
        "run_id": "{{ ti.xcom_pull(task_ids='submit', run_id=run_id, map_indexes=-1) }}",
        "several": [pulled, "{{ params.list_id }}"],
    }
    for name, list_id in waits.items():
        submit >> MachFiveListSensor(task_id=name, list_id=list_id, poke_interval=2, timeout=120, **START)
    submit >> MachFiveListSensor.partial(
        task_id="mapped", start_from_trigger=True, poke_interval=2, timeout=120
    ).expand(list_id=[LIST_ID])

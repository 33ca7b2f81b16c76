"""From a table to a table with this provider, shaped like example_dags/machfive_warehouse.py."""

from __future__ import annotations

import json
import os
import time

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task_group

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.transfers.list_to_sql import MachFiveToSqlOperator
from machfive_provider.transfers.sql_to_leads import SqlToMachFiveLeadsOperator

BENCH = json.loads(os.environ["MACHFIVE_BENCH"])

with DAG("bench_idle", schedule=None):
    # Long enough to be seen.
    PythonOperator(task_id="idle", python_callable=lambda: time.sleep(2))

with DAG("bench_machfive", schedule=None, default_args={"pool": BENCH["pool"]}):
    people = SqlToMachFiveLeadsOperator(
        task_id="find_new_people",
        sql_conn_id="warehouse",
        sql="SELECT email, full_name, job_title, company FROM contacts ORDER BY email",
        skip_already_written="emails",
        leads_folder=f"{BENCH['folder']}/leads",
        batch_size=BENCH["batch_size"],
    )

    @task_group
    def batch(leads_path: str) -> None:
        bought = MachFiveGenerateBatchOperator(
            task_id="write_emails",
            leads_path=leads_path,
            campaign_id=BENCH["campaigns"]["machfive"],
            email_count=3,
            email_signature="Alex Morgan",
            deferrable=True,
            poll_interval=BENCH["interval"],
        )
        MachFiveToSqlOperator(
            task_id="save_emails",
            list_id=bought.output,
            sql_conn_id="warehouse",
            table="emails",
            poll_interval=BENCH["interval"],
        )

    batch.expand(leads_path=people.output)

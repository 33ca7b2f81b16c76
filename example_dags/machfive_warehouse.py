"""Every day from a query to a table: whoever is new in `contacts` is written to, and the emails land in `emails`.

A person without a row in `emails` is taken for one who was not written to yet. So a run must not begin while another is
at work, and not after one that has bought emails and failed to save them: both would buy the same people again. That is
what `max_active_runs` and the two parameters of `find_new_people` that wait for the run before are for.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task_group

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.transfers.list_to_sql import MachFiveToSqlOperator
from machfive_provider.transfers.sql_to_leads import SqlToMachFiveLeadsOperator

RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))
WAREHOUSE = "warehouse"  # a connection of any SQL database
TABLE = "emails"

with DAG(
    dag_id="machfive_warehouse",
    description="New people in a table, their emails in another, every day",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:
    people = SqlToMachFiveLeadsOperator(
        task_id="find_new_people",
        sql_conn_id=WAREHOUSE,
        sql="SELECT email, full_name, job_title, company FROM contacts WHERE opted_out = 0 ORDER BY email",
        skip_already_written=TABLE,
        leads_folder=f"{RESULTS}/leads",  # in production a bucket that all workers reach
        batch_size=500,
        on_invalid_lead="skip",
        on_duplicate_lead="first",
        depends_on_past=True,
        wait_for_downstream=True,
    )

    @task_group
    def shard(leads_path: str) -> None:
        """Buy one batch, and write its emails to the table. A batch that fails holds back its own emails only."""
        bought = MachFiveGenerateBatchOperator(
            task_id="write_emails",
            leads_path=leads_path,
            campaign_name=os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
            email_count=3,
            email_signature="Alex Morgan\nNorthwind Analytics",
            max_credits=500,
            deferrable=True,
            poll_interval=10,
        )
        MachFiveToSqlOperator(
            task_id="save_emails", list_id=bought.output, sql_conn_id=WAREHOUSE, table=TABLE, on_missing_leads="warn"
        )

    # Right behind find_new_people, because wait_for_downstream looks no further.
    saved = EmptyOperator(task_id="all_saved", trigger_rule="none_failed")
    people >> saved
    shard.expand(leads_path=people.output) >> saved

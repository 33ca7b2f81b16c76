"""Every day from PostgreSQL to PostgreSQL: who came into `contacts` is written to, the emails land in `emails`.

Each run asks for the people of its own data interval, so a backfill of last week writes to last week's people, each
once. Whoever has emails already is left out, whatever day it is.

A person without a row in `emails` is taken for one who was not written to yet. So a run must not begin while another is
at work, nor after one that has bought emails and failed to save them: both would buy the same person again.
`max_active_runs=1` and `wait_for_previous_run` see to that.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from machfive_provider.pipeline.task_group import machfive_pipeline

RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))

with DAG(
    dag_id="machfive_warehouse",
    description="New people in a table, their emails in another, every day",
    # With "@daily" alone a run of Airflow 3 has no interval: both of its ends are the same moment.
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:
    machfive_pipeline(
        sql="""
            SELECT email, full_name, job_title, company FROM contacts
            WHERE created_at >= %(since)s AND created_at < %(until)s AND NOT opted_out
            ORDER BY email
        """,
        sql_conn_id="warehouse",
        sql_parameters={"since": "{{ data_interval_start }}", "until": "{{ data_interval_end }}"},
        skip_already_written="emails",
        leads_folder=f"{RESULTS}/leads",  # in production a bucket that all workers reach
        batch_size=500,
        on_invalid_lead="skip",
        on_duplicate_lead="first",
        campaign_name=os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
        email_count=3,
        email_signature="Alex Morgan\nNorthwind Analytics",
        max_credits=1000,
        poll_interval=10,
        to_table="emails",
        on_missing_leads="warn",
        wait_for_previous_run=True,
    )

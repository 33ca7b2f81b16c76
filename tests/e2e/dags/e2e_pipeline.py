"""The pipeline with a person in it who approves, who rejects, and who does not come."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from machfive_provider.pipeline.task_group import machfive_pipeline

RESULTS = os.environ["MACHFIVE_RESULTS"]


def pipeline(**arguments: Any) -> None:
    machfive_pipeline(
        leads_path=str(Path(__file__).parents[3] / "example_dags" / "data" / "leads.csv"),
        leads_folder=f"{RESULTS}/folder",
        batch_size=30,
        on_invalid_lead="skip",
        on_duplicate_lead="first",
        campaign_name="Spring Outreach",
        email_count=2,
        email_signature="E2E",
        poll_interval=2,
        approval=True,
        **arguments,
    )


with DAG("e2e_pipeline", schedule=None, default_args={"retries": 2}):
    pipeline(export_to=f"{RESULTS}/pipeline/{{{{ run_id }}}}.csv", suppress=["anika.holm@blueharborinc.example.com"])

with DAG("e2e_rejected", schedule=None, default_args={"retries": 2}):
    pipeline(suppress=f"{RESULTS}/opt-outs.csv")

with DAG("e2e_approval_timeout", schedule=None, default_args={"retries": 2}):
    pipeline(approval_timeout=1)

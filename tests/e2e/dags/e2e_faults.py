"""DAGs that meet faults. The test scripts the faults into the sandbox, by the addresses of the leads."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

RESULTS = os.environ["MACHFIVE_RESULTS"]
COMMON = {
    "campaign_name": "Spring Outreach",
    "email_count": 2,
    "email_signature": "E2E",
    "deferrable": True,
    "poll_interval": 2,
    "retries": 3,
    "retry_delay": timedelta(seconds=1),
}

for name in ("payment_required", "forbidden"):
    with DAG(f"e2e_{name}", schedule=None):
        MachFiveGenerateBatchOperator(
            task_id="write_emails",
            leads=[{"email": f"{name}@example.com", "name": "Eve"}],
            export_to=f"{RESULTS}/{name}.jsonl",
            **COMMON,
        )

# A workspace, and so a poller, of its own: its faults must not reach the other DAGs.
with DAG("e2e_server_error_on_poll", schedule=None):
    MachFiveGenerateBatchOperator(
        task_id="write_emails",
        leads=[{"email": "server_error_on_poll@example.com", "name": "Eve"}],
        export_to=f"{RESULTS}/server_error_on_poll.jsonl",
        **COMMON | {"campaign_name": "Renewal Nudge", "machfive_conn_id": "machfive_second"},
    )

with DAG("e2e_not_ready", schedule=None):
    submit = MachFiveGenerateBatchOperator(
        task_id="submit",
        leads=[{"email": "not_ready@example.com", "name": "Eve"}],
        wait_for_completion=False,
        **COMMON,
    )
    # No wait between the two: the list is still being written, and the export must wait for it itself.
    MachFiveExportListOperator(
        task_id="export",
        list_id=submit.output,
        export_to=f"{RESULTS}/not-ready.json",
        export_format="json",
        expected_leads=1,
        deferrable=True,
        poll_interval=2,
    )

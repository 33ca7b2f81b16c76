"""Twenty shards for a workspace that takes three batches at a time: what the page has to tell."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

RESULTS = os.environ["MACHFIVE_RESULTS"]

with DAG("e2e_page_shards", schedule=None, max_active_tasks=20):
    MachFiveGenerateBatchOperator.partial(
        task_id="write",
        campaign_name="Spring Outreach",
        email_count=2,
        email_signature="E2E",
        machfive_conn_id="machfive_shards",
        deferrable=True,
        poll_interval=2,
        export_to=RESULTS + "/shard-{{ ti.map_index }}.csv",
    ).expand_kwargs(
        [{"list_name": f"Shard {n}", "leads": [{"email": f"{n}-{k}@example.com"} for k in range(2)]} for n in range(20)]
    )

# What is wrong with the first two is scripted in the sandbox of this connection, by the address of their lead.
with DAG("e2e_page_states", schedule=None):
    for name, wait in (("checking", timedelta(seconds=1)), ("retrying", timedelta(hours=1)), ("skipped", timedelta(0))):
        MachFiveGenerateBatchOperator(
            task_id=name,
            leads=[{"email": f"{name}@example.com"}],
            campaign_name="Spring Outreach",
            email_count=2,
            email_signature="E2E",
            machfive_conn_id="machfive_demo",
            deferrable=True,
            retries=1,
            retry_delay=wait,
            suppress=["skipped@example.com"],
        )

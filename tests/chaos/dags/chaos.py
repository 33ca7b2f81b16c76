"""One DAG per mode: every batch is a task that buys three leads, waits, and writes a file of its own.

`people.py` edits what is in the file of edits; every task process parses this file, and so reads them, anew.

Most batches are shards of one mapped task; every fourth is a plain task, because the provider checks those in
one more way. What to do comes from the environment, because the DAG is read anew by every task process.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

# What `--without-search` replaces, in this file because every task process reads it.
SEARCH = ("machfive_provider.purchase.buy", "_search")

CHAOS = json.loads(os.environ["MACHFIVE_CHAOS"])
EDITS = json.loads(Path(CHAOS["edits"]).read_text(encoding="utf-8"))


def batch(mode: str, number: int) -> dict[str, object]:
    """Return the arguments of one batch; `accounting.py` expects these leads in this file."""
    emails = [f"lead{lead}@b{number:03d}.{mode}.example.com" for lead in range(1, CHAOS["leads"] + 1)]
    edits = EDITS["batches"].get(f"{mode}-{number:03d}", {})
    company = edits.get("company", "Chaos")
    return {
        "leads": [{"email": email, "name": f"Lead {number}", "company": company} for email in emails],
        "campaign_id": CHAOS["campaign_ids"][edits.get("campaign", 0)],
        "export_to": f"{CHAOS['results']}/{mode}-{number:03d}.jsonl",
    }


def disable(module: str, function: str) -> None:
    """Make the search for lists find nothing; an error if there is no such function."""
    found = __import__(module, fromlist=[function])
    if not callable(getattr(found, function)):
        raise TypeError(f"{module}.{function} is not a function")
    setattr(found, function, lambda *_args, **_kwargs: found.SearchResult())


if CHAOS["without_search"]:
    disable(*SEARCH)

for mode in CHAOS["modes"]:
    common = {
        "email_count": 2,
        "email_signature": "Chaos",
        "deferrable": mode == "deferrable",
        "poll_interval": CHAOS["poll_interval"],
        "max_resubmissions": 10,
        "retries": EDITS["retries"],
        "retry_delay": timedelta(seconds=CHAOS["retry_delay"]),
        "pool": CHAOS["pool"],
    }
    plain = [number for number in range(CHAOS["batches"]) if number % 4 == 0]
    mapped = [number for number in range(CHAOS["batches"]) if number % 4]
    with DAG(f"chaos_{mode}", schedule=None, max_active_tasks=200):
        for number in plain:
            MachFiveGenerateBatchOperator(task_id=f"batch_{number:03d}", **batch(mode, number), **common)
        MachFiveGenerateBatchOperator.partial(task_id="batches", **common).expand_kwargs(
            [batch(mode, number) for number in mapped]
        )

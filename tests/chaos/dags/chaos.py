"""One DAG per mode: every batch is a task that buys three leads, waits, and writes a file of its own.

Most batches are shards of one mapped task; every fourth is a plain task, because the provider guards those in
one way more. What to do comes from the environment, because the DAG is read anew by every task process.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta

from airflow.sdk import DAG

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

# What `--without-look` takes away. Here, and not from outside, because every task process reads this file.
SEARCH = ("machfive_provider.purchase.buy", "_search")

CHAOS = json.loads(os.environ["MACHFIVE_CHAOS"])


def batch(mode: str, number: int) -> dict[str, object]:
    """Tell what is one batch's own; `books.py` expects these very leads in this very file."""
    emails = [f"lead{lead}@b{number:03d}.{mode}.example.com" for lead in range(1, CHAOS["leads"] + 1)]
    return {
        "leads": [{"email": email, "name": f"Lead {number}", "company": "Chaos"} for email in emails],
        "export_to": f"{CHAOS['results']}/{mode}-{number:03d}.jsonl",
    }


def disable(module: str, function: str) -> None:
    """Make the search for lists find nothing; an error if there is no such function any more."""
    found = __import__(module, fromlist=[function])
    if not callable(getattr(found, function)):
        raise TypeError(f"{module}.{function} is not a function")
    setattr(found, function, lambda *_args, **_kwargs: found.SearchResult())


if CHAOS["without_look"]:
    disable(*SEARCH)

for mode in CHAOS["modes"]:
    common = {
        "campaign_id": CHAOS["campaign_id"],
        "email_count": 2,
        "email_signature": "Chaos",
        "deferrable": mode == "deferrable",
        "poll_interval": CHAOS["poll_interval"],
        "max_resubmissions": 10,
        "retries": 40,
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

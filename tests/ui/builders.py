"""Lists and tasks as the page knows them."""

from __future__ import annotations

from typing import Any

import pendulum

from machfive_provider.api.models import LeadList
from machfive_provider.ui.rows import TaskSeen

NOW = pendulum.datetime(2026, 11, 20, 12)
CAMPAIGN = "c0000000-0000-4000-8000-000000000001"


def a_list(
    number: int, status: str = "processing", *, age: float = 60, took: float | None = None, **more: Any
) -> LeadList:
    """Make a list that was created ``age`` seconds ago and, if it has ended, took ``took`` seconds."""
    created = NOW.subtract(seconds=age)
    ended = created.add(seconds=took) if took is not None else None
    known: dict[str, Any] = {"campaign_id": CAMPAIGN, "custom_name": f"List {number}", "created_at": created}
    if status == "completed":
        known["completed_at"] = ended
    return LeadList(list_id(number), status, **{**known, **more})


def list_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def a_task(
    state: str | None = "deferred", *, index: int = -1, dag: str = "crm", task: str = "write", **told: Any
) -> TaskSeen:
    export = told.pop("export", {})
    return TaskSeen(dag, "run", task, index, state, {"conn_id": "machfive_default", **told}, export)

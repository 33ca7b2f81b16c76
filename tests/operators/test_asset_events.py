"""What the asset events of a task tell of its list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.sandbox import Sandbox
from tests.tasks import Run, batch, task_context

EMAILS, OTHER, ALIAS = Asset("emails"), Asset("other"), AssetAlias("whatever")


def outcome_of(task: Any) -> tuple[Run, OutletEventAccessors]:
    """Run a task to its end; return the run, and what Airflow takes the events of its outlets from."""
    events = OutletEventAccessors()
    run = Run(task, context=task_context(task) | {"outlet_events": events})
    run()
    return run, events


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_batch(deferrable: bool, sandbox: Sandbox, connect: Callable[..., None], tmp_path: Path):
    connect(sandbox)
    path = str(tmp_path / "emails.jsonl")
    task = batch(sandbox, export_to=path, deferrable=deferrable, outlets=[EMAILS, ALIAS, OTHER], email_count=2)
    run, events = outcome_of(task)
    (list_id,) = (each.list_id for each in sandbox.purchases)
    extra = events[EMAILS].extra
    assert (extra["list_id"], extra["path"], extra["leads"], extra["emails"]) == (list_id, path, 3, 6)
    assert (extra["missing"], extra["leads_count"], extra["credits"]) == (0, 3, 3)
    assert extra["campaign_id"] == sandbox.campaign_id
    assert extra["completed_at"] == run.xcoms["machfive_batch"]["completed_at"]
    assert events[OTHER].extra == extra
    assert sorted(each.name for each in events) == ["emails", "other"]
    assert None not in extra.values()


def test_batch_that_is_not_waited_for(slow_sandbox: Sandbox, connect: Callable[..., None]):
    connect(slow_sandbox)
    _, events = outcome_of(batch(slow_sandbox, wait_for_completion=False, outlets=[EMAILS]))
    (list_id,) = (each.list_id for each in slow_sandbox.purchases)
    assert events[EMAILS].extra["list_id"] == list_id
    assert "path" not in events[EMAILS].extra


def test_export(sandbox: Sandbox, connect: Callable[..., None], tmp_path: Path):
    connect(sandbox)
    list_id = Run(batch(sandbox))()
    path = str(tmp_path / "emails.csv")
    task = MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=path, outlets=[EMAILS])
    _, events = outcome_of(task)
    extra = events[EMAILS].extra
    assert (extra["list_id"], extra["path"], extra["leads"], extra["missing"]) == (list_id, path, 3, 0)

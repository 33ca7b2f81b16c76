"""The XCom `machfive_batch`: what a task tells before it fails, and while it waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from machfive_provider import exceptions
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.sensors.lead_list import MachFiveListSensor
from machfive_provider.status import Phase, tell, telling_errors, told
from tests.tasks import UNKNOWN_ID, Logs, Run, batch, task_context

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])


@MODES
def test_a_402_is_told_with_what_it_was_for(deferrable: bool, sandbox: Sandbox, connect: Connect):
    """It is the first that the task has to tell, and Airflow keeps no text of an exception."""
    connect(sandbox)
    sandbox.fault("status", endpoint="generate-batch", status=402, code="INSUFFICIENT_CREDITS", request_id="req_7")
    run = Run(batch(sandbox, deferrable=deferrable, list_name="Spring fair"))
    with pytest.raises(exceptions.InsufficientCreditsError):
        run()
    batch_ = run.xcoms["machfive_batch"]
    known = {
        "conn_id": "machfive_default",
        "campaign_id": sandbox.campaign_id,
        "list_name": "Spring fair",
        "credits": 3,
    }
    assert batch_.items() >= {"phase": "failed", "leads_submitted": 3, **known}.items()
    error = batch_["error"]
    assert (error["class"], error["code"], error["request_id"]) == (
        "InsufficientCreditsError",
        "INSUFFICIENT_CREDITS",
        "req_7",
    )
    assert error["remedy"].startswith("Nothing was spent.")
    assert not error["retryable"]


def test_a_full_workspace_is_told_before_the_deferral(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("status", endpoint="generate-batch", status=429, code="WORKSPACE_LIMIT")
    task = batch(sandbox, deferrable=True)
    context = task_context(task)
    with pytest.raises(TaskDeferred):
        task.execute(context)
    known = told(context)
    assert known.items() >= {"phase": "waiting_for_room", "credits": 3, "leads_submitted": 3}.items()
    assert known["asked_at"] > 0
    assert "list_id" not in known


@MODES
@pytest.mark.parametrize("kind", ["sensor", "export"])
def test_the_sensor_and_the_export_tell_why_they_fail(
    kind: str, deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Any
):
    connect(sandbox)
    task: Any = MachFiveListSensor(task_id="wait", list_id=UNKNOWN_ID, deferrable=deferrable)
    if kind == "export":
        path = str(tmp_path / "x.csv")
        task = MachFiveExportListOperator(task_id="e", list_id=UNKNOWN_ID, export_to=path, deferrable=deferrable)
    run = Run(task)
    with pytest.raises(exceptions.NotFoundError):
        run()
    known = run.xcoms["machfive_batch"]
    assert (known["phase"], known["conn_id"], known["error"]["class"]) == (
        "failed",
        "machfive_default",
        "NotFoundError",
    )


def test_no_lead_is_told(sandbox: Sandbox):
    """The API may quote an address, and what other libraries say is not known."""
    context = task_context(batch(sandbox))
    for error in (
        exceptions.BadRequestError("lead dana.reyes@example.com is bad"),
        ValueError("dana.reyes@example.com"),
    ):
        with pytest.raises(type(error)), telling_errors(context, None, {}):
            raise error
        assert "dana" not in str(told(context)["error"])
        assert told(context)["error"]["class"] == type(error).__name__


def test_an_error_is_not_hidden_by_a_store_that_fails(sandbox: Sandbox, logs: Logs):
    task = batch(sandbox)
    context = task_context(task)
    context["ti"].xcom_push = None
    with pytest.raises(exceptions.ServerError), telling_errors(context, task.log, {}):
        raise exceptions.ServerError("down")
    assert "could not be written to XCom" in logs.text


def test_phases_have_times_and_equal_facts_are_pushed_once(sandbox: Sandbox):
    context = task_context(batch(sandbox))
    phases: list[Phase] = ["waiting_for_room", "waiting_for_room", "submitted"]
    for phase in phases:
        tell(context, phase, credits=3)
    assert len(context["ti"].pushes) == 2
    assert list(told(context)["times"]) == ["waiting_for_room", "submitted"]


@MODES
def test_without_resubmissions_a_failed_list_is_final(deferrable: bool, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    slow_sandbox.fault("end_when_polled", status="failed", times=None)
    run = Run(
        batch(slow_sandbox, deferrable=deferrable, max_resubmissions=0, poll_interval=1),
        between=lambda _: slow_sandbox.fail(slow_sandbox.purchases[0].list_id),
    )
    with pytest.raises(exceptions.ListFailedError, match="To buy it again, clear this task"):
        run()

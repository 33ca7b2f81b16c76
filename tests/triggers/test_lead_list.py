"""The trigger that waits for lists: what it sends, logs and yields."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers import events
from machfive_provider.triggers.lead_list import MachFiveListTrigger
from tests.tasks import UNKNOWN_ID, Logs, assert_plain, events_of
from tests.virtual import buy


def waiting_for(*list_ids: str, **arguments: Any) -> MachFiveListTrigger:
    """Make a trigger that polls every 20 seconds."""
    now = time.time()
    known = {"machfive_conn_id": "machfive_default", "poll_interval": 20.0, "started_at": now, "deadline": now + 86400}
    return MachFiveListTrigger(list_ids=list(list_ids), **{**known, **arguments})


async def outcome(trigger: MachFiveListTrigger, *steps: float | Callable[[], Any]) -> Any:
    """Run a trigger beside steps, seconds or calls; return its one event's payload, or its class."""
    run = asyncio.create_task(events_of(trigger, patience=1e9))
    for step in steps:
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            step()
    (event,) = await run
    return TaskSuccessEvent if isinstance(event, TaskSuccessEvent) else event.payload


def error_in(payload: Any) -> exceptions.MachFiveError:
    """Return the error that a worker would raise for an event."""
    with pytest.raises(exceptions.MachFiveError) as caught:
        events.read(json.loads(json.dumps(payload)), "ended")
    return caught.value


async def test_completed(workspace: Sandbox):
    (list_id,) = await buy(workspace)
    trigger = waiting_for(list_id)
    payload = await outcome(trigger, 60.0, lambda: workspace.complete(list_id))
    found = events.read(json.loads(json.dumps(payload)), "ended")
    (ended,) = (LeadList.from_json(each) for each in found["lists"])
    assert (ended.id, ended.leads_count, ended.is_completed) == (list_id, 1, True)
    assert (found["started_at"], found["deadline"]) == (trigger.started_at, trigger.deadline)
    assert {request.method for request in workspace.requests[1:]} == {"GET"}


async def test_several_lists(workspace: Sandbox):
    lists = await buy(workspace, 3)
    payload = await outcome(waiting_for(*lists), *(lambda each=each: workspace.complete(each) for each in lists))
    assert [each["id"] for each in payload["lists"]] == lists


@pytest.mark.parametrize("how", ["complete", "fail"])
async def test_ending_the_task_from_here(how: str, workspace: Sandbox):
    """A success can end in the triggerer; a failure cannot, for want of a final state there."""
    first, second = await buy(workspace, 2)
    workspace.complete(first)
    payload = await outcome(waiting_for(first, second, ends_task=True), lambda: getattr(workspace, how)(second))
    if how == "complete":
        assert payload is TaskSuccessEvent
    else:
        assert [each["processing_status"] for each in payload["lists"]] == ["failed"]


async def test_the_first_failure_ends_the_wait(workspace: Sandbox):
    first, second = await buy(workspace, 2)
    payload = await outcome(waiting_for(first, second), lambda: workspace.fail(second))
    assert [each["id"] for each in payload["lists"]] == [second]


@pytest.mark.parametrize("fault", ["status", "html", "reset", "garbage", "truncate"])
async def test_trouble_heals(fault: str, workspace: Sandbox, logs: Logs):
    (list_id,) = await buy(workspace)
    workspace.fault(fault, endpoint="list", times=3, after=1, **({"status": 500} if fault == "status" else {}))
    payload = await outcome(waiting_for(list_id), 150.0, lambda: workspace.complete(list_id))
    assert payload["status"] == "ended"
    assert [line for line in logs.warnings if f"Poll 3 in a row of list {list_id} failed" in line]
    assert f"List {list_id} can be seen again: processing" in logs.text


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, exceptions.ForbiddenError), (404, exceptions.NotFoundError), (400, exceptions.BadRequestError)],
)
async def test_a_permanent_error_travels_as_an_event(
    status: int, error: type[exceptions.MachFiveError], workspace: Sandbox
):
    (list_id,) = await buy(workspace)
    workspace.fault("status", endpoint="list", status=status, request_id="req_7", detail=[1], message="Not you.")
    raised = error_in(await outcome(waiting_for(list_id)))
    assert type(raised) is error
    assert (raised.status_code, raised.request_id, raised.detail) == (status, "req_7", [1])
    assert raised.message == f"List {list_id}: Not you."
    assert raised.occurred_at.timezone_name == "UTC"
    assert len(workspace.requests_to("list")) == 1


async def test_a_404_right_after_our_submission_is_no_news(workspace: Sandbox, logs: Logs):
    (list_id,) = await buy(workspace)
    workspace.fault("status", endpoint="list", times=3, status=404)
    payload = await outcome(
        waiting_for(list_id, submitted_at=time.time()),
        80.0,
        lambda: workspace.complete(list_id),
    )
    assert payload["status"] == "ended"
    assert logs.count("is not visible yet") == 1


async def test_a_404_later_is_permanent(workspace: Sandbox):
    payload = await outcome(waiting_for(UNKNOWN_ID, submitted_at=time.time() - 121))
    assert isinstance(error_in(payload), exceptions.NotFoundError)


async def test_the_deadline_comes_after_at_least_one_look(workspace: Sandbox):
    (list_id,) = await buy(workspace)
    payload = await outcome(waiting_for(list_id, deadline=time.time() - 5))
    assert isinstance(error_in(payload), exceptions.WaitTimeoutError)
    assert len(workspace.requests_to("list")) == 1
    workspace.complete(list_id)
    assert (await outcome(waiting_for(list_id, deadline=time.time() - 5)))["status"] == "ended"


async def test_an_unknown_status_is_waited_on(workspace: Sandbox, logs: Logs):
    (list_id,) = await buy(workspace)
    workspace.set_status(list_id, "researching")
    payload = await outcome(waiting_for(list_id), 80.0, lambda: workspace.complete(list_id))
    assert payload["status"] == "ended"
    assert logs.count("That status is not one this provider knows") == 1


async def test_the_log_tells_changes_and_not_looks(workspace: Sandbox, logs: Logs):
    (list_id,) = await buy(workspace)
    workspace.set_status(list_id, "pending")
    await outcome(
        waiting_for(list_id),
        100.0,
        lambda: workspace.set_status(list_id, "processing"),
        100.0,
        lambda: workspace.complete(list_id),
    )
    assert len(workspace.requests_to("list")) >= 10
    assert logs.count(f"List {list_id} is pending") == 1
    assert logs.count(f"List {list_id} is processing (was pending)") == 1
    assert workspace.api_key not in logs.text


async def test_the_first_look_waits_for_its_time(workspace: Sandbox):
    first, second = await buy(workspace, 2)
    workspace.complete(second)
    run = asyncio.create_task(events_of(waiting_for(first, first_poll_at=time.time() + 3600)))
    other = await outcome(waiting_for(second))  # the same poller, which would have looked at both
    assert other["status"] == "ended"
    assert [request.path[-36:] for request in workspace.requests_to("list")] == [second]
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert run.cancelled()


async def test_a_connection_that_is_not_there_is_a_configuration_error(workspace: Sandbox):
    payload = await outcome(waiting_for(UNKNOWN_ID, machfive_conn_id="nobody_made_this"))
    assert isinstance(error_in(payload), exceptions.ConfigurationError)


@pytest.mark.parametrize("submitted_at", [None, 12.5])
def test_serialise(submitted_at: float | None):
    trigger = waiting_for(UNKNOWN_ID, submitted_at=submitted_at, first_poll_at=7.0, ends_task=True)
    path, kwargs = trigger.serialize()
    assert path == "machfive_provider.triggers.lead_list.MachFiveListTrigger"
    for value in kwargs.values():
        assert_plain(value)
    again = MachFiveListTrigger(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)
    assert kwargs["submitted_at"] == submitted_at


async def test_on_kill_only_talks(workspace: Sandbox, logs: Logs):
    await waiting_for(UNKNOWN_ID).on_kill()
    for part in ("may have been ended", "no cancel", UNKNOWN_ID, "without paying again"):
        assert part in logs.text
    assert workspace.requests == []

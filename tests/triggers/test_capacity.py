"""The trigger that waits for room in the workspace."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from machfive_provider import errors
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers import events
from machfive_provider.triggers.capacity import MachFiveCapacityTrigger
from tests.support import Logs, assert_plain, events_of

Connect = Callable[..., None]


def fill(sandbox: Sandbox) -> list[str]:
    """Take up every place in the workspace."""
    with MachFiveHook() as hook:
        return [
            hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com")]).list_id
            for _ in range(sandbox.settings.concurrency)
        ]


def waiting(**arguments: Any) -> MachFiveCapacityTrigger:
    """Make a trigger that looks all the time."""
    now = time.time()
    known = {"machfive_conn_id": "machfive_default", "asked_at": now, "deadline": now + 60, "poll_interval": 0.01}
    return MachFiveCapacityTrigger(**{**known, **arguments})


async def outcome(trigger: MachFiveCapacityTrigger, *steps: Callable[[], Any]) -> Any:
    """Run a trigger beside steps that may block; return its one event's payload."""
    run = asyncio.create_task(events_of(trigger))
    for step in steps:
        await asyncio.to_thread(step)
    (event,) = await run
    return json.loads(json.dumps(event.payload))


def rounds(sandbox: Sandbox, count: int) -> Callable[[], None]:
    """Return a step that waits for so many looks at the workspace, two requests each."""
    asked = len(sandbox.requests_to("lists"))
    return lambda: sandbox.wait_for_requests("lists", asked + 2 * count)


@pytest.mark.parametrize("how", ["complete", "fail"])
async def test_room_when_a_batch_ends(how: str, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    trigger = waiting()
    payload = await outcome(trigger, rounds(slow_sandbox, 3), lambda: getattr(slow_sandbox, how)(running[1]))
    assert events.read(payload, "room")["asked_at"] == trigger.asked_at
    asked = {(request.method, request.query["status"]) for request in slow_sandbox.requests_to("lists")}
    assert asked == {("GET", "pending"), ("GET", "processing")}
    assert slow_sandbox.requests_to("list") == []


async def test_a_batch_that_moves_on_is_not_room(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    slow_sandbox.set_status(running[0], "pending")
    run = asyncio.create_task(events_of(waiting()))
    await asyncio.to_thread(rounds(slow_sandbox, 2))
    slow_sandbox.set_status(running[0], "processing")
    await asyncio.to_thread(rounds(slow_sandbox, 3))
    assert not run.done()
    slow_sandbox.complete(running[0])
    await run


async def test_an_empty_workspace_is_room(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    assert (await outcome(waiting()))["status"] == "room"
    assert len(sandbox.requests) == 2


async def test_trouble_heals(slow_sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    slow_sandbox.fault("status", endpoint="lists", times=3, status=500)
    slow_sandbox.fault("reset", endpoint="lists", times=2)
    payload = await outcome(waiting(), rounds(slow_sandbox, 6), lambda: slow_sandbox.complete(running[0]))
    assert payload["status"] == "room"
    assert "The workspace could not be looked at, which is tried again" in logs.text


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_ends_the_wait(status: int, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    slow_sandbox.fault("status", endpoint="lists", times=None, status=status)
    payload = await outcome(waiting())
    with pytest.raises(errors.MachFivePermanentError) as caught:
        events.read(payload, "room")
    assert caught.value.status_code == status


async def test_no_room_in_time(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    now = time.time()
    payload = await outcome(waiting(asked_at=now - 7200, deadline=now - 1))
    with pytest.raises(errors.CapacityTimeoutError, match=r"for 2 h \(capacity_timeout\)\. Nothing was bought"):
        events.read(payload, "room")


async def test_after_a_while_the_task_asks_itself(
    slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    """What the lists do not show, such as another client's limit, only a submission can find out."""
    connect(slow_sandbox)
    fill(slow_sandbox)
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])

    def two_minutes_pass() -> None:
        clock[0] += 121

    payload = await outcome(waiting(deadline=clock[0] + 3600), rounds(slow_sandbox, 3), two_minutes_pass)
    assert payload["status"] == "room"


def test_serialise():
    trigger = waiting()
    path, kwargs = trigger.serialize()
    assert path == "machfive_provider.triggers.capacity.MachFiveCapacityTrigger"
    for value in kwargs.values():
        assert_plain(value)
    assert MachFiveCapacityTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)

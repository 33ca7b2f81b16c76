"""The trigger that waits for a free slot in the workspace, and the queue of all that do."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import json
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers import events
from machfive_provider.triggers.capacity import MachFiveCapacityTrigger
from machfive_provider.waiting.capacity_queue import CapacityQueue
from tests.tasks import Logs, assert_plain, events_of
from tests.virtual import buy

Connect = Callable[..., None]
CONN_ID = "machfive_default"
INTERVAL = 20.0
A_READ = 1.1 * INTERVAL + 1  # seconds in which the workspace is read at least once: pauses are spread by a tenth


def waiting(**arguments: Any) -> MachFiveCapacityTrigger:
    now = time.time()
    known = {"machfive_conn_id": CONN_ID, "asked_at": now, "deadline": now + 86400, "poll_interval": INTERVAL}
    return MachFiveCapacityTrigger(**{**known, **arguments})


def start(*asked: float, **arguments: Any) -> dict[float, asyncio.Task[Any]]:
    """Run a trigger for each time of first asking (seconds after an hour before the loop began)."""
    hour_ago = time.time() - asyncio.get_running_loop().time() - 3600
    return {
        each: asyncio.create_task(events_of(waiting(asked_at=hour_ago + each, **arguments), patience=1e9))
        for each in asked
    }


def done(tasks: dict[float, asyncio.Task[Any]]) -> list[float]:
    return sorted(each for each, task in tasks.items() if task.done())


async def payload_of(task: asyncio.Task[Any]) -> Any:
    (event,) = await task
    return json.loads(json.dumps(event.payload))


async def error_of(task: asyncio.Task[Any]) -> exceptions.MachFiveError:
    with pytest.raises(exceptions.MachFiveError) as caught:
        events.read(await payload_of(task), "submit")
    return caught.value


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- one waiter


@pytest.mark.parametrize("how", ["complete", "fail"])
async def test_a_list_that_ends_frees_its_slot(how: str, workspace: Sandbox):
    running = await buy(workspace, 3)
    trigger = waiting(limit=3, attempt={"try_number": 2, "absent_since": 12.5})
    task = asyncio.create_task(events_of(trigger, patience=1e9))
    workspace.set_status(running[0], "pending")
    await asyncio.sleep(A_READ)
    workspace.set_status(running[0], "processing")  # moving on is not ending
    await asyncio.sleep(5 * A_READ)
    assert not task.done()
    # In this order: a list that moves on between the two reads is in both, not in none.
    assert [request.query["status"] for request in workspace.requests_to("lists")][:4] == ["pending", "processing"] * 2
    getattr(workspace, how)(running[1])
    async with asyncio.timeout(A_READ):
        event = events.read(await payload_of(task), "submit")
    assert event["attempt"] == {**trigger.attempt, "limit": 3}
    assert {request.method for request in workspace.requests[3:]} == {"GET"}
    assert workspace.requests_to("list") == []


@pytest.mark.parametrize("limit", [None, 0, 3])
async def test_an_empty_workspace_has_a_slot(limit: int | None, workspace: Sandbox):
    assert (await payload_of(start(1, limit=limit)[1]))["status"] == "submit"
    assert len(workspace.requests) == 2  # a page of each running status


async def test_many_batches_are_counted_page_by_page(workspace: Sandbox):
    running = await buy(workspace, 130)
    tasks = start(1, 2, limit=130)
    await asyncio.sleep(A_READ)
    assert done(tasks) == []
    workspace.complete(running[0])
    await asyncio.sleep(A_READ)
    assert done(tasks) == [1]
    await stop(tasks.values())


async def test_each_has_its_own_deadline(workspace: Sandbox):
    """It does not wait for the next read, but there is one read at least."""
    await buy(workspace, 3)
    now = time.time()
    late = asyncio.create_task(events_of(waiting(asked_at=now - 7200, deadline=now - 1, limit=3)))
    error = await error_of(late)
    assert isinstance(error, exceptions.CapacityTimeoutError)
    assert "for 2 h. Nothing was bought" in str(error)
    assert len(workspace.requests_to("lists")) == 2
    (patient,) = start(1, limit=3).values()
    (hasty,) = start(2, limit=3, deadline=now + 100, poll_interval=3600.0).values()
    assert isinstance(await error_of(hasty), exceptions.CapacityTimeoutError)
    assert time.time() == pytest.approx(now + 100, abs=0.01)
    assert not patient.done()
    await stop([patient])


async def test_an_outage_heals(workspace: Sandbox, logs: Logs):
    running = await buy(workspace, 3)
    workspace.fault("status", endpoint="lists", times=3, status=500)
    workspace.fault("reset", endpoint="lists", times=2)
    tasks = start(1, 2, limit=3)
    await asyncio.sleep(8 * A_READ)
    workspace.complete(running[0])
    assert (await payload_of(tasks[1]))["status"] == "submit"
    for failures in (1, 3):  # each task's log is told
        assert logs.count(f"The workspace could not be read ({failures} in a row), which is tried again") == 2
    assert "(2 in a row)" not in logs.text
    assert logs.count("number 1 of 2 in the queue: 3 batches run, its limit is taken to be 3.") == 1
    assert logs.count("number 2 of 2 in the queue: 3 batches run, its limit is taken to be 3.") == 1
    await stop([tasks[2]])


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_ends_the_wait_of_all(status: int, workspace: Sandbox):
    await buy(workspace, 3)
    tasks = start(1, 2, 3, limit=3)
    await asyncio.sleep(A_READ)
    workspace.fault("status", endpoint="lists", times=None, status=status)
    for task in tasks.values():
        error = await error_of(task)
        assert isinstance(error, exceptions.MachFivePermanentError)
        assert error.status_code == status
    refused = [request for request in workspace.requests_to("lists") if request.status == status]
    assert len(refused) == (2 if status == 401 else 1)  # the connection is read once more


async def test_a_connection_that_is_not_there(workspace: Sandbox):
    error = await error_of(asyncio.create_task(events_of(waiting(machfive_conn_id="nobody_made_this"))))
    assert isinstance(error, exceptions.ConfigurationError)
    assert "'nobody_made_this'" in str(error)


async def test_a_mistake_of_ours_hangs_nobody(workspace: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("machfive_provider.api.protocol.ListPages")
    for task in start(1, 2).values():
        with pytest.raises(AttributeError):
            await task


async def test_on_kill_says_that_nothing_was_bought(workspace: Sandbox, logs: Logs):
    await waiting().on_kill()
    for part in ("may have been ended by a user", "Nothing was bought", "clearing the task asks again"):
        assert part in logs.text
    assert workspace.requests == []


# --- the queue


async def test_a_freed_slot_wakes_one_in_order(workspace: Sandbox):
    running = await buy(workspace, 3)
    tasks = start(*(number * 7 % 10 for number in range(10)), limit=3)
    await asyncio.sleep(A_READ)
    assert done(tasks) == []
    for number in range(10):
        workspace.complete(running.pop(0))
        await asyncio.sleep(A_READ)
        assert done(tasks) == list(range(number + 1))  # the slot is kept for it
        running += await buy(workspace)
        await asyncio.sleep(A_READ)
        assert done(tasks) == list(range(number + 1))  # and is taken now
    # One watcher for ten waiters: never two reads at the same time.
    asked = [request.query.get("status") for request in workspace.requests_to("lists")]
    assert all(second == "processing" for first, second in itertools.pairwise(asked) if first == "pending")


async def test_a_list_that_comes_between_two_reads_takes_a_slot(workspace: Sandbox, connect: Connect):
    """It is in neither read of what runs, but it is new: it must not free the slot that it takes."""
    connect(host="http://127.0.0.1:1", password=workspace.api_key, extra={"max_concurrent_batches": 3})
    await buy(workspace, 2)
    tasks = start(1, 2)
    await tasks[1]
    workspace.fault("slow_headers", endpoint="lists", after=1, seconds=30)
    await asyncio.sleep(A_READ)  # both reads are made, the second is not answered yet
    (new,) = await buy(workspace)
    workspace.set_status(new, "pending")
    await asyncio.sleep(3 * A_READ)
    assert done(tasks) == [1]
    await stop([tasks[2]])


async def test_another_client_takes_the_slot(workspace: Sandbox):
    running = await buy(workspace, 3)
    tasks = start(1, 2, limit=3)
    await asyncio.sleep(A_READ)
    workspace.complete(running[0])
    await tasks[1]
    await buy(workspace)
    again = start(1, limit=3)
    await asyncio.sleep(2 * A_READ)
    assert done(again) == []
    workspace.complete(running[1])
    await asyncio.sleep(A_READ)
    assert (done(again), done(tasks)) == ([1], [1])  # it is the first again
    await stop([tasks[2]])


async def test_a_slot_that_nobody_takes_is_given_to_the_next_after_a_minute(workspace: Sandbox):
    running = await buy(workspace, 3)
    tasks = start(1, 2, 3, limit=3)
    await asyncio.sleep(A_READ)
    workspace.complete(running[0])
    await tasks[1]
    await asyncio.sleep(59)
    assert done(tasks) == [1]
    await asyncio.sleep(A_READ)
    assert done(tasks) == [1, 2]
    await stop([tasks[3]])


async def test_what_limit_is_learned(workspace: Sandbox):
    """More batches run than it was told: what is seen counts."""
    running = await buy(workspace, 5)
    tasks = start(1, 2, 3, limit=3)
    await asyncio.sleep(A_READ)
    workspace.complete(running[0])
    await asyncio.sleep(A_READ)
    assert done(tasks) == [1]
    await buy(workspace)
    tasks |= start(0, limit=1)  # and then one is told of a lower one: what is seen counts again
    await asyncio.sleep(A_READ)
    assert done(tasks) == [1]
    workspace.complete(running[1])
    await asyncio.sleep(A_READ)
    assert done(tasks) == [0, 1]
    await stop(tasks.values())


async def test_while_the_limit_is_unknown_one_finds_out(workspace: Sandbox):
    await buy(workspace, 3)
    tasks = start(1, 2, 3)
    await asyncio.sleep(2 * A_READ)
    assert done(tasks) == [1]
    again = start(1, limit=3)
    await asyncio.sleep(A_READ)
    assert (done(again), done(tasks)) == ([], [1])
    await stop([*again.values(), *tasks.values()])


async def test_the_limit_that_the_connection_gives(workspace: Sandbox, connect: Connect):
    connect(host="http://127.0.0.1:1", password=workspace.api_key, extra={"max_concurrent_batches": 2})
    first, _ = await buy(workspace, 2)
    tasks = start(1, 2)
    await asyncio.sleep(A_READ)
    assert done(tasks) == []
    workspace.complete(first)
    await asyncio.sleep(2 * A_READ)
    assert done(tasks) == [1]
    await stop([tasks[2]])


async def test_nothing_is_sent_before_the_time_that_the_api_gave(workspace: Sandbox):
    tasks = start(1, 2, limit=3, not_before=time.time() + 30)
    await asyncio.sleep(29)
    assert workspace.requests == []
    await asyncio.sleep(2)
    assert done(tasks) == [1, 2]


async def test_who_is_cancelled_leaves_the_queue(workspace: Sandbox):
    running = await buy(workspace, 3)
    tasks = start(1, 2, 3, limit=3)
    await asyncio.sleep(A_READ)
    await stop([tasks[1]])
    workspace.complete(running[0])
    await asyncio.sleep(2 * A_READ)
    assert done(tasks) == [1, 2]
    await stop([tasks[3]])


async def test_who_is_cancelled_when_a_slot_was_granted_keeps_none(workspace: Sandbox, monkeypatch: pytest.MonkeyPatch):
    running = await buy(workspace, 3)
    tasks = start(1, 2, limit=3)
    await asyncio.sleep(A_READ)
    update = CapacityQueue.update

    def cancel(queue: CapacityQueue, *arguments: Any) -> Any:
        granted = update(queue, *arguments)
        if granted:
            tasks[1].cancel()  # between the grant and the moment that its task hears of it
        return granted

    monkeypatch.setattr(CapacityQueue, "update", cancel)
    workspace.complete(running[0])
    async with asyncio.timeout(2 * A_READ):  # sooner than a reservation would have ended
        await tasks[2]
    assert tasks[1].cancelled()


async def test_hundreds_that_join_at_once_are_one_read(workspace: Sandbox):
    await buy(workspace, 3)
    tasks = start(*range(200), limit=3, poll_interval=3600.0)
    await asyncio.sleep(1)
    tasks |= start(*range(200, 400), limit=3, poll_interval=3600.0)
    await asyncio.sleep(1000)
    assert len(workspace.requests_to("lists")) == 2
    hasty = start(400, limit=3)  # the workspace is read again because this one asks for it
    await asyncio.sleep(A_READ)
    assert len(workspace.requests_to("lists")) >= 4
    await stop([*hasty.values(), *tasks.values()])


async def test_one_that_comes_after_the_last_causes_no_read(workspace: Sandbox):
    """The queue knows when it was last read, although its last waiter has gone."""
    await start(1, poll_interval=3600.0)[1]
    asked = len(workspace.requests)
    again = start(2, poll_interval=3600.0)
    await asyncio.sleep(1000)
    assert len(workspace.requests) == asked
    await stop(again.values())


# --- what is shared and what is left; the fixture checks after each test that no task and no client is left


async def test_the_watcher_has_a_context_of_its_own(workspace: Sandbox):
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker")
    marker.set("the first trigger's")
    seen: list[str | None] = []
    serve = workspace.app._app
    workspace.app._app = lambda *arguments: (seen.append(marker.get(None)), serve(*arguments))[1]
    await start(1)[1]
    assert set(seen) == {None}


async def test_connections_have_a_queue_each(workspace: Sandbox, monkeypatch: pytest.MonkeyPatch):
    other = {"conn_type": "machfive", "host": "http://127.0.0.1:1", "password": workspace.workspaces[0].api_key}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
    await buy(workspace, 3)
    tasks = [*start(1).values(), *start(2, machfive_conn_id="other").values()]
    async with asyncio.timeout(1):  # each is the first in its queue
        await asyncio.gather(*tasks)


def test_a_queue_keeps_no_loop_alive(slow_sandbox: Sandbox, connect: Connect):
    """dag.test() makes a loop for each trigger. On sockets."""
    connect(slow_sandbox)

    async def once() -> weakref.ref[Any]:
        await events_of(waiting())
        return weakref.ref(asyncio.get_running_loop())

    loop, _ = asyncio.run(once()), asyncio.run(once())  # asgiref keeps the latest one, for Airflow
    gc.collect()
    assert loop() is None


def test_serialise():
    trigger = waiting(limit=3, not_before=2.5, attempt={"try_number": 4, "absent_since": 1.5})
    path, kwargs = trigger.serialize()
    assert path == "machfive_provider.triggers.capacity.MachFiveCapacityTrigger"
    for value in kwargs.values():
        assert_plain(value)
    assert (kwargs["limit"], kwargs["not_before"], kwargs["attempt"]["absent_since"]) == (3, 2.5, 1.5)
    assert MachFiveCapacityTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)

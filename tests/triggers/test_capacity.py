"""The trigger that waits for room in the workspace, and the queue of all that do."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import json
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.triggers import events
from machfive_provider.triggers.capacity import MachFiveCapacityTrigger
from machfive_provider.waiting import capacity_watcher, shared_client
from machfive_provider.waiting.capacity import CapacityQueue
from tests.tasks import Logs, assert_plain, events_of

Connect = Callable[..., None]
CONN_ID = "machfive_default"


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    """Check after each test that poller, looker and tasks are gone."""
    before = asyncio.all_tasks()
    yield
    assert not shared_client._readers.in_use()
    assert not capacity_watcher._keepers.in_use()
    assert {task for task in asyncio.all_tasks() if not task.done()} <= {*before, asyncio.current_task()}


def buy(sandbox: Sandbox) -> str:
    """Submit a batch, as a task that was woken does, or another client."""
    with MachFiveHook() as hook:
        return hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com")]).list_id


def fill(sandbox: Sandbox) -> list[str]:
    """Take up every place in the workspace."""
    return [buy(sandbox) for _ in range(sandbox.settings.concurrency)]


def waiting(**arguments: Any) -> MachFiveCapacityTrigger:
    """Make a trigger that looks all the time."""
    now = time.time()
    known = {"machfive_conn_id": CONN_ID, "asked_at": now, "deadline": now + 60, "poll_interval": 0.01}
    return MachFiveCapacityTrigger(**{**known, **arguments})


def start(*asked: float, **arguments: Any) -> dict[float, asyncio.Task[Any]]:
    """Run a trigger for each time of first asking (seconds after an hour ago)."""
    hour_ago = time.time() - 3600
    return {
        each: asyncio.create_task(events_of(waiting(asked_at=hour_ago + each, **arguments)), name=str(each))
        for each in asked
    }


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def looks(sandbox: Sandbox, more: int = 3) -> None:
    """Wait for so many further looks at the workspace that have been taken in."""

    def taken() -> int:
        return sum(request.query.get("status") == "pending" for request in sandbox.requests_to("lists"))

    enough = taken() + more + 1  # the beginning of the next look is the end of the one before
    await in_thread(sandbox.wait_until, lambda: taken() >= enough)


def done(tasks: dict[float, asyncio.Task[Any]]) -> list[float]:
    return sorted(each for each, task in tasks.items() if task.done())


async def payload_of(task: asyncio.Task[Any]) -> Any:
    (event,) = await task
    return json.loads(json.dumps(event.payload))


async def end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- one waiter


@pytest.mark.parametrize("how", ["complete", "fail"])
async def test_a_freed_place_is_room(how: str, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    trigger = waiting(limit=3, try_number=2, absent_since=12.5)
    run = asyncio.create_task(events_of(trigger))
    await looks(slow_sandbox)
    assert not run.done()
    getattr(slow_sandbox, how)(running[1])
    event = events.read(await payload_of(run), "submit")
    assert event["asked_at"] == trigger.asked_at
    assert (event["try_number"], event["absent_since"], event["granted"]) == (2, 12.5, True)
    assert {request.method for request in slow_sandbox.requests[3:]} == {"GET"}
    assert slow_sandbox.requests_to("list") == []


async def test_a_batch_that_moves_on_is_not_room(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    slow_sandbox.set_status(running[0], "pending")
    run = asyncio.create_task(events_of(waiting(limit=3)))
    await looks(slow_sandbox)
    slow_sandbox.set_status(running[0], "processing")
    await looks(slow_sandbox)
    assert not run.done()
    asked = [request.query.get("status") for request in slow_sandbox.requests_to("lists")]
    assert asked[:4] == ["pending", "processing"] * 2
    slow_sandbox.complete(running[0])
    await run


@pytest.mark.parametrize("limit", [None, 0, 3])
async def test_an_empty_workspace_is_room(limit: int | None, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    assert (await payload_of(asyncio.create_task(events_of(waiting(limit=limit)))))["status"] == "submit"
    assert len(sandbox.requests) == 3


async def test_many_batches_are_counted_page_by_page(connect: Connect):
    with Sandbox(SandboxSettings(processing_seconds=float("inf"), concurrency=130)) as sandbox:
        connect(sandbox)
        running = await in_thread(fill, sandbox)
        tasks = start(1, 2, limit=130)
        await looks(sandbox)
        assert done(tasks) == []
        sandbox.complete(running[0])
        await tasks[1]
        await looks(sandbox)
        assert done(tasks) == [1]
        await end(*tasks.values())


async def test_no_room_in_time(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    now = time.time()
    payload = await payload_of(asyncio.create_task(events_of(waiting(asked_at=now - 7200, deadline=now - 1, limit=3))))
    with pytest.raises(exceptions.CapacityTimeoutError, match=r"for 2 h \(capacity_timeout\)\. Nothing was bought"):
        events.read(payload, "submit")
    assert len(slow_sandbox.requests_to("lists")) >= 2  # one look at least


async def test_each_has_its_own_deadline(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    (patient,) = start(1, limit=3).values()
    await looks(slow_sandbox)
    # Also where the next look is far away: the deadline does not wait for it.
    (hasty,) = start(2, limit=3, deadline=time.time() + 0.1).values()
    with pytest.raises(exceptions.CapacityTimeoutError):
        events.read(await payload_of(hasty), "submit")
    assert not patient.done()
    await end(patient)


async def test_the_deadline_does_not_wait_for_the_next_look(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    payload = await payload_of(
        asyncio.create_task(events_of(waiting(limit=3, poll_interval=3600, deadline=time.time() + 0.5)))
    )
    with pytest.raises(exceptions.CapacityTimeoutError):
        events.read(payload, "submit")


async def test_trouble_heals(slow_sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    slow_sandbox.fault("status", endpoint="lists", times=3, status=500)
    slow_sandbox.fault("reset", endpoint="lists", times=2)
    tasks = start(1, 2, limit=3)
    await looks(slow_sandbox, 8)
    slow_sandbox.complete(running[0])
    assert (await payload_of(tasks[1]))["status"] == "submit"
    for failures in (1, 3):  # each task's log is told
        assert logs.count(f"The workspace could not be looked at ({failures} in a row), which is tried again") == 2
    assert "(2 in a row)" not in logs.text
    await end(tasks[2])


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_ends_the_wait_of_all(status: int, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    tasks = start(1, 2, 3, limit=3)
    await looks(slow_sandbox)
    slow_sandbox.fault("status", endpoint="lists", times=None, status=status)
    for task in tasks.values():
        with pytest.raises(exceptions.MachFivePermanentError) as caught:
            events.read(await payload_of(task), "submit")
        assert caught.value.status_code == status
    refused = [request for request in slow_sandbox.requests_to("lists") if request.status == status]
    assert len(refused) == (2 if status == 401 else 1)  # the connection is read once more


async def test_a_connection_that_is_not_there(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AIRFLOW_CONN_MACHFIVE_DEFAULT", raising=False)
    payload = await payload_of(asyncio.create_task(events_of(waiting())))
    with pytest.raises(exceptions.ConfigurationError, match="'machfive_default'"):
        events.read(payload, "submit")


async def test_a_mistake_of_ours_hangs_nobody(slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch):
    connect(slow_sandbox)
    monkeypatch.delattr(CapacityQueue, "wants_newest")
    for task in start(1, 2).values():
        with pytest.raises(AttributeError):
            await task


async def test_the_log_says_where_it_stands(slow_sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(slow_sandbox)
    fill(slow_sandbox)
    tasks = start(1, 2, limit=3)
    await looks(slow_sandbox, 5)
    await end(*tasks.values())
    assert logs.count("next in line: 3 batches run, its limit is taken to be 3.") == 1
    assert logs.count("number 2 of 2 in line here: 3 batches run, its limit is taken to be 3.") == 1


async def test_on_kill_says_that_nothing_was_bought(logs: Logs):
    await waiting().on_kill()
    assert "may have been ended by a user" in logs.text
    assert "Nothing was bought" in logs.text
    assert "clearing the task asks again" in logs.text


# --- the queue


async def test_a_freed_place_wakes_one_in_order(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    tasks = start(*(number * 7 % 18 for number in range(18)), limit=3)
    await looks(slow_sandbox)
    assert done(tasks) == []
    for number in range(18):
        slow_sandbox.complete(running.pop(0))
        await tasks[number]
        if number < 17:
            await looks(slow_sandbox)
            assert done(tasks) == list(range(number + 1))  # the place is kept for it
        running.append(buy(slow_sandbox))
        if number < 17:
            await looks(slow_sandbox)
            assert done(tasks) == list(range(number + 1))  # and is taken now
    assert len(slow_sandbox.purchases) == 21
    # Eighteen waiters, one looker: never two looks at the same time.
    asked = [request.query.get("status") for request in slow_sandbox.requests_to("lists")]
    assert all(second == "processing" for first, second in itertools.pairwise(asked) if first == "pending")


async def test_a_list_that_comes_between_two_reads_takes_a_place(slow_sandbox: Sandbox, connect: Connect):
    """It is in neither read of what runs, but it is new: it must not free the place that it takes."""
    connect(slow_sandbox)
    running = frozenset([buy(slow_sandbox), buy(slow_sandbox)])
    room = CapacityQueue(hint=3)
    room.join(time.time(), time.time())
    assert room.look(running, running, time.time())  # the third place is kept for this one
    room.looked_at = None
    capacity_watcher._rooms[asyncio.get_running_loop()] = {CONN_ID: room}
    connect(slow_sandbox, extra={"max_concurrent_batches": 3})
    slow_sandbox.fault("slow_headers", endpoint="lists", after=1, seconds=0.3)
    tasks = start(1)
    await in_thread(slow_sandbox.wait_for_requests, "lists", 2)
    slow_sandbox.set_status(await in_thread(buy, slow_sandbox), "pending")
    await looks(slow_sandbox)
    assert done(tasks) == []
    await end(*tasks.values())


async def test_a_short_list_frees_the_place_it_took_between_two_looks(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    slow_sandbox.complete(running[0])
    tasks = start(1, 2, limit=3)
    await tasks[1]
    await looks(slow_sandbox)
    slow_sandbox.fault("fail_list")
    slow_sandbox.fault("hang", endpoint="lists")  # no look sees it run
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 1)
    slow_sandbox.complete(buy(slow_sandbox))
    await end(tasks[2])
    (again,) = start(2).values()
    assert (await payload_of(again))["status"] == "submit"


async def test_another_client_takes_the_place(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    tasks = start(1, 2, limit=3)
    await looks(slow_sandbox)
    slow_sandbox.complete(running[0])
    woken = await payload_of(tasks[1])
    buy(slow_sandbox)
    await looks(slow_sandbox)
    back = asyncio.create_task(events_of(waiting(asked_at=woken["asked_at"], limit=3)))
    await looks(slow_sandbox)
    assert not back.done()
    assert not tasks[2].done()
    slow_sandbox.complete(running[1])
    await back  # it is the head again
    await looks(slow_sandbox)
    assert not tasks[2].done()
    await end(tasks[2])


async def test_a_place_that_nobody_takes_is_given_to_the_next(
    slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    tasks = start(1, 2, 3, limit=3, deadline=clock[0] + 3600)
    await looks(slow_sandbox)
    slow_sandbox.complete(running[0])
    await tasks[1]
    clock[0] += 59
    await looks(slow_sandbox)
    assert done(tasks) == [1]
    clock[0] += 1
    await tasks[2]
    await looks(slow_sandbox)
    assert done(tasks) == [1, 2]
    await end(tasks[3])


async def test_a_limit_that_is_higher_than_learned(connect: Connect):
    with Sandbox(SandboxSettings(processing_seconds=float("inf"), concurrency=5)) as sandbox:
        connect(sandbox)
        running = [buy(sandbox) for _ in range(3)]
        tasks = start(1, limit=3)
        await looks(sandbox)
        running += [buy(sandbox) for _ in range(2)]
        await looks(sandbox)
        assert done(tasks) == []
        sandbox.complete(running[0])
        await tasks[1]


async def test_a_limit_that_sinks(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    tasks = start(1, 2, limit=3)
    await looks(slow_sandbox)
    tasks |= start(0, limit=1)
    await looks(slow_sandbox)
    slow_sandbox.complete(running[0])
    slow_sandbox.complete(running[1])
    await tasks[0]  # 3 ran when it was told of 1: what is seen counts again, and two places are free
    await tasks[1]
    await end(tasks[2])


async def test_while_the_limit_is_unknown_one_finds_out(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    tasks = start(1, 2, 3)
    woken = await payload_of(tasks[1])
    await looks(slow_sandbox)
    assert done(tasks) == [1]
    back = asyncio.create_task(events_of(waiting(asked_at=woken["asked_at"], limit=3)))
    await looks(slow_sandbox)
    assert done(tasks) == [1]
    assert not back.done()
    await end(back, *tasks.values())


async def test_the_hint_of_the_connection(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox, extra={"max_concurrent_batches": 2})
    first, _ = buy(slow_sandbox), buy(slow_sandbox)
    tasks = start(1, 2)
    await looks(slow_sandbox)
    assert done(tasks) == []
    slow_sandbox.complete(first)
    await tasks[1]
    await looks(slow_sandbox)
    assert done(tasks) == [1]
    await end(tasks[2])


async def test_nobody_is_woken_while_the_api_wants_to_be_left_alone(
    slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    connect(slow_sandbox)
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    tasks = start(1, 2, limit=3, not_before=clock[0] + 30)
    for _ in range(20):
        await asyncio.sleep(0)
    assert slow_sandbox.requests == []
    clock[0] += 30
    tasks |= start(3, limit=3)  # whoever comes makes the looker see that it is time
    await asyncio.gather(*tasks.values())


async def test_who_is_cancelled_leaves_the_queue(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    tasks = start(1, 2, 3, limit=3)
    await looks(slow_sandbox)
    await end(tasks[1])
    slow_sandbox.complete(running[0])
    await tasks[2]
    await looks(slow_sandbox)
    assert not tasks[3].done()
    await end(tasks[3])


async def test_who_is_cancelled_when_woken_keeps_no_place(
    slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    tasks = start(1, 2, limit=3)
    await looks(slow_sandbox)
    look = CapacityQueue.look

    def woken_and_cancelled(room: CapacityQueue, *arguments: Any) -> Any:
        woken = look(room, *arguments)
        if woken and not tasks[1].cancelled():
            tasks[1].cancel()  # between the granting and its taking
        return woken

    monkeypatch.setattr(CapacityQueue, "look", woken_and_cancelled)
    slow_sandbox.complete(running[0])
    assert (await payload_of(tasks[2]))["status"] == "submit"
    assert tasks[1].cancelled()


async def test_two_hundred_that_join_at_once_are_one_look(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    tasks = start(*range(200), limit=3, poll_interval=3600)
    await in_thread(slow_sandbox.wait_for_requests, "lists", 2)
    tasks |= start(*range(200, 400), limit=3, poll_interval=3600)
    late = start(400, limit=3, poll_interval=0.01)  # looks again because this one wants it so
    await in_thread(slow_sandbox.wait_for_requests, "lists", 6)
    await end(*late.values())
    asked = len(slow_sandbox.requests_to("lists"))
    tasks |= start(*range(500, 600), limit=3, poll_interval=3600)
    for _ in range(20):
        await asyncio.sleep(0)
    await in_thread(buy_elsewhere, slow_sandbox)
    assert len(slow_sandbox.requests_to("lists")) <= asked + 2  # one look may have been under way
    await end(*tasks.values())


def buy_elsewhere(sandbox: Sandbox) -> None:
    with MachFiveHook() as hook:
        hook.list_campaigns()


async def test_one_refused_after_the_other_does_not_cause_a_look_each(slow_sandbox: Sandbox, connect: Connect):
    """The room remembers its last look when its last waiter has gone."""
    connect(slow_sandbox)
    (first,) = start(1, poll_interval=3600).values()
    await first
    asked = len(slow_sandbox.requests)
    again = start(2, poll_interval=3600)
    for _ in range(20):
        await asyncio.sleep(0)
    await in_thread(buy_elsewhere, slow_sandbox)
    assert len(slow_sandbox.requests_to("lists")) == asked
    await end(*again.values())


# --- what is shared and what is left


async def test_the_looker_has_a_context_of_its_own(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker")
    marker.set("the first trigger's")
    seen: list[str | None] = []

    class Spy(CapacityQueue):
        def look(self, *arguments: Any) -> Any:
            seen.append(marker.get(None))
            return super().look(*arguments)

    capacity_watcher._rooms[asyncio.get_running_loop()] = {CONN_ID: Spy()}
    await events_of(waiting())
    assert seen == [None]


async def test_connections_have_a_room_each(slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch):
    connect(slow_sandbox)
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", f'{{"conn_type": "machfive", "host": "{slow_sandbox.base_url}", '
                       f'"password": "{slow_sandbox.api_key}"}}')  # fmt: skip
    await events_of(waiting())
    await events_of(waiting(machfive_conn_id="other"))
    assert set(capacity_watcher._rooms[asyncio.get_running_loop()]) == {CONN_ID, "other"}


async def test_the_last_waiter_ends_the_looking(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    tasks = start(1, 2, limit=3)
    await looks(slow_sandbox)
    await end(tasks[1])
    await looks(slow_sandbox)
    await end(tasks[2])
    assert capacity_watcher._keepers.in_use() == {}
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.open_connections == 0)


def test_a_room_keeps_no_loop_alive(slow_sandbox: Sandbox, connect: Connect):
    """dag.test() makes a loop for each trigger."""
    connect(slow_sandbox)

    async def once() -> weakref.ref[Any]:
        await events_of(waiting())
        return weakref.ref(asyncio.get_running_loop())

    loop, _ = asyncio.run(once()), asyncio.run(once())  # asgiref keeps the latest one, for Airflow
    gc.collect()
    assert loop() is None


def test_serialise():
    trigger = waiting(limit=3, not_before=2.5, try_number=4, absent_since=1.5)
    path, kwargs = trigger.serialize()
    assert path == "machfive_provider.triggers.capacity.MachFiveCapacityTrigger"
    for value in kwargs.values():
        assert_plain(value)
    assert (kwargs["limit"], kwargs["not_before"], kwargs["try_number"], kwargs["absent_since"]) == (3, 2.5, 4, 1.5)
    assert MachFiveCapacityTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)

"""One poller and one client for all triggers of a connection: what they share, how it heals, and that it ends."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from machfive_provider import errors
from machfive_provider.api import protocol
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from machfive_provider.shared_poller import _pollers, shared_poller
from machfive_provider.triggers import events
from machfive_provider.triggers.capacity import MachFiveCapacityTrigger
from machfive_provider.triggers.lead_list import MachFiveListTrigger
from tests import support

running_slow_sandbox, slow_sandbox = support.running_slow_sandbox, support.slow_sandbox
connect, logs = support.connect, support.logs

Connect = Callable[..., None]
CONN_ID = "machfive_default"
NEW_KEY = "mf_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@pytest.fixture
def lists(slow_sandbox: Sandbox, connect: Connect) -> list[str]:
    """Connect, and buy three lists that stay in work."""
    connect(slow_sandbox)
    with MachFiveHook() as hook:
        return [hook.generate_batch(slow_sandbox.campaign_id, [Lead("a@example.com")]).list_id for _ in range(3)]


@pytest.fixture(autouse=True)
async def _nothing_is_left(slow_sandbox: Sandbox) -> AsyncIterator[None]:
    """Check after each test that poller, tasks and connections are gone."""
    before = asyncio.all_tasks()
    yield
    assert not _pollers.get(asyncio.get_running_loop())
    assert {task for task in asyncio.all_tasks() if not task.done()} <= {*before, asyncio.current_task()}
    await asyncio.to_thread(slow_sandbox.wait_until, lambda: slow_sandbox.open_connections == 0)


def waiting_for(list_id: str, **arguments: Any) -> MachFiveListTrigger:
    """Make a trigger that looks all the time."""
    now = time.time()
    known = {"poll_interval": 0.01, "started_at": now, "deadline": now + 60}
    return MachFiveListTrigger(list_ids=[list_id], machfive_conn_id=CONN_ID, **{**known, **arguments})


def start(*triggers: Any, patience: float = 30.0) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(support.events_of(trigger, patience)) for trigger in triggers]


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def looks(sandbox: Sandbox, more: int) -> None:
    """Wait for so many further looks."""
    await in_thread(sandbox.wait_for_requests, "list", len(sandbox.requests_to("list")) + more)


# --- sharing


async def test_one_poller_and_few_connections_for_many_triggers(slow_sandbox: Sandbox, lists: list[str]):
    waiting = start(*(waiting_for(lists[number % 3]) for number in range(60)))
    await looks(slow_sandbox, 300)
    (poller,) = _pollers[asyncio.get_running_loop()].values()
    assert poller.waiters == 60
    # No more than look at the same time.
    assert 1 <= slow_sandbox.open_connections <= 8
    for list_id in lists:
        slow_sandbox.complete(list_id)
    for (event,) in await asyncio.gather(*waiting):
        assert events.read(event.payload, "ended")["lists"][0]["processing_status"] == "completed"
    bought = len(slow_sandbox.purchases)
    assert {request.method for request in slow_sandbox.requests[bought:]} == {"GET"}


async def test_one_trigger_at_a_time_uses_one_connection(slow_sandbox: Sandbox, lists: list[str]):
    (waiting,) = start(waiting_for(lists[0]))
    await looks(slow_sandbox, 5)
    assert slow_sandbox.open_connections == 1
    slow_sandbox.complete(lists[0])
    await waiting


async def test_lists_and_capacity_share_a_poller(slow_sandbox: Sandbox, lists: list[str]):
    now = time.time()
    waiting = start(waiting_for(lists[0]), MachFiveCapacityTrigger(CONN_ID, now, now + 60, 0.01, limit=3))
    await looks(slow_sandbox, 5)
    await in_thread(slow_sandbox.wait_for_requests, "lists", 4)
    assert len(_pollers[asyncio.get_running_loop()]) == 1
    slow_sandbox.complete(lists[0])
    (ended,), (room,) = await asyncio.gather(*waiting)
    assert (ended.payload["status"], room.payload["status"]) == ("ended", "submit")


async def test_connections_do_not_share(slow_sandbox: Sandbox, lists: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", f'{{"conn_type": "machfive", "host": "{slow_sandbox.base_url}", '
                       f'"password": "{slow_sandbox.api_key}"}}')  # fmt: skip
    async with shared_poller(CONN_ID) as one, shared_poller("other") as other, shared_poller(CONN_ID) as again:
        assert one is again
        assert one is not other
        assert (one.waiters, other.waiters) == (2, 1)


async def test_the_poller_has_a_context_of_its_own(slow_sandbox: Sandbox, lists: list[str]):
    """What it logs belongs to the triggerer's log, not to the task that came first."""
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker")
    marker.set("the first trigger's")
    contexts: list[contextvars.Context | None] = []

    def note(loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None) -> Any:
        contexts.append(context)
        return asyncio.Task(work, loop=loop, context=context)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(note)
    try:
        async with shared_poller(CONN_ID):
            pass
    finally:
        loop.set_task_factory(None)
    assert contexts[0] is not None
    assert marker not in contexts[0]


async def test_a_look_is_not_taken_before_its_time(slow_sandbox: Sandbox, lists: list[str]):
    async with shared_poller(CONN_ID) as poller:
        late = asyncio.create_task(poller.look(lists[0], 3600))
        assert (await poller.look(lists[1], 0)).id == lists[1]
        assert not late.done()
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
    assert [request.path[-36:] for request in slow_sandbox.requests_to("list")] == [lists[1]]


# --- healing


async def test_a_500_reaches_one_look_only(slow_sandbox: Sandbox, lists: list[str], logs: support.Logs):
    slow_sandbox.fault("status", endpoint="list", status=500, contains=lists[0])
    waiting = start(waiting_for(lists[0]), waiting_for(lists[1]))
    await looks(slow_sandbox, 10)
    for list_id in lists[:2]:
        slow_sandbox.complete(list_id)
    for (event,) in await asyncio.gather(*waiting):
        assert event.payload["status"] == "ended"
    assert f"Look 1 in a row at list {lists[0]} failed" in logs.text
    assert f"at list {lists[1]} failed" not in logs.text


async def test_a_rotated_key_is_taken_up(slow_sandbox: Sandbox, lists: list[str], connect: Connect, logs: support.Logs):
    (waiting,) = start(waiting_for(lists[0]))
    await looks(slow_sandbox, 3)
    connect(slow_sandbox, password=NEW_KEY)
    slow_sandbox.workspaces[0].api_key = NEW_KEY
    await looks(slow_sandbox, 3)
    slow_sandbox.complete(lists[0])
    (event,) = await waiting
    assert event.payload["status"] == "ended"
    refused = [request for request in slow_sandbox.requests_to("list") if request.status == 401]
    assert len(refused) == 1
    assert "failed" not in logs.text
    assert NEW_KEY not in logs.text


async def test_a_revoked_key_ends_the_wait(slow_sandbox: Sandbox, lists: list[str]):
    waiting = start(waiting_for(lists[0]))
    await looks(slow_sandbox, 2)
    slow_sandbox.workspaces[0].api_key = NEW_KEY
    ((event,),) = await asyncio.gather(*waiting)
    with pytest.raises(errors.UnauthorizedError, match=r"Invalid API key\."):
        events.read(event.payload, "ended")
    refused = [request for request in slow_sandbox.requests_to("list") if request.status == 401]
    assert len(refused) == 2  # with the connection as it was, and as it is


async def test_a_connection_removed_meanwhile(slow_sandbox: Sandbox, lists: list[str], monkeypatch: pytest.MonkeyPatch):
    waiting = start(waiting_for(lists[0]))
    await looks(slow_sandbox, 2)
    monkeypatch.delenv("AIRFLOW_CONN_MACHFIVE_DEFAULT")
    slow_sandbox.workspaces[0].api_key = NEW_KEY
    ((event,),) = await asyncio.gather(*waiting)
    with pytest.raises(errors.ConfigurationError, match="'machfive_default'"):
        events.read(event.payload, "ended")


# --- when the API asks for fewer requests


class LoopClock:
    """Sets a loop's clock forward, so that what is due in minutes is due now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.ahead, real = 0.0, loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)

    async def forward(self, seconds: float) -> None:
        self.ahead += seconds
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    return LoopClock(monkeypatch)


async def refused(sandbox: Sandbox, status: int) -> int:
    """Wait until somebody was answered so and nothing is under way; return how many looks there were."""
    await in_thread(sandbox.wait_until, lambda: status in [request.status for request in sandbox.requests])
    (poller,) = _pollers[asyncio.get_running_loop()].values()
    await barrier()
    while poller._users:
        await barrier()
    return len(sandbox.requests_to("list"))


async def barrier() -> None:
    """Return when a request of our own has been there and back: whatever else was due has been sent by then."""

    def there_and_back() -> None:
        with MachFiveHook() as hook:
            hook.list_campaigns()

    await in_thread(there_and_back)


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        ({"status": 429, "headers": {"Retry-After": "120"}}, 120),
        ({"status": 503, "headers": {"Retry-After": "120"}}, 120),
        ({"status": 429, "code": "RATE_LIMITED"}, 10),
        ({"status": 429, "headers": {"Retry-After": "86400"}}, 300),
    ],
    ids=str,
)
async def test_one_wish_holds_back_all(
    answer: dict[str, Any], held: float, slow_sandbox: Sandbox, lists: list[str], clock: LoopClock, logs: support.Logs
):
    slow_sandbox.fault("status", endpoint="list", contains=lists[0], **answer)
    now = time.time()
    triggers = [waiting_for(lists[number % 3]) for number in range(30)]
    waiting = start(*triggers, MachFiveCapacityTrigger(CONN_ID, now, now + 60, 0.01, limit=3), patience=1e6)
    asked = await refused(slow_sandbox, answer["status"])
    rooms = len(slow_sandbox.requests_to("lists"))
    await clock.forward(held - 3)
    await barrier()
    assert len(slow_sandbox.requests_to("list")) == asked
    assert len(slow_sandbox.requests_to("lists")) == rooms
    assert logs.count("Connection 'machfive_default' is not used for reads for") == 1
    await clock.forward(3)
    await looks(slow_sandbox, 60)
    for list_id in lists:
        slow_sandbox.complete(list_id)
    await clock.forward(86400)  # the one that was refused keeps to what it was told
    await asyncio.gather(*waiting)


async def test_an_error_without_a_wish_holds_back_nobody(slow_sandbox: Sandbox, lists: list[str]):
    async with shared_poller(CONN_ID) as poller:
        slow_sandbox.fault("status", endpoint="list", status=500)
        slow_sandbox.fault("status", endpoint="list", status=429, headers={"Retry-After": "0"})
        for _ in range(2):
            with pytest.raises(errors.MachFiveTransientError):
                await poller.look(lists[0], 0)
        assert (await poller.look(lists[0], 0)).id == lists[0]


async def test_nobody_is_held_back_for_ever(slow_sandbox: Sandbox, lists: list[str], clock: LoopClock):
    """Who has waited for five minutes hears of it, so that it can look at its deadline."""
    slow_sandbox.fault("status", endpoint="list", times=None, status=429, headers={"Retry-After": "200"})
    async with shared_poller(CONN_ID) as poller:
        with pytest.raises(errors.RateLimitedError):
            await poller.look(lists[0], 0)
        held = [asyncio.create_task(poller.look(lists[1], 0)) for _ in range(20)]
        await clock.forward(1)
        assert len(slow_sandbox.requests_to("list")) == 1
        await clock.forward(200)  # some ask, and are refused anew
        await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        await refused(slow_sandbox, 429)
        await clock.forward(150)
        for error in await asyncio.gather(*held, return_exceptions=True):
            assert isinstance(error, errors.RateLimitedError)
        # No more than look at the same time found out.
        assert len(slow_sandbox.requests_to("list")) <= 1 + 8
        assert sum("this one was held back for 5 min" in str(task.exception()) for task in held) >= 12


async def test_who_leaves_in_a_pause_is_not_asked_for(slow_sandbox: Sandbox, lists: list[str], clock: LoopClock):
    slow_sandbox.fault("status", endpoint="list", status=429, headers={"Retry-After": "200"})
    async with shared_poller(CONN_ID) as poller:
        with pytest.raises(errors.RateLimitedError):
            await poller.look(lists[0], 0)
        gone, stays = (asyncio.create_task(poller.look(each, 0)) for each in lists[1:])
        await clock.forward(1)
        gone.cancel()
        await clock.forward(201)
        assert (await stays).id == lists[2]
        await barrier()
    assert [request.path[-36:] for request in slow_sandbox.requests_to("list")] == [lists[0], lists[2]]


async def test_the_settings_are_those_last_read(slow_sandbox: Sandbox, lists: list[str], connect: Connect):
    async with shared_poller(CONN_ID) as poller:
        assert (await poller.settings()).max_concurrent_batches is None
        connect(slow_sandbox, password=NEW_KEY, extra={"max_concurrent_batches": 7})
        slow_sandbox.workspaces[0].api_key = NEW_KEY
        assert (await poller.look(lists[0], 0)).id == lists[0]
        assert (await poller.settings()).max_concurrent_batches == 7


# --- ending


async def test_the_last_waiter_ends_the_poller(slow_sandbox: Sandbox, lists: list[str]):
    waiting = start(waiting_for(lists[0]), waiting_for(lists[1]))
    await looks(slow_sandbox, 4)
    slow_sandbox.complete(lists[0])
    await waiting[0]
    (poller,) = _pollers[asyncio.get_running_loop()].values()
    assert poller.waiters == 1
    slow_sandbox.complete(lists[1])
    await waiting[1]
    assert _pollers[asyncio.get_running_loop()] == {}
    assert poller._runner.done()


async def test_cancelled_triggers_leave_nothing(slow_sandbox: Sandbox, lists: list[str]):
    waiting = start(*(waiting_for(list_id) for list_id in lists))
    await looks(slow_sandbox, 5)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all(task.cancelled() for task in waiting)


async def test_cancelled_in_the_middle_of_a_look(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.fault("hang", endpoint="list", contains=lists[0])
    hanging, other = start(waiting_for(lists[0]), waiting_for(lists[1]))
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 1)
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    await looks(slow_sandbox, 3)  # the other one goes on
    slow_sandbox.complete(lists[1])
    await other
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 0)


async def test_a_hanging_look_holds_up_nobody_else(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.fault("hang", endpoint="list", times=2, contains=lists[0])
    hanging = start(waiting_for(lists[0]), waiting_for(lists[0]))
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 2)
    slow_sandbox.complete(lists[1])
    (quick,) = start(waiting_for(lists[1]))
    ((event),) = await quick
    assert event.payload["status"] == "ended"
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_new_waiter_after_the_end_gets_a_new_poller(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.complete(lists[0])
    for _ in range(2):
        (waiting,) = start(waiting_for(lists[0]))
        ((event),) = await waiting
        assert event.payload["status"] == "ended"


def test_each_loop_has_its_own(slow_sandbox: Sandbox, lists: list[str]):
    """dag.test() makes a loop for each trigger."""
    slow_sandbox.complete(lists[0])
    for _ in range(3):
        (event,) = asyncio.run(support.events_of(waiting_for(lists[0])))
        assert event.payload["status"] == "ended"


async def test_looking_does_not_block_the_loop(slow_sandbox: Sandbox, lists: list[str]):
    """A blocking look-up would stop every trigger of the triggerer: here the answer hangs until the loop goes on."""
    slow_sandbox.fault("hang", endpoint="list", times=1)
    (waiting,) = start(waiting_for(lists[0]))
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 1)
    ticks = 0
    for _ in range(100):
        await asyncio.sleep(0)
        ticks += 1
    assert ticks == 100
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_send_answers_at_once(slow_sandbox: Sandbox, lists: list[str]):
    async with shared_poller(CONN_ID) as poller:
        page = await poller.send(protocol.list_lists(status="processing"))
        assert {each.id for each in page} == set(lists)
        slow_sandbox.fault("status", endpoint="lists", status=500)
        with pytest.raises(errors.ServerError):  # not repeated: the waiter looks again in its own time
            await poller.send(protocol.list_lists())
    assert len(slow_sandbox.requests_to("lists")) == 2


async def test_a_key_rotated_under_many_waiters(slow_sandbox: Sandbox, lists: list[str], connect: Connect):
    """A client that is replaced is closed by its last user, not under the hands of the others."""
    waiting = start(*(waiting_for(lists[number % 3]) for number in range(40)))
    await looks(slow_sandbox, 60)
    for key in ("mf_live_second", "mf_live_third", "mf_live_fourth"):
        connect(slow_sandbox, password=key)
        slow_sandbox.workspaces[0].api_key = key
        await looks(slow_sandbox, 80)
    for each in lists:
        slow_sandbox.complete(each)
    for (event,) in await asyncio.gather(*waiting):
        assert event.payload["status"] == "ended"

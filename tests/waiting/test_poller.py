"""One poller for all triggers of a connection: how few requests it takes, what does not mislead it, how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
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
from machfive_provider.triggers.lead_list import MachFiveListTrigger
from machfive_provider.waiting import poller as module
from machfive_provider.waiting.poller import SharedPoller, shared_poller
from tests import tasks
from tests.waiting.conftest import LoopClock, barrier, bought, in_thread, requests

Connect = Callable[..., None]
CONN_ID = "machfive_default"
NEW_KEY = "mf_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def waiting_for(*list_ids: str, **arguments: Any) -> MachFiveListTrigger:
    """Make a trigger that looks all the time."""
    now = time.time()
    known = {"poll_interval": 0.01, "started_at": now, "deadline": now + 60, "machfive_conn_id": CONN_ID}
    return MachFiveListTrigger(list_ids=list(list_ids), **{**known, **arguments})


def start(*triggers: Any, patience: float = 30.0) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(tasks.events_of(trigger, patience)) for trigger in triggers]


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def ended_well(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for (event,) in await asyncio.gather(*tasks):
        assert events.read(event.payload, "ended")["lists"][0]["processing_status"] == "completed"


async def error_of(task: asyncio.Task[Any]) -> exceptions.MachFiveError:
    (event,) = await task
    with pytest.raises(exceptions.MachFiveError) as caught:
        events.read(json.loads(json.dumps(event.payload)), "ended")
    return caught.value


def pages(sandbox: Sandbox) -> list[tuple[str, int]]:
    return [(each.query["status"], int(each.query["offset"])) for each in sandbox.requests_to("lists")]


def asked(sandbox: Sandbox) -> list[str]:
    """Return the lists that were asked for by themselves."""
    return [request.path[-36:] for request in sandbox.requests_to("list")]


def one_poller() -> SharedPoller:
    (poller,) = module._pollers.in_use().values()
    return poller


# --- few requests


async def test_pages_for_many(busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 250)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 40)
    # One that came first may have been asked for by itself; from then on a round is three pages.
    assert len(asked(busy_sandbox)) <= 2
    assert pages(busy_sandbox)[-3:] != [("processing", 0)] * 3
    assert {offset for _, offset in pages(busy_sandbox)} == {0, 100, 200}
    assert {request.query["limit"] for request in busy_sandbox.requests_to("lists")} == {"100"}
    before = len(asked(busy_sandbox))
    busy_sandbox.complete(lists[70])
    await ended_well([waiting[70]])
    assert lists[70] in asked(busy_sandbox)[before:]
    # Where it ended while pages were read, those behind it moved up, and one may have slipped from page to page.
    assert len(asked(busy_sandbox)) - before <= 3
    assert not any(task.done() for task in waiting if task is not waiting[70])
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)
    assert {request.method for request in busy_sandbox.requests[250:]} == {"GET"}
    assert set(asked(busy_sandbox)[before:]) == set(lists)


@pytest.mark.parametrize("count", [1, 2])
async def test_few_are_asked_for_by_themselves(count: int, busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 10)[:count]
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "list", 20)
    assert pages(busy_sandbox) == []
    assert set(asked(busy_sandbox)) == set(lists)
    await stop(waiting)


async def test_pages_that_hold_others_are_given_up(busy_sandbox: Sandbox):
    """Ours are the oldest: three requests beat four pages, and to find that out costs three pages once."""
    lists = bought(busy_sandbox, 3)
    bought(busy_sandbox, 350)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "list", 60)
    assert len(pages(busy_sandbox)) <= 3
    await stop(waiting)


async def test_pages_are_read_no_further_than_needed(busy_sandbox: Sandbox):
    """Ours are the newest: the three pages of others behind them are of no interest."""
    bought(busy_sandbox, 300)
    lists = bought(busy_sandbox, 5)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 20)
    assert {offset for _, offset in pages(busy_sandbox)} == {0}
    await stop(waiting)


async def test_pending_pages_only_while_one_may_be_pending(busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 5)
    busy_sandbox.set_status(lists[0], "pending")
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 20)
    assert pages(busy_sandbox)[-4:] in (
        [("pending", 0), ("processing", 0)] * 2,
        [("processing", 0), ("pending", 0)] * 2,
    )
    busy_sandbox.set_status(lists[0], "processing")
    await requests(busy_sandbox, "lists", 10)
    assert pages(busy_sandbox)[-6:] == [("processing", 0)] * 6
    assert len(asked(busy_sandbox)) <= 2  # moving on is not vanishing
    await stop(waiting)


async def test_several_waiters_for_one_list(busy_sandbox: Sandbox):
    (list_id,) = bought(busy_sandbox, 1)
    waiting = start(*(waiting_for(list_id, poll_interval=interval) for interval in (0.02, 0.02, 3600, 3600)))
    await requests(busy_sandbox, "list", 10)
    busy_sandbox.complete(list_id)
    await ended_well(waiting)  # the two patient ones too: what is seen is told to all
    assert pages(busy_sandbox) == []


async def test_several_intervals(busy_sandbox: Sandbox):
    """Looks at the one that is in a hurry are not taken at the expense of all others."""
    lists = bought(busy_sandbox, 41)
    patient = start(*(waiting_for(each, poll_interval=3600) for each in lists[1:]))
    (hasty,) = start(waiting_for(lists[0]))
    await requests(busy_sandbox, "list", 30)
    before = len(pages(busy_sandbox))
    await requests(busy_sandbox, "list", 30)
    assert len(pages(busy_sandbox)) == before
    assert asked(busy_sandbox)[-30:] == [lists[0]] * 30
    await stop([hasty, *patient])


async def test_lists_of_several_campaigns(busy_sandbox: Sandbox):
    from machfive_provider.api.models import Lead
    from machfive_provider.hooks.machfive import MachFiveHook

    with MachFiveHook() as hook:
        campaigns = [each.id for each in busy_sandbox.workspaces[0].campaigns if each.built_at is not None]
        assert len(campaigns) > 1
        lists = [hook.generate_batch(each, [Lead("a@example.com")]).list_id for each in campaigns * 3]
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 10)
    assert all("campaign_id" not in request.query for request in busy_sandbox.requests_to("lists"))
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)


async def test_nobody_wakes_for_what_is_no_news(busy_sandbox: Sandbox):
    (list_id,) = bought(busy_sandbox, 1)
    async with shared_poller(CONN_ID) as poller:
        wish = {"interval": 0.01, "deadline": time.time() + 60, "known": "processing"}
        quiet = asyncio.create_task(poller.look(list_id, 0, **wish, quiet_until=time.time() + 60))
        noisy = asyncio.create_task(poller.look(list_id, 0, **wish, quiet_until=0.0))
        assert (await noisy).seen.processing_status == "processing"
        await requests(busy_sandbox, "list", 10)
        assert not quiet.done()
        busy_sandbox.set_status(list_id, "pending")
        assert (await quiet).seen.processing_status == "pending"


async def test_triggers_wake_for_news_only(busy_sandbox: Sandbox):
    (list_id,) = bought(busy_sandbox, 1)
    began = time.time()
    (waiting,) = start(waiting_for(list_id, started_at=began, deadline=began + 7200))
    await requests(busy_sandbox, "list", 5)
    (wish,) = one_poller()._wishes._by_list[list_id]
    await requests(busy_sandbox, "list", 5)
    assert one_poller()._wishes._by_list[list_id] == [wish]  # it still waits for the same
    assert wish.known == "processing"
    ahead = asyncio.get_running_loop().time() - time.time()
    assert wish.quiet_until == pytest.approx(began + 300 + ahead, abs=1)  # then it says that it still waits
    assert wish.deadline == pytest.approx(began + 7200 + ahead, abs=1)
    await stop([waiting])


@pytest.mark.parametrize("whose", ["ours", "the pages'"])
async def test_ids_are_compared_whatever_their_case(whose: str, busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 5)
    if whose == "ours":
        lists = [each.upper() for each in lists]
    else:
        shown = [{"id": each.upper(), "processing_status": "processing"} for each in lists]
        busy_sandbox.fault("wrong_shape", endpoint="lists", times=None, body={"lists": shown})
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 10)
    assert len(asked(busy_sandbox)) <= 2
    await stop(waiting)


async def test_lists_and_capacity_share_a_reader(slow_sandbox: Sandbox, lists: list[str]):
    now = time.time()
    waiting = start(waiting_for(lists[0]), MachFiveCapacityTrigger(CONN_ID, now, now + 60, 0.01, limit=3))
    await requests(slow_sandbox, "list", 5)
    await in_thread(slow_sandbox.wait_for_requests, "lists", 4)
    assert slow_sandbox.open_connections <= 2
    slow_sandbox.complete(lists[0])
    (ended,), (room,) = await asyncio.gather(*waiting)
    assert (ended.payload["status"], room.payload["status"]) == ("ended", "submit")


async def test_a_look_is_not_taken_before_its_time(slow_sandbox: Sandbox, lists: list[str]):
    wish = {"interval": 0.01, "deadline": time.time() + 7200}
    async with shared_poller(CONN_ID) as poller:
        late = asyncio.create_task(poller.look(lists[0], 3600, **wish))
        assert (await poller.look(lists[1], 0, **wish)).seen.id == lists[1]
        assert not late.done()
        await stop([late])
    assert asked(slow_sandbox) == [lists[1]]


async def test_there_is_a_look_at_the_deadline(busy_sandbox: Sandbox, clock: LoopClock):
    """However long the interval, and although until then nothing was news."""
    (list_id,) = bought(busy_sandbox, 1)
    (waiting,) = start(waiting_for(list_id, poll_interval=3600, deadline=time.time() + 100), patience=1e6)
    await requests(busy_sandbox, "list", 1)
    await barrier()
    await clock.forward(99)
    await barrier()
    assert len(asked(busy_sandbox)) == 1
    await clock.forward(2)
    await in_thread(busy_sandbox.wait_for_requests, "list", 2)
    await stop([waiting])


async def test_looks_go_on_in_step_with_their_round(busy_sandbox: Sandbox, clock: LoopClock):
    """What follows a look counts from its round, however long the answer took, so that a round stays together."""
    (list_id,) = bought(busy_sandbox, 1)
    async with shared_poller(CONN_ID) as poller:
        since = asyncio.get_running_loop().time() - 9995
        look = asyncio.create_task(
            poller.look(list_id, 10_000, interval=10_000, deadline=time.time() + 20_000, since=since)
        )
        await clock.forward(4)
        await barrier()
        assert asked(busy_sandbox) == []
        await clock.forward(2)
        await asyncio.wait_for(look, 10)


async def test_who_comes_one_after_the_other_is_looked_at_together(busy_sandbox: Sandbox, clock: LoopClock):
    lists = bought(busy_sandbox, 12)
    waiting = start(waiting_for(lists[0], poll_interval=20), patience=1e6)
    await requests(busy_sandbox, "list", 1)
    for each in lists[1:]:
        waiting += start(waiting_for(each, poll_interval=20), patience=1e6)
        await barrier()
    assert asked(busy_sandbox) == lists[:1]
    assert pages(busy_sandbox) == []
    await clock.forward(1)
    await in_thread(busy_sandbox.wait_for_requests, "lists", 1)
    await stop(waiting)


# --- not misled by pages


@pytest.fixture
def empty_pages(busy_sandbox: Sandbox) -> Callable[[int | None], None]:
    """Have the next pages show nothing although lists are in work, as when they move while being read."""

    def script(times: int | None) -> None:
        busy_sandbox.fault("wrong_shape", endpoint="lists", times=times, body={"lists": []})

    return script


async def test_a_list_that_a_page_missed_goes_on(busy_sandbox: Sandbox, empty_pages: Any, logs: tasks.Logs):
    lists = bought(busy_sandbox, 12)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 6)
    before = len(asked(busy_sandbox))
    empty_pages(1)
    await requests(busy_sandbox, "lists", 6)
    assert set(asked(busy_sandbox)[before:]) == set(lists)
    assert not any(task.done() for task in waiting)
    assert "failed" not in logs.text
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)


async def test_pages_that_show_nothing_are_not_believed_for_long(busy_sandbox: Sandbox, empty_pages: Any):
    """Confirming has a limit, and who reaches it asks list by list: nobody ends falsely, nobody is forgotten."""
    lists = bought(busy_sandbox, 130)
    empty_pages(None)
    waiting = start(*(waiting_for(each, poll_interval=0.2) for each in lists))
    await requests(busy_sandbox, "lists", 1)
    await requests(busy_sandbox, "list", 2 * 130)
    assert len(pages(busy_sandbox)) <= 6
    assert set(asked(busy_sandbox)) == set(lists)
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)


async def test_a_page_does_not_end_a_wait(busy_sandbox: Sandbox):
    """It lacks the figures of a list that has ended, and a page of what is running has no business to show one."""
    lists = bought(busy_sandbox, 5)
    shown = [{"id": each, "processing_status": "completed"} for each in lists]
    busy_sandbox.fault("wrong_shape", endpoint="lists", times=None, body={"lists": shown})
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 4)
    await in_thread(busy_sandbox.wait_until, lambda: set(lists) <= set(asked(busy_sandbox)))
    assert not any(task.done() for task in waiting)
    for each in lists:
        busy_sandbox.complete(each)
    for ((event),) in await asyncio.gather(*waiting):
        assert event.payload["lists"][0]["leads_count"] == 1


async def test_pages_without_end(busy_sandbox: Sandbox):
    """Thousands of others: the pages are given up, and what they did not show has not vanished."""
    lists = bought(busy_sandbox, 60)
    others = [{"id": f"{n:08}-0000-4000-8000-000000000000", "processing_status": "processing"} for n in range(100)]
    busy_sandbox.fault("wrong_shape", endpoint="lists", times=None, body={"lists": others})
    waiting = start(*(waiting_for(each, poll_interval=0.5) for each in lists))
    await in_thread(busy_sandbox.wait_until, lambda: set(lists) <= set(asked(busy_sandbox)))
    spent = len(pages(busy_sandbox))
    assert 3 <= spent <= 70
    await requests(busy_sandbox, "list", 120)
    assert len(pages(busy_sandbox)) == spent
    await stop(waiting)


async def test_all_complete_at_once(busy_sandbox: Sandbox):
    """The limit is for confirmations that were not needed: each ending is noticed in the round that follows it."""
    lists = bought(busy_sandbox, 300)
    waiting = start(*(waiting_for(each, poll_interval=1.0) for each in lists))
    await requests(busy_sandbox, "lists", 4)
    await barrier()
    before = len(asked(busy_sandbox))
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)
    assert set(asked(busy_sandbox)[before:]) == set(lists)


async def test_a_failed_list(busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 5)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 5)
    busy_sandbox.fail(lists[2])
    ((event),) = await waiting[2]
    assert [each["processing_status"] for each in event.payload["lists"]] == ["failed"]
    assert sum(task.done() for task in waiting) == 1
    await stop(waiting)


async def test_statuses_that_no_page_shows(busy_sandbox: Sandbox, logs: tasks.Logs):
    """Lists in a status that the contract does not know are asked for by themselves, the others by pages."""
    bought(busy_sandbox, 200)
    lists = bought(busy_sandbox, 70)
    for each in lists[:60]:
        busy_sandbox.set_status(each, "researching")
    waiting = start(*map(waiting_for, lists))
    await in_thread(busy_sandbox.wait_until, lambda: set(lists[:60]) <= set(asked(busy_sandbox)))
    await requests(busy_sandbox, "lists", 5)
    await requests(busy_sandbox, "list", 60)
    assert pages(busy_sandbox)[-3:] == [("processing", 0)] * 3  # nobody looks for them on the pages of others
    assert logs.count("That status is not one this provider knows") == 60
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)


# --- trouble


async def test_a_500_for_one_list_reaches_its_waiter_only(slow_sandbox: Sandbox, lists: list[str], logs: tasks.Logs):
    slow_sandbox.fault("status", endpoint="list", status=500, contains=lists[0])
    waiting = start(waiting_for(lists[0]), waiting_for(lists[1]))
    await requests(slow_sandbox, "list", 10)
    for list_id in lists[:2]:
        slow_sandbox.complete(list_id)
    await ended_well(waiting)
    assert f"Look 1 in a row at list {lists[0]} failed" in logs.text
    assert f"at list {lists[1]} failed" not in logs.text


@pytest.mark.parametrize("fault", ["status", "html", "reset", "garbage", "truncate"])
async def test_an_outage_heals_without_waking_anyone(fault: str, busy_sandbox: Sandbox, logs: tasks.Logs):
    lists = bought(busy_sandbox, 20)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 4)
    status = {"status": 500} if fault == "status" else {}
    # In this order: pages that fail while single lists do not would come to be distrusted.
    outage = [busy_sandbox.fault(fault, endpoint=each, times=None, **status) for each in ("list", "lists")]
    await requests(busy_sandbox, "lists", 3)
    busy_sandbox.clear_faults()
    await requests(busy_sandbox, "lists", 4)
    assert outage
    assert not any(task.done() for task in waiting)
    for each in lists:
        assert logs.count(f"Look 1 in a row at list {each} failed") == 1
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)
    assert f"List {lists[0]} can be seen again" in logs.text


async def test_an_outage_is_not_met_by_everybody(busy_sandbox: Sandbox):
    """A round that fails costs a page and a few lists, not a request for each list."""
    lists = bought(busy_sandbox, 100)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 4)
    before = len(asked(busy_sandbox))
    busy_sandbox.fault("status", endpoint="lists", times=None, status=500)
    busy_sandbox.fault("status", endpoint="list", times=None, status=500)
    rounds = len(pages(busy_sandbox))
    await requests(busy_sandbox, "lists", 4)
    await stop(waiting)
    rounds = len(pages(busy_sandbox)) - rounds
    assert len(asked(busy_sandbox)) - before <= 3 * rounds


@pytest.fixture(params=["pages", "one by one"])
def way(request: pytest.FixtureRequest, busy_sandbox: Sandbox) -> str:
    """Have the lists looked at by pages, or one by one because the pages are refused."""
    if request.param == "one by one":
        busy_sandbox.fault("status", endpoint="lists", times=None, status=403)
        return "list"
    return "lists"


async def rounds(sandbox: Sandbox, way: str, clock: LoopClock, seconds: int) -> int:
    """Let time pass; return in how many of the seconds a round was taken."""
    busy = 0
    for _ in range(seconds):
        before = len(sandbox.requests_to(way))
        await clock.forward(1)
        await barrier()
        busy += len(sandbox.requests_to(way)) > before
    return busy


async def test_rounds_that_fail_come_ever_more_rarely(way: str, busy_sandbox: Sandbox, clock: LoopClock):
    lists = bought(busy_sandbox, 60)
    waiting = start(*(waiting_for(each, poll_interval=10) for each in lists), patience=1e6)
    await requests(busy_sandbox, "lists", 1)
    await rounds(busy_sandbox, way, clock, 15)
    outage = [busy_sandbox.fault("status", endpoint=each, times=None, status=500) for each in ("lists", "list")]
    # 10, 20, 40 and then 60 s apart at the most, half of that at the least.
    before = len(busy_sandbox.requests_to(way))
    failed = await rounds(busy_sandbox, way, clock, 150)
    assert 3 <= failed <= 10
    # A few find out for all.
    assert len(busy_sandbox.requests_to(way)) - before <= 16 * failed
    for fault in outage:
        fault.times = 0
    await rounds(busy_sandbox, way, clock, 90)  # it heals, and the next failure is the first again
    busy_sandbox.fault("status", endpoint="lists", status=500)
    for _ in range(8):
        busy_sandbox.fault("status", endpoint="list", status=500)
    assert await rounds(busy_sandbox, way, clock, 40) >= 3
    assert not any(task.done() for task in waiting)
    await stop(waiting)


async def test_confirming_has_a_limit(busy_sandbox: Sandbox, empty_pages: Any, clock: LoopClock):
    waiting = start(*(waiting_for(each, poll_interval=100) for each in bought(busy_sandbox, 130)), patience=1e6)
    empty_pages(None)
    await in_thread(busy_sandbox.wait_for_requests, "list", 50)
    seen = 0
    while seen < len(asked(busy_sandbox)):
        seen = len(asked(busy_sandbox))
        await barrier()
    assert seen <= 60
    await stop(waiting)


async def test_who_leaves_in_a_pause_is_not_asked_for(slow_sandbox: Sandbox, lists: list[str], clock: LoopClock):
    slow_sandbox.fault("status", endpoint="list", status=429, headers={"Retry-After": "200"})
    waiting = start(waiting_for(lists[0]), patience=1e6)
    await in_thread(slow_sandbox.wait_until, lambda: 429 in [request.status for request in slow_sandbox.requests])
    await barrier()
    leaves, stays = start(*map(waiting_for, lists[1:]), patience=1e6)
    await clock.forward(1)
    await stop([leaves])
    await clock.forward(200)
    await in_thread(slow_sandbox.wait_until, lambda: lists[2] in asked(slow_sandbox))
    await barrier()
    assert lists[1] not in asked(slow_sandbox)
    await stop([stays, *waiting])


async def test_when_only_the_pages_fail_lists_are_asked_for_by_themselves(busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 20)
    busy_sandbox.fault("status", endpoint="lists", times=None, status=500)
    waiting = start(*map(waiting_for, lists))
    await in_thread(busy_sandbox.wait_until, lambda: set(lists) <= set(asked(busy_sandbox)))
    await requests(busy_sandbox, "list", 40)
    assert len(pages(busy_sandbox)) <= 4
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_pages_that_are_refused_are_done_without(status: int, busy_sandbox: Sandbox, logs: tasks.Logs):
    """A key may lack the scope for the workspace's lists; that says nothing of the lists themselves."""
    lists = bought(busy_sandbox, 20)
    busy_sandbox.fault("status", endpoint="lists", times=None, status=status)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "list", 60)
    assert len(pages(busy_sandbox)) == 1
    assert "failed" not in logs.text
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)


async def test_a_rotated_key_is_taken_up(busy_sandbox: Sandbox, connect: Connect, logs: tasks.Logs):
    lists = bought(busy_sandbox, 10)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 3)
    connect(busy_sandbox, password=NEW_KEY)
    busy_sandbox.workspaces[0].api_key = NEW_KEY
    await requests(busy_sandbox, "lists", 3)
    for each in lists:
        busy_sandbox.complete(each)
    await ended_well(waiting)
    assert sum(request.status == 401 for request in busy_sandbox.requests) == 1
    assert "in a row" not in logs.text
    assert NEW_KEY not in logs.text


async def test_a_revoked_key_ends_every_wait(busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 30)
    waiting = start(*map(waiting_for, lists))
    await requests(busy_sandbox, "lists", 3)
    busy_sandbox.workspaces[0].api_key = NEW_KEY
    for task in waiting:
        assert isinstance(await error_of(task), exceptions.UnauthorizedError)
    assert sum(request.status == 401 for request in busy_sandbox.requests) == 2


async def test_a_connection_removed_meanwhile(slow_sandbox: Sandbox, lists: list[str], monkeypatch: pytest.MonkeyPatch):
    (waiting,) = start(waiting_for(lists[0]))
    await requests(slow_sandbox, "list", 2)
    monkeypatch.delenv("AIRFLOW_CONN_MACHFIVE_DEFAULT")
    slow_sandbox.workspaces[0].api_key = NEW_KEY
    error = await error_of(waiting)
    assert isinstance(error, exceptions.ConfigurationError)
    assert "'machfive_default'" in str(error)


async def test_one_wish_holds_back_every_trigger(slow_sandbox: Sandbox, lists: list[str], clock: LoopClock):
    slow_sandbox.fault("status", endpoint="list", status=429, headers={"Retry-After": "120"})
    now = time.time()
    waiting = start(waiting_for(lists[0]), patience=1e6)
    await in_thread(slow_sandbox.wait_until, lambda: 429 in [request.status for request in slow_sandbox.requests])
    await barrier()
    waiting += start(
        waiting_for(lists[1]), MachFiveCapacityTrigger(CONN_ID, now, now + 60, 0.01, limit=3), patience=1e6
    )
    await clock.forward(117)
    await barrier()
    assert len(asked(slow_sandbox)) == 1
    assert pages(slow_sandbox) == []
    await clock.forward(4)
    await requests(slow_sandbox, "list", 1)
    await requests(slow_sandbox, "lists", 1)
    await stop(waiting)


async def test_a_hanging_look_holds_up_nobody_else(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.fault("hang", endpoint="list", times=2, contains=lists[0])
    hanging = start(waiting_for(lists[0]))
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 1)
    slow_sandbox.complete(lists[1])
    await ended_well(start(waiting_for(lists[1])))
    await stop(hanging)


@pytest.mark.parametrize(("call", "count"), [("list_statuses", 5), ("get_list", 1)])
async def test_what_nobody_expects_reaches_the_waiters(
    call: str, count: int, busy_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    """A mistake of ours must end the wait, which Airflow retries, and not leave it hanging."""
    lists = bought(busy_sandbox, count)

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(f"machfive_provider.api.protocol.{call}", broken)
    waiting = start(*map(waiting_for, lists))
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, ZeroDivisionError)


# --- its place and its end


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


async def test_the_last_waiter_ends_the_poller(slow_sandbox: Sandbox, lists: list[str]):
    waiting = start(waiting_for(lists[0]), waiting_for(lists[1]))
    await requests(slow_sandbox, "list", 4)
    slow_sandbox.complete(lists[0])
    await waiting[0]
    runner = one_poller()._runner
    slow_sandbox.complete(lists[1])
    await waiting[1]
    assert module._pollers.in_use() == {}
    assert runner.done()


async def test_cancelled_triggers_leave_nothing(busy_sandbox: Sandbox):
    waiting = start(*map(waiting_for, bought(busy_sandbox, 60)))
    await requests(busy_sandbox, "lists", 5)
    await stop(waiting)
    assert all(task.cancelled() for task in waiting)


async def test_cancelled_in_the_middle_of_a_look(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.fault("hang", endpoint="list", contains=lists[0])
    hanging, other = start(waiting_for(lists[0]), waiting_for(lists[1]))
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 1)
    await stop([hanging])
    await requests(slow_sandbox, "list", 3)  # the other one goes on
    slow_sandbox.complete(lists[1])
    await other
    await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 0)


async def test_cancelled_in_the_middle_of_a_page(busy_sandbox: Sandbox):
    lists = bought(busy_sandbox, 5)
    busy_sandbox.fault("hang", endpoint="lists")
    waiting = start(*map(waiting_for, lists))
    await in_thread(busy_sandbox.wait_until, lambda: busy_sandbox.hanging == 1)
    await stop(waiting)
    await in_thread(busy_sandbox.wait_until, lambda: busy_sandbox.hanging == 0)


async def test_no_reference_is_kept(busy_sandbox: Sandbox):
    """Neither to triggers that have ended while others wait on, nor to the poller of those that are all gone."""
    first, *others = bought(busy_sandbox, 6)
    trigger = waiting_for(first)
    gone = [weakref.ref(trigger)]
    (waiting,) = start(trigger)
    rest = start(*map(waiting_for, others))
    del trigger
    await requests(busy_sandbox, "lists", 4)
    busy_sandbox.complete(first)
    await ended_well([waiting])
    del waiting
    await requests(busy_sandbox, "lists", 4)
    gc.collect()
    assert gone[0]() is None
    assert first not in one_poller()._wishes._statuses
    gone.append(weakref.ref(one_poller()))
    await stop(rest)
    rest.clear()
    await barrier()  # the loop itself holds what has just ended
    gc.collect()
    assert gone[1]() is None


async def test_a_new_waiter_after_the_end_gets_a_new_poller(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.complete(lists[0])
    for _ in range(2):
        await ended_well(start(waiting_for(lists[0])))


def test_each_loop_has_its_own(slow_sandbox: Sandbox, lists: list[str]):
    """dag.test() makes a loop for each trigger."""
    slow_sandbox.complete(lists[0])
    for _ in range(3):
        (event,) = asyncio.run(tasks.events_of(waiting_for(lists[0])))
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
    await stop([waiting])

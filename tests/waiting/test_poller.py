"""One poller for all triggers of a connection: how few requests it takes, what does not mislead it, how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import json
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers import events
from machfive_provider.triggers.capacity import MachFiveCapacityTrigger
from machfive_provider.triggers.lead_list import MachFiveListTrigger
from machfive_provider.waiting.poller import shared_poller
from tests.tasks import Logs, events_of
from tests.virtual import buy

Connect = Callable[..., None]
CONN_ID = "machfive_default"
NEW_KEY = "mf_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
INTERVAL, GAP = 20.0, 2.0  # seconds; two rounds are a tenth of an interval apart at least
IN_TIME = INTERVAL + GAP


def waiting_for(*list_ids: str, **arguments: Any) -> MachFiveListTrigger:
    now = time.time()
    known = {"poll_interval": INTERVAL, "started_at": now, "deadline": now + 86400, "machfive_conn_id": CONN_ID}
    return MachFiveListTrigger(list_ids=list(list_ids), **{**known, **arguments})


def start(*triggers: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(events_of(trigger, patience=1e9)) for trigger in triggers]


async def stop(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def end_well(sandbox: Sandbox, lists: list[str], tasks: list[asyncio.Task[Any]]) -> None:
    """Complete the lists; check that all who wait for them hear of it in time, from the lists themselves."""
    for each in lists:
        sandbox.complete(each)
    async with asyncio.timeout(IN_TIME):
        for (event,) in await asyncio.gather(*tasks):
            assert events.read(event.payload, "ended")["lists"][0]["leads_count"] == 1


async def error_of(task: asyncio.Task[Any]) -> exceptions.MachFiveError:
    (event,) = await task
    with pytest.raises(exceptions.MachFiveError) as caught:
        events.read(json.loads(json.dumps(event.payload)), "ended")
    return caught.value


def asked(sandbox: Sandbox) -> list[str]:
    """Return the lists that were asked for by id."""
    return [request.path[-36:] for request in sandbox.requests_to("list")]


def pages(sandbox: Sandbox) -> list[tuple[str, int]]:
    return [(each.query["status"], int(each.query["offset"])) for each in sandbox.requests_to("lists")]


def rounds(sandbox: Sandbox) -> list[float]:
    """Return when rounds were taken: a response takes no time here, so that a round is one moment."""
    return sorted({each.at for each in sandbox.requests if each.method == "GET"})


async def count(sandbox: Sandbox, seconds: float) -> int:
    """Let time pass; return how many requests were sent."""
    before = len(sandbox.requests)
    await asyncio.sleep(seconds)
    return len(sandbox.requests) - before


# --- few requests


async def test_hundreds_of_lists_are_a_few_pages(workspace: Sandbox):
    lists = await buy(workspace, 330)
    for each in lists[-20:]:
        workspace.set_status(each, "pending")
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    assert await count(workspace, 10 * INTERVAL) == 10 * (4 + 1)
    assert asked(workspace) == []
    assert {request.query["limit"] for request in workspace.requests_to("lists")} == {"100"}
    workspace.complete(lists[70])
    async with asyncio.timeout(IN_TIME):
        await waiting[70]
    assert sum(task.done() for task in waiting) == 1
    assert lists[70] in asked(workspace)
    await end_well(workspace, lists, waiting)
    assert {request.method for request in workspace.requests[330:]} == {"GET"}


@pytest.mark.parametrize("others", [0, 350])
async def test_one_or_two_are_asked_for_by_id(others: int, workspace: Sandbox):
    lists = await buy(workspace, 2)
    await buy(workspace, others)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    assert await count(workspace, 10 * INTERVAL) == 20
    assert set(asked(workspace)) == set(lists)
    await end_well(workspace, lists, waiting)


async def test_pages_are_read_no_further_than_needed(workspace: Sandbox):
    """Ours are the newest: the pages of others behind them are of no interest."""
    await buy(workspace, 300)
    lists = await buy(workspace, 5)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    assert await count(workspace, 10 * INTERVAL) == 10
    await stop(waiting)


async def test_lists_of_others_cost_no_more_than_two_pages_and_one_for_ten_lists(workspace: Sandbox):
    lists = await buy(workspace, 30)
    await buy(workspace, 600)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    assert await count(workspace, 10 * INTERVAL) <= 10 * (5 + 30)
    await end_well(workspace, lists, waiting)


async def test_a_status_that_the_contract_does_not_know(workspace: Sandbox, logs: Logs):
    """Its page is tried; the sandbox shows nothing on it, and only the lists in that status are asked for by id."""
    lists = await buy(workspace, 70)
    for each in lists[:60]:
        workspace.set_status(each, "researching")
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    before = len(asked(workspace))
    assert await count(workspace, 10 * INTERVAL) <= 10 * (3 + 60)
    assert set(asked(workspace)[before:]) == set(lists[:60])
    assert ("researching", 0) in pages(workspace)
    assert logs.count("That status is not one this provider knows") == 60
    await end_well(workspace, lists, waiting)


async def test_who_comes_one_after_the_other_is_polled_together(workspace: Sandbox):
    lists = await buy(workspace, 40)
    waiting = []
    for each in lists:
        waiting += start(waiting_for(each))
        await asyncio.sleep(0.1)
    assert len(rounds(workspace)) <= 3
    await asyncio.sleep(INTERVAL)
    assert await count(workspace, 10 * INTERVAL) <= 10 * 2
    await stop(waiting)


async def test_several_waiters_for_one_list(workspace: Sandbox):
    """What is seen is told to all, the patient ones too."""
    lists = await buy(workspace)
    waiting = start(*(waiting_for(lists[0], poll_interval=each) for each in (INTERVAL, INTERVAL, 3600.0)))
    await asyncio.sleep(1)
    assert await count(workspace, 10 * INTERVAL) == 10
    await end_well(workspace, lists, waiting)


async def test_one_in_a_hurry_does_not_hurry_the_others(workspace: Sandbox):
    lists = await buy(workspace, 41)
    waiting = start(waiting_for(lists[0]), *(waiting_for(each, poll_interval=3600.0) for each in lists[1:]))
    await asyncio.sleep(1)
    assert await count(workspace, 10 * INTERVAL) == 10
    await stop(waiting)


async def test_a_list_is_not_polled_before_its_time(workspace: Sandbox):
    lists = await buy(workspace, 2)
    waiting = start(waiting_for(lists[0], first_poll_at=time.time() + 600), waiting_for(lists[1]))
    await asyncio.sleep(590)
    assert set(asked(workspace)) == {lists[1]}
    await asyncio.sleep(12)
    assert set(asked(workspace)) == set(lists)
    await stop(waiting)


@pytest.mark.parametrize("whose", ["ours", "the pages'"])
async def test_ids_are_compared_whatever_their_case(whose: str, workspace: Sandbox):
    lists = await buy(workspace, 5)
    if whose == "ours":
        lists = [each.upper() for each in lists]
    else:
        shown = [{"id": each.upper(), "processing_status": "processing"} for each in lists]
        workspace.fault("wrong_shape", endpoint="lists", times=None, body={"lists": shown})
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(5 * INTERVAL)
    assert asked(workspace) == []
    await stop(waiting)


async def test_only_news_wakes_a_waiter(workspace: Sandbox):
    (list_id,) = await buy(workspace)
    async with shared_poller(CONN_ID) as poller:
        known = {"interval": INTERVAL, "deadline": time.time() + 86400, "known": "processing"}
        quiet = asyncio.create_task(poller.next_poll(list_id, 0, **known, quiet_until=time.time() + 300))
        noisy = asyncio.create_task(poller.next_poll(list_id, 0, **known))
        assert (await noisy).processing_status == "processing"
        await asyncio.sleep(290)
        assert not quiet.done()
        await asyncio.sleep(30)
        assert (await quiet).processing_status == "processing"
        moved = asyncio.create_task(poller.next_poll(list_id, INTERVAL, **known, quiet_until=time.time() + 300))
        workspace.set_status(list_id, "pending")
        assert (await moved).processing_status == "pending"


async def test_a_waiter_hears_of_the_poll_at_the_deadline(workspace: Sandbox):
    (list_id,) = await buy(workspace)
    deadline = time.time() + 100
    async with shared_poller(CONN_ID) as poller:
        times = {"interval": INTERVAL, "deadline": deadline, "quiet_until": deadline + 300}
        polled = await poller.next_poll(list_id, 0, known="processing", **times)
    assert polled.processing_status == "processing"
    assert time.time() == pytest.approx(deadline, abs=0.01)


@pytest.mark.parametrize("interval", [1.0, 20.0, 3600.0, 1e6])
async def test_the_last_poll_is_at_the_deadline(interval: float, workspace: Sandbox):
    lists = await buy(workspace, 5)
    began = time.time()
    waiting = start(*(waiting_for(each, poll_interval=interval, deadline=began + 100.5) for each in lists[1:]))
    waiting += start(waiting_for(lists[0], poll_interval=interval, deadline=began - 5))  # one poll at least
    assert isinstance(await error_of(waiting[-1]), exceptions.WaitTimeoutError)
    assert time.time() <= began + 2
    for task in waiting:
        assert isinstance(await error_of(task), exceptions.WaitTimeoutError)
    assert time.time() == pytest.approx(began + 100.5, abs=0.01)
    assert rounds(workspace)[-1] == pytest.approx(began + 100.5, abs=0.01)


# --- not misled by pages


async def test_a_page_does_not_end_a_wait(workspace: Sandbox):
    """It lacks the figures of a list that has ended."""
    lists = await buy(workspace, 5)
    shown = [{"id": each, "processing_status": "completed"} for each in lists]
    workspace.fault("wrong_shape", endpoint="lists", times=None, body={"lists": shown})
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(5 * INTERVAL)
    assert not any(task.done() for task in waiting)
    await end_well(workspace, lists, waiting)


async def test_a_failed_list(workspace: Sandbox):
    lists = await buy(workspace, 5)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    workspace.fail(lists[2])
    async with asyncio.timeout(IN_TIME):
        (event,) = await waiting[2]
    assert [each["processing_status"] for each in event.payload["lists"]] == ["failed"]
    await asyncio.sleep(5 * INTERVAL)
    assert sum(task.done() for task in waiting) == 1
    await stop(waiting)


@st.composite
def page_faults(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kind = draw(
        st.sampled_from(["status", "html", "garbage", "reset", "truncate", "nothing", "others", "slow_headers"])
    )
    others = [{"id": f"{n:08}-0000-4000-8000-000000000000", "processing_status": "processing"} for n in range(100)]
    arguments: dict[str, Any] = {
        "status": {"status": draw(st.sampled_from([400, 403, 404, 500, 503]))},
        "nothing": {"body": {"lists": []}},
        "others": {"body": {"lists": others}},  # pages without end that hold none of ours
        "slow_headers": {"seconds": draw(st.floats(0.1, 1))},
    }.get(kind, {})
    kind = "wrong_shape" if kind in ("nothing", "others") else kind
    return kind, {**arguments, "times": draw(st.none() | st.integers(1, 20)), "after": draw(st.integers(0, 20))}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 60), st.floats(0, 200)), min_size=1, max_size=30),
    st.sampled_from([0, 30, 150]),
    st.lists(page_faults(), max_size=4),
    st.integers(),
)
async def test_every_end_is_noticed_whatever_pages_do(
    workspace: Sandbox, lives: list[tuple[float, float]], others: int, faults: list[Any], seed: int
):
    """Within an interval and the gap between two rounds; and no round takes more requests than the rule allows."""
    # Not st.randoms(): Hypothesis may end an example within it, and the triggers would run on.
    rng = random.Random(seed)
    workspace.reset()
    lists = await buy(workspace, 1 + len(lives) + others)
    rng.shuffle(lists)
    for kind, arguments in faults:
        workspace.fault(kind, endpoint="lists", **arguments)
    stays = start(waiting_for(lists.pop()))  # one poller for all of it

    async def live(list_id: str, joins: float, ends: float) -> None:
        await asyncio.sleep(joins)
        (task,) = start(waiting_for(list_id))
        await asyncio.sleep(ends)
        assert not task.done()
        rng.choice([workspace.complete, workspace.fail])(list_id)
        async with asyncio.timeout(IN_TIME + 3):  # three pages may be slow by a second each
            await task

    await asyncio.gather(*(live(list_id, *life) for list_id, life in zip(lists, lives, strict=False)))
    await stop(stays)
    if any(kind == "slow_headers" for kind, _ in faults):
        return
    waiters, sent = 1 + len(lives), [each for each in workspace.requests if each.method == "GET"]
    for one, other in itertools.pairwise(rounds(workspace)):
        assert other - one >= GAP - 1e-6
    by_page = Counter(each.at for each in sent if each.endpoint == "lists")
    assert max(by_page.values(), default=0) <= 2 + waiters // 10
    by_id = Counter(each.at for each in sent if each.endpoint == "list")
    assert max(by_id.values()) <= waiters


# --- trouble


async def test_a_list_that_fails_backs_off_alone(workspace: Sandbox, logs: Logs):
    lists = await buy(workspace, 2)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    workspace.fault("status", endpoint="list", status=500, contains=lists[0], times=None)
    assert await count(workspace, 550) == 27 + 10  # after 20, 20, 40, and then every 60 s
    assert f"of list {lists[1]} failed" not in logs.text
    workspace.clear_faults()
    await asyncio.sleep(61)
    assert f"List {lists[0]} can be seen again" in logs.text
    await end_well(workspace, lists, waiting)


@pytest.mark.parametrize("fault", ["status", "html", "reset", "garbage", "truncate"])
@pytest.mark.parametrize("number", [2, 20])
async def test_an_outage_heals_without_waking_anyone(fault: str, number: int, workspace: Sandbox, logs: Logs):
    lists = await buy(workspace, number)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    workspace.fault(fault, times=None, **({"status": 500} if fault == "status" else {}))
    await asyncio.sleep(300)
    workspace.clear_faults()
    await asyncio.sleep(61)
    assert not any(task.done() for task in waiting)
    for each in lists:
        assert logs.count(f"1 in a row of list {each} failed") == 1
        assert logs.count(f"List {each} can be seen again") == 1
    await end_well(workspace, lists, waiting)


async def test_an_outage_is_not_met_by_everybody(workspace: Sandbox):
    """A round that fails costs a few requests, not one for each list, and comes ever more rarely."""
    lists = await buy(workspace, 100)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    workspace.fault("status", times=None, status=500)
    assert await count(workspace, 320) <= 7 * (2 + 8)  # after 20, 20, 40, and then every 60 s
    workspace.clear_faults()
    await asyncio.sleep(60)
    await end_well(workspace, lists, waiting)


async def test_a_poll_at_the_deadline_does_not_back_off(workspace: Sandbox):
    lists = await buy(workspace, 30)
    workspace.fault("status", times=None, status=500)
    began = time.time()
    waiting = start(*map(waiting_for, lists), waiting_for(lists[0], deadline=began + 333))
    await asyncio.sleep(330)
    workspace.complete(lists[0])
    workspace.clear_faults()
    await waiting[-1]
    assert time.time() == pytest.approx(began + 333, abs=0.01)
    await stop(waiting)


async def test_lists_that_always_fail_do_not_starve_the_others(workspace: Sandbox):
    lists = await buy(workspace, 20)
    workspace.fault("status", endpoint="lists", times=None, status=403)
    for each in lists[:8]:
        workspace.fault("status", endpoint="list", contains=each, times=None, status=500)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(300)
    await end_well(workspace, lists[8:], waiting[8:])
    await stop(waiting)


async def test_one_that_hangs_holds_up_nobody(workspace: Sandbox):
    lists = await buy(workspace, 12)
    workspace.fault("status", endpoint="lists", times=None, status=403)
    workspace.fault("hang", endpoint="list", contains=lists[0], times=None)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    await end_well(workspace, lists[1:], waiting[1:])
    assert workspace.hanging == 1
    await stop(waiting)


async def test_a_rotated_key_is_taken_up(workspace: Sandbox, connect: Connect, logs: Logs):
    lists = await buy(workspace, 10)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(1)
    connect(host="http://127.0.0.1:1", password=NEW_KEY)
    workspace.workspaces[0].api_key = NEW_KEY
    await asyncio.sleep(3 * INTERVAL)
    await end_well(workspace, lists, waiting)
    assert sum(request.status == 401 for request in workspace.requests) == 1
    assert "in a row" not in logs.text
    assert NEW_KEY not in logs.text


@pytest.mark.parametrize("number", [2, 30])
async def test_a_revoked_key_ends_every_wait(number: int, workspace: Sandbox):
    waiting = start(*map(waiting_for, await buy(workspace, number)))
    await asyncio.sleep(1)
    workspace.workspaces[0].api_key = NEW_KEY
    for task in waiting:
        assert isinstance(await error_of(task), exceptions.UnauthorizedError)
    assert sum(request.status == 401 for request in workspace.requests) <= 4


async def test_a_connection_removed_meanwhile(workspace: Sandbox, monkeypatch: pytest.MonkeyPatch):
    (waiting,) = start(waiting_for(*(await buy(workspace))))
    await asyncio.sleep(1)
    monkeypatch.delenv("AIRFLOW_CONN_MACHFIVE_DEFAULT")
    workspace.workspaces[0].api_key = NEW_KEY
    error = await error_of(waiting)
    assert isinstance(error, exceptions.ConfigurationError)
    assert "'machfive_default'" in str(error)


async def test_a_pause_that_the_api_asks_for_is_kept_by_all(workspace: Sandbox):
    lists = await buy(workspace, 3)
    workspace.fault("status", endpoint="list", status=429, headers={"Retry-After": "120"})
    waiting = start(waiting_for(lists[0]))
    await asyncio.sleep(1)
    now = time.time()
    room = MachFiveCapacityTrigger(CONN_ID, now, now + 86400, INTERVAL, limit=3)
    leaves, *others = start(waiting_for(lists[1]), waiting_for(lists[2]), room)
    assert await count(workspace, 60) == 0
    await stop([leaves])
    assert await count(workspace, 58) == 0
    assert await count(workspace, 4) >= 3
    assert lists[1] not in asked(workspace)
    await stop([*waiting, *others])


@pytest.mark.parametrize(("call", "number"), [("list_statuses", 5), ("get_list", 1), ("get_list", 2)])
async def test_what_nobody_expects_reaches_the_waiters(
    call: str, number: int, workspace: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    """A mistake of ours must end the wait, which Airflow retries, and not leave it hanging."""
    lists = await buy(workspace, number)

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(f"machfive_provider.api.protocol.{call}", broken)
    for outcome in await asyncio.gather(*start(*map(waiting_for, lists)), return_exceptions=True):
        assert isinstance(outcome, ZeroDivisionError)


# --- its end; the fixture checks after each test that no task and no client is left


@pytest.mark.parametrize("fault", [None, "hang"])
@pytest.mark.parametrize("number", [1, 60])
async def test_cancelled_triggers_leave_nothing(number: int, fault: str | None, workspace: Sandbox):
    lists = await buy(workspace, number)
    if fault:
        workspace.fault(fault, times=None)
    waiting = start(*map(waiting_for, lists))
    await asyncio.sleep(10)
    await stop(waiting)
    assert all(task.cancelled() for task in waiting)
    assert await count(workspace, 600) == 0


async def test_the_poller_has_a_context_of_its_own(workspace: Sandbox):
    """What is logged in a round belongs to the triggerer's log, not to the task that came first."""
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker")
    (list_id,) = await buy(workspace)
    seen: list[str | None] = []
    serve = workspace.app._app
    workspace.app._app = lambda *arguments: (seen.append(marker.get(None)), serve(*arguments))[1]
    marker.set("the first trigger's")
    waiting = start(waiting_for(list_id))
    await asyncio.sleep(5 * INTERVAL)
    assert set(seen) == {None}
    await stop(waiting)


async def test_no_reference_is_kept(workspace: Sandbox):
    """Neither to triggers that have ended while others wait on, nor to the poller of those that are all gone."""
    lists = await buy(workspace, 6)
    trigger = waiting_for(lists[0])
    async with shared_poller(CONN_ID) as poller:
        gone = [weakref.ref(trigger), weakref.ref(poller)]
        ends, *others = start(trigger, *map(waiting_for, lists[1:]))
        del trigger
        await asyncio.sleep(1)
        await end_well(workspace, lists[:1], [ends])
        del ends
        await asyncio.sleep(INTERVAL)
        gc.collect()
        assert gone[0]() is None
    await stop(others)
    del poller, others
    await asyncio.sleep(1)
    gc.collect()
    assert gone[1]() is None


def test_each_loop_has_its_own(slow_sandbox: Sandbox, connect: Connect):
    """dag.test() makes a loop for each trigger. On sockets."""
    from machfive_provider.api.models import Lead
    from machfive_provider.hooks.machfive import MachFiveHook

    connect(slow_sandbox)
    with MachFiveHook() as hook:
        list_id = hook.generate_batch(slow_sandbox.campaign_id, [Lead("a@example.com")]).list_id
    slow_sandbox.complete(list_id)
    for _ in range(3):
        (event,) = asyncio.run(events_of(waiting_for(list_id)))
        assert event.payload["status"] == "ended"

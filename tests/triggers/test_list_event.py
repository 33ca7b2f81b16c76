"""The trigger that reports lists that end: what it reports, what it reads, and what a restart loses."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from airflow.triggers.base import BaseEventTrigger

from machfive_provider import exceptions
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers.list_event import MachFiveListEventTrigger
from tests.tasks import UNKNOWN_ID, Logs, assert_plain
from tests.virtual import buy

INTERVAL = 60.0
TAG = "[af1:0123456789-0123456789ab:0..012345]"
GROUP = 10.0  # seconds at least between two groups of events


class AssetStore:
    """Takes the place of Airflow's asset state store: what a trigger keeps there is there after a restart."""

    def __init__(self, **kept: Any) -> None:
        self.kept = {name: json.dumps(value) for name, value in kept.items()}
        self.error: Exception | None = None
        self.writes = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        if self.error:
            raise self.error
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key: str, value: Any) -> None:
        if self.error:
            raise self.error
        self.writes += 1
        self.kept[key] = json.dumps(value)


class Told(list[dict[str, Any]]):
    """The payloads of the events so far, and when they came."""

    def __init__(self) -> None:
        self.at: list[float] = []

    @property
    def ids(self) -> list[str]:
        """Each list once: the last of a group may be told again."""
        return list(dict.fromkeys(each["list_id"] for each in self))


class Airflow:
    """What becomes of events: they are written soon, and runs are created for them as Airflow 3 does.

    The first event queues a run; until that is created, further events queue none. It holds the events up to the moment
    in which it was queued. The others wait for the next run.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._waiting: list[str] = []
        self._queued_until = self._last = 0.0
        self.in_runs: set[str] = set()

    def take(self, told: Told, killed_at: float) -> None:
        """Take the events of a triggerer that was killed: those not written by then are lost."""
        for payload, at in zip(told, told.at, strict=True):
            self._last = max(self._last, at + self._rng.uniform(0, 2))
            if self._last > killed_at:
                return
            self._waiting.append(payload["list_id"])
            if self._last > self._queued_until:
                self._queued_until = self._last + self._rng.uniform(0, 7)
                self.in_runs.update(self._waiting)
                self._waiting.clear()


@asynccontextmanager
async def watching(store: AssetStore | None = None, **arguments: Any) -> AsyncIterator[Told]:
    """Run a trigger as the triggerer gets it, through its serialised form; its first poll is over."""
    path, kwargs = MachFiveListEventTrigger(**{"poll_interval": INTERVAL, **arguments}).serialize()
    trigger = MachFiveListEventTrigger(**json.loads(json.dumps(kwargs)))
    assert trigger.serialize() == (path, kwargs)
    trigger.asset_state_store = store
    told = Told()

    async def run() -> None:
        async for event in trigger.run():
            told.append(json.loads(json.dumps(event.payload)))
            told.at.append(time.time())

    task = asyncio.create_task(run())
    await asyncio.sleep(0.5)
    try:
        yield told
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def polls(number: float = 1) -> None:
    """Wait until so many polls are over."""
    await asyncio.sleep(number * INTERVAL)


async def buy_in(sandbox: Sandbox, campaign_id: str, name: str) -> str:
    path = f"/api/v1/campaigns/{campaign_id}/generate-batch"
    body = {"leads": [{"email": "a@example.com"}], "options": {"list_name": name}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(sandbox.app), base_url="http://127.0.0.1") as client:
        response = await client.post(path, json=body, headers={"Authorization": f"Bearer {sandbox.api_key}"})
    return str(response.raise_for_status().json()["list_id"])


# --- what is reported


async def test_a_list_that_ends_is_reported_once(workspace: Sandbox):
    completed, failed, running = await buy(workspace, 3)
    workspace.rename(completed, "Spring fair")
    async with watching() as told:
        await polls(10)
        assert told == []
        workspace.complete(completed)
        await polls(5)
        workspace.fail(failed)
        await polls(5)
    campaign = workspace.workspaces[0].campaigns[0]
    bought = {each.id: each for each in workspace.lists}
    common = {"campaign_id": campaign.id, "campaign_name": campaign.name, "conn_id": "machfive_default"}
    moments = ("created_at", "completed_at", "failed_at")
    figures = {"leads_count": 1, "emails_created": bought[completed].emails_created}
    assert [{name: value for name, value in each.items() if name not in moments} for each in told] == [
        {"list_id": completed, "list_name": "Spring fair", "status": "completed", **figures, **common},
        {"list_id": failed, "list_name": None, "status": "failed", **dict.fromkeys(figures), **common},
    ]
    assert [[each[name] is not None for name in moments] for each in told] == [[True, True, False], [True, False, True]]
    assert all(at - bought[each["list_id"]].forced[1] <= INTERVAL for each, at in zip(told, told.at, strict=True))
    assert {request.method for request in workspace.requests[3:]} == {"GET"}
    assert running not in told.ids


async def test_the_last_of_several_is_told_again(workspace: Sandbox):
    """Airflow's run for the first of them holds none of the others, which wait for an event that queues the next."""
    lists = await buy(workspace, 6)
    async with watching() as told:
        for each in lists[:3]:
            workspace.complete(each)
            await asyncio.sleep(0.1)
        await polls(5)
        assert told.ids == lists[:3]
        assert (len(told), told[3], told.at[3] - told.at[2]) == (4, told[2], GROUP)
        for each in lists[3:5]:
            workspace.complete(each)
            await asyncio.sleep(0.1)
        await polls()
        await asyncio.sleep(GROUP / 2)
        workspace.complete(lists[5])
        await polls(5)
        assert [each["list_id"] for each in told][4:] == lists[3:]  # the next end serves as well


async def test_it_begins_with_now(workspace: Sandbox):
    (before,) = await buy(workspace)
    workspace.complete(before)
    await asyncio.sleep(3600)
    (running,) = await buy(workspace)
    async with watching() as told:
        workspace.complete(running)
        await polls(3)
        assert told.ids == [running]


async def test_or_with_what_was_created_before(workspace: Sandbox):
    (old,) = await buy(workspace)
    workspace.complete(old)
    await asyncio.sleep(3600)
    new = await buy(workspace, 120)
    for each in new:
        workspace.complete(each)
    await asyncio.sleep(3600)
    await buy(workspace)
    async with watching() as told_nothing:
        # So that one poll serves both, and shows the first one lists from before its time.
        await asyncio.sleep(INTERVAL - asyncio.get_running_loop().time() % INTERVAL - 0.3)
        async with watching(look_back=5400) as told:
            await polls(30)
            assert sorted(told.ids) == sorted(new)
            assert told_nothing == []


async def test_lists_that_begin_and_end_between_two_polls(workspace: Sandbox):
    """The second shows up ten minutes after it was made, as one of a long ``generate`` may."""
    async with watching() as told:
        (sudden,) = await buy(workspace)
        workspace.complete(sudden)
        await polls(2)
        assert told.ids == [sudden]
        workspace.fault("visible_late", seconds=600)
        (late,) = await buy(workspace)
        workspace.complete(late)
        await asyncio.sleep(580)
        newer = await buy(workspace, 3)
        await polls(2)
        assert told.ids == [sudden, late]
        for each in newer:
            workspace.complete(each)
        await polls(30)
        assert sorted(told.ids) == sorted([sudden, late, *newer])


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "kept"])
async def test_more_lists_than_a_page_shows(kept: bool, workspace: Sandbox):
    async with watching(AssetStore() if kept else None) as told:
        lists = await buy(workspace, 130)
        await polls(3)
        lists += (sudden := await buy(workspace, 130))
        for each in lists[:100] + sudden:
            workspace.complete(each)
        await polls(2)
        assert sorted(told.ids) == sorted(lists[:100] + sudden)
        for each in lists[100:130]:
            workspace.fail(each)
        await polls(2)
        assert sorted(told.ids) == sorted(lists)


@pytest.mark.parametrize(
    "name", [f"Leads {TAG}", f"Leads {TAG} copy", f"Leads {TAG[:15]}"], ids=["whole", "any", "cut"]
)
async def test_what_airflow_has_bought_is_left_out(name: str, workspace: Sandbox):
    (ours, foreign) = await buy(workspace, 2)
    workspace.rename(ours, name)
    async with watching() as told, watching(include_airflow=True) as all_told:
        for each in (ours, foreign):
            workspace.complete(each)
        await polls(2)
        assert told.ids == [foreign]
        assert sorted(all_told.ids) == sorted([ours, foreign])


async def test_filters(workspace: Sandbox):
    first, second, *_ = workspace.workspaces[0].campaigns
    here = await buy_in(workspace, first.id, "Spring Fair")
    there = await buy_in(workspace, second.id, "Autumn")
    watched = {
        "campaign_id": {"campaign_id": second.id.upper()},
        "campaign_name": {"campaign_name": f" {second.name.upper()}"},
        "name": {"name": "fair"},
        "statuses": {"statuses": ["failed"]},
        "status": {"statuses": "completed"},
    }
    async with AsyncExitStack() as stack:
        told = {name: await stack.enter_async_context(watching(**each)) for name, each in watched.items()}
        new = await buy_in(workspace, second.id, "working title")
        await polls()
        workspace.rename(new, "Winter affairs")
        workspace.complete(here)
        workspace.complete(new)
        workspace.fail(there)
        await polls(2)
        assert {name: sorted(each.ids) for name, each in told.items()} == {
            "campaign_id": sorted([there, new]),
            "campaign_name": sorted([there, new]),
            "name": sorted([here, new]),
            "statuses": [there],
            "status": sorted([here, new]),
        }


# --- what is read


async def test_all_watchers_of_a_connection_share_a_poll(workspace: Sandbox):
    lists = await buy(workspace, 5)

    async def reads(number: int) -> int:
        async with AsyncExitStack() as stack:
            told = [await stack.enter_async_context(watching(watcher_id=str(each))) for each in range(number)]
            begun = len(workspace.requests)
            await polls(10)
            workspace.complete(lists.pop())
            await polls(10)
            assert [len(each) for each in told] == [1] * number
            return len(workspace.requests) - begun

    alone = await reads(1)
    assert alone == 20 * 3 + 1  # the lists in work in two statuses, the newest, and the one that has ended
    assert await reads(30) == alone


async def test_an_interval_of_its_own(workspace: Sandbox):
    (list_id,) = await buy(workspace)
    async with watching() as slow, watching(poll_interval=10) as fast:
        workspace.complete(list_id)
        await asyncio.sleep(11)
        assert (len(slow), len(fast)) == (0, 1)
        await polls()
        assert slow == fast


async def test_a_refused_key_is_not_tried_again_and_again(workspace: Sandbox, connect: Callable[..., None], logs: Logs):
    lists = await buy(workspace, 2)
    async with watching() as told:
        connect(host="http://127.0.0.1:1", password="mf_live_" + "0" * 32)
        workspace.workspaces[0].api_key = "mf_live_" + "1" * 32
        begun = len(workspace.requests)
        workspace.complete(lists[0])
        await asyncio.sleep(7200)
        assert len(workspace.requests) - begun < 2 * 7200 / 300 + 10
        assert [line for line in logs.warnings if "failure 1 in a row" in line and "Put a valid API key" in line]
        assert len(logs.warnings) < 7
        connect(host="http://127.0.0.1:1", password=workspace.api_key)
        workspace.complete(lists[1])
        await asyncio.sleep(300 + INTERVAL)
        assert sorted(told.ids) == sorted(lists)
        assert logs.count("can be read again") == 1
        workspace.complete(new := (await buy(workspace))[0])
        await polls(1.1)
        assert new in told.ids


@pytest.mark.parametrize("endpoint", ["lists", "list", "campaigns"])
async def test_trouble_delays_and_loses_nothing(endpoint: str, workspace: Sandbox, logs: Logs):
    workspace.fault("status", endpoint=endpoint, status=500, times=3)
    async with watching(look_back=3600) as told:
        lists = await buy(workspace, 3)
        for each in lists:
            workspace.complete(each)
        await polls(10)
        assert sorted(told.ids) == sorted(lists)
    assert logs.count("could not be read (failure 1 in a row)") == 1


async def test_one_list_that_cannot_be_read_holds_up_no_other(workspace: Sandbox, logs: Logs):
    slow, gone, well = await buy(workspace, 3)
    await asyncio.sleep(3600)
    await buy(workspace)
    async with watching() as told:
        workspace.fault("status", endpoint="list", status=500, times=2, contains=slow)
        workspace.fault("status", endpoint="list", status=404, times=None, contains=gone)
        for each in (slow, gone, well):
            workspace.complete(each)
        await polls()
        assert told.ids == [well]
        await polls(5)
        assert told.ids == [well, slow]
        asked = len(workspace.requests_to("list"))
        await polls(30)
        assert len(workspace.requests_to("list")) == asked


@pytest.mark.parametrize("oddity", ["null_status", "number_status", "no_status", "null_name", "null_id", "no_object"])
async def test_odd_entries_in_pages(oddity: str, workspace: Sandbox):
    workspace.fault("odd_entry", oddity=oddity)
    lists = await buy(workspace, 2)
    async with watching() as told:
        for each in lists:
            workspace.complete(each)
        await polls(3)
        # What a page cannot show is in work for us; without an id it is not there at all.
        expected = lists[1:] if oddity in ("null_id", "no_object") else lists
        assert sorted(told.ids) == sorted(expected)


# --- restarts


async def test_what_ends_while_the_triggerer_is_down(workspace: Sandbox):
    running = await buy(workspace, 2)
    store = AssetStore()
    async with watching(store) as before:
        workspace.complete(running[0])
        await polls(3)
        assert before.ids == [running[0]]
    workspace.complete(running[1])
    (sudden,) = await buy(workspace)
    workspace.fail(sudden)
    await asyncio.sleep(7200)
    async with watching(store, poll_interval=30) as told:
        assert sorted(told.ids) == sorted([running[1], sudden])
    async with watching(store, statuses=["failed"]) as told:
        await polls(3)
        assert told == []  # another filter is another watcher


async def test_without_a_store_it_begins_with_now_again(workspace: Sandbox):
    running, other = await buy(workspace, 2)
    async with watching():
        pass
    workspace.complete(running)
    async with watching() as told, watching(look_back=600) as told_from_before:
        workspace.complete(other)
        await polls(2)
        assert told.ids == [other]
        assert sorted(told_from_before.ids) == sorted([running, other])


@pytest.mark.parametrize("seed", range(25))
async def test_every_end_stands_in_a_run_whenever_the_triggerer_is_killed(seed: int, workspace: Sandbox):
    rng = random.Random(seed)
    interval, store, airflow = rng.choice([1.0, 3.0, 7.0, 60.0]), AssetStore(), Airflow(rng)
    lists = await buy(workspace, 5)
    done: list[str] = []
    for _ in range(rng.randint(3, 8)):
        async with watching(store, poll_interval=interval) as told:
            for _ in range(rng.randint(0, 12)):
                await asyncio.sleep(rng.uniform(0, rng.choice([0.1, 3.0, 15.0, interval])))
                lists += await buy(workspace, rng.randint(0, 2))
                if lists and rng.random() < 0.6:
                    done.append(lists.pop(rng.randrange(len(lists))))
                    rng.choice([workspace.complete, workspace.fail])(done[-1])
            await asyncio.sleep(rng.uniform(0, rng.choice([5.0, 40.0])))
        airflow.take(told, time.time())
        await asyncio.sleep(rng.choice([0.0, 30.0, 2000.0]))
    async with watching(store, poll_interval=interval) as told:
        await asyncio.sleep(2 * interval + 2 * GROUP)
    airflow.take(told, time.time())
    assert set(done) <= airflow.in_runs


async def test_an_idle_watcher_writes_nothing(workspace: Sandbox):
    lists = await buy(workspace, 3)
    store = AssetStore()
    async with watching(store):
        assert store.writes == 1  # at once: what ends from here on is not lost any more
        await polls(50)
        workspace.complete(lists[0])
        await polls(50)
        assert store.writes == 2


@pytest.mark.parametrize(
    "kept",
    [
        "text",
        {},
        {"since": "no time", "running": [], "told": []},
        {"since": 5},
        {"since": "2026-11-01T10:00:00Z", "running": [None, "a"], "told": []},
    ],
    ids=repr,
)
async def test_a_cursor_that_is_none(kept: Any, workspace: Sandbox, logs: Logs):
    (list_id,) = await buy(workspace)
    async with watching(AssetStore(**{MachFiveListEventTrigger().cursor_key(): kept})) as told:
        workspace.complete(list_id)
        await polls(2)
        assert told.ids == [list_id]
    assert logs.count("it begins with now") == 1


async def test_a_store_that_does_not_answer_is_waited_for(workspace: Sandbox, logs: Logs):
    """It must not begin with now because Airflow's database was busy."""
    store = AssetStore()
    running, other = await buy(workspace, 2)
    async with watching(store):
        pass
    workspace.complete(running)
    store.error = RuntimeError("database is locked")
    async with watching(store) as told:
        await polls(2)
        assert told == []
        store.error = None
        await polls(5)
        assert told.ids == [running]
        store.error = RuntimeError("database is locked")
        workspace.complete(other)
        await polls(2)
        assert told.ids == [running, other]
        assert logs.count("could not be kept; the next poll tries again") >= 1


async def test_two_assets_with_one_watcher_are_told_what_to_do(workspace: Sandbox, logs: Logs):
    store = AssetStore()
    store.error = ValueError("Task has 2 concrete inlets and outlets")
    (list_id,) = await buy(workspace)
    async with watching(store) as told:
        workspace.complete(list_id)
        await polls(2)
        assert told.ids == [list_id]
    assert logs.count("watcher_id of its own") == 1


# --- arguments


def test_arguments_are_plain_and_tell_watchers_apart():
    trigger = MachFiveListEventTrigger(statuses=("completed",), poll_interval=5, campaign_name="Spring")
    path, kwargs = trigger.serialize()
    assert path == "machfive_provider.triggers.list_event.MachFiveListEventTrigger"
    for value in kwargs.values():
        assert_plain(value)
    other = MachFiveListEventTrigger(**{**kwargs, "watcher_id": "second"})
    assert BaseEventTrigger.hash(*trigger.serialize()) != BaseEventTrigger.hash(*other.serialize())
    assert trigger.cursor_key() != other.cursor_key()


@pytest.mark.parametrize(
    "wrong",
    [
        {"campaign_id": UNKNOWN_ID, "campaign_name": "Spring"},
        {"campaign_id": "7"},
        {"statuses": []},
        {"statuses": ["done"]},
        {"poll_interval": 0},
        {"look_back": -1},
    ],
    ids=repr,
)
def test_wrong_arguments_are_refused_when_the_dag_is_parsed(wrong: dict[str, Any]):
    with pytest.raises(exceptions.ConfigurationError, match=next(iter(wrong))):
        MachFiveListEventTrigger(**wrong)

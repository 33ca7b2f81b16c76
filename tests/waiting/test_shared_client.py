"""One HTTP client for all that waits on a connection: what it shares, how it holds back, heals and ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.api import protocol
from machfive_provider.api.models import LeadList
from machfive_provider.sandbox import Sandbox
from machfive_provider.waiting.shared_client import NotWantedError, SharedClient, shared_client
from tests.tasks import Logs
from tests.waiting.conftest import LoopClock, barrier, in_thread, requests

Connect = Callable[..., None]
CONN_ID = "machfive_default"
NEW_KEY = "mf_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def read(reader: SharedClient, list_id: str) -> asyncio.Task[LeadList]:
    return asyncio.create_task(reader.send(protocol.get_list(list_id)))


def answers(sandbox: Sandbox) -> list[int | None]:
    return [request.status for request in sandbox.requests_to("list")]


async def test_it_answers_at_once_and_repeats_nothing(slow_sandbox: Sandbox, lists: list[str]):
    async with shared_client(CONN_ID) as reader:
        page = await reader.send(protocol.list_lists(status="processing"))
        assert {each.id for each in page} == set(lists)
        slow_sandbox.fault("status", endpoint="lists", status=500)
        with pytest.raises(exceptions.ServerError):  # who waits looks again in its own time
            await reader.send(protocol.list_lists())
    assert len(slow_sandbox.requests_to("lists")) == 2


async def test_one_reader_a_connection(slow_sandbox: Sandbox, lists: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", f'{{"conn_type": "machfive", "host": "{slow_sandbox.base_url}", '
                       f'"password": "{slow_sandbox.api_key}"}}')  # fmt: skip
    async with shared_client(CONN_ID) as one, shared_client("other") as other, shared_client(CONN_ID) as again:
        assert one is again
        assert one is not other


async def test_few_connections_for_many_reads_and_one_for_one_after_the_other(slow_sandbox: Sandbox, lists: list[str]):
    async with shared_client(CONN_ID) as reader:
        for _ in range(5):
            await read(reader, lists[0])
        assert slow_sandbox.open_connections == 1
        await asyncio.gather(*(read(reader, lists[number % 3]) for number in range(100)))
        assert 1 <= slow_sandbox.open_connections <= 8


async def test_the_settings_are_those_last_read(slow_sandbox: Sandbox, lists: list[str], connect: Connect):
    async with shared_client(CONN_ID) as reader:
        assert (await reader.settings()).max_concurrent_batches is None
        connect(slow_sandbox, password=NEW_KEY, extra={"max_concurrent_batches": 7})
        slow_sandbox.workspaces[0].api_key = NEW_KEY
        assert (await read(reader, lists[0])).id == lists[0]
        assert (await reader.settings()).max_concurrent_batches == 7
    assert answers(slow_sandbox) == [401, 200]


async def test_a_revoked_key_is_tried_once_more(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.workspaces[0].api_key = NEW_KEY
    async with shared_client(CONN_ID) as reader:
        with pytest.raises(exceptions.UnauthorizedError, match=r"Invalid API key\."):
            await read(reader, lists[0])
    assert answers(slow_sandbox) == [401, 401]  # with the connection as it was, and as it is


async def test_a_key_rotated_under_many_reads(slow_sandbox: Sandbox, lists: list[str], connect: Connect):
    """A client that is replaced is closed by its last user, not under the hands of the others."""
    async with shared_client(CONN_ID) as reader:
        for key in ("mf_live_second", "mf_live_third", "mf_live_fourth"):
            connect(slow_sandbox, password=key)
            slow_sandbox.workspaces[0].api_key = key
            found = await asyncio.gather(*(read(reader, lists[number % 3]) for number in range(40)))
            assert len(found) == 40


# --- when the API asks for fewer requests


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
    answer: dict[str, Any], held: float, slow_sandbox: Sandbox, lists: list[str], clock: LoopClock, logs: Logs
):
    slow_sandbox.fault("status", endpoint="list", **answer)
    async with shared_client(CONN_ID) as reader:
        with pytest.raises(exceptions.MachFiveTransientError):
            await read(reader, lists[0])
        waiting = [read(reader, lists[number % 3]) for number in range(30)]
        await clock.forward(held - 3)
        await barrier()
        assert len(answers(slow_sandbox)) == 1
        assert logs.count("Connection 'machfive_default' is not used for reads for") == 1
        await clock.forward(3)
        assert len(await asyncio.gather(*waiting)) == 30


async def test_an_error_without_a_wish_holds_back_nobody(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.fault("status", endpoint="list", status=500)
    slow_sandbox.fault("status", endpoint="list", status=429, headers={"Retry-After": "0"})
    async with shared_client(CONN_ID) as reader:
        for _ in range(2):
            with pytest.raises(exceptions.MachFiveTransientError):
                await read(reader, lists[0])
        assert (await read(reader, lists[0])).id == lists[0]


async def test_nobody_is_held_back_for_ever(slow_sandbox: Sandbox, lists: list[str], clock: LoopClock):
    """Who has waited for five minutes hears of it, so that it can look at its deadline."""
    slow_sandbox.fault("status", endpoint="list", times=None, status=429, headers={"Retry-After": "200"})
    async with shared_client(CONN_ID) as reader:
        with pytest.raises(exceptions.RateLimitedError):
            await read(reader, lists[0])
        held = [read(reader, lists[1]) for _ in range(20)]
        await clock.forward(1)
        assert len(answers(slow_sandbox)) == 1
        await clock.forward(200)  # some ask, and are refused anew
        await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        await barrier()
        await clock.forward(150)
        for error in await asyncio.gather(*held, return_exceptions=True):
            assert isinstance(error, exceptions.RateLimitedError)
        # No more than look at the same time found out.
        assert len(answers(slow_sandbox)) <= 1 + 8
        assert sum("this one was held back for 5 min" in str(task.exception()) for task in held) >= 12


async def test_what_is_not_wanted_after_a_pause_is_not_sent(slow_sandbox: Sandbox, lists: list[str], clock: LoopClock):
    slow_sandbox.fault("status", endpoint="list", status=429, headers={"Retry-After": "200"})
    wanted = True
    async with shared_client(CONN_ID) as reader:
        with pytest.raises(exceptions.RateLimitedError):
            await read(reader, lists[0])
        gone = asyncio.create_task(reader.send(protocol.get_list(lists[1]), lambda: wanted))
        stays = read(reader, lists[2])
        await clock.forward(1)
        wanted = False
        await clock.forward(201)
        assert (await stays).id == lists[2]
        with pytest.raises(NotWantedError):
            await gone
    assert [request.path[-36:] for request in slow_sandbox.requests_to("list")] == [lists[0], lists[2]]


# --- its traffic in the log, and its end


async def test_the_traffic_is_logged_now_and_then_and_at_the_end(
    slow_sandbox: Sandbox, lists: list[str], clock: LoopClock, logs: Logs
):
    async with shared_client(CONN_ID) as reader:
        for _ in range(3):
            await read(reader, lists[0])
        assert "read" not in logs.text
        await clock.forward(600)
        slow_sandbox.fault("status", endpoint="lists", status=500)
        with pytest.raises(exceptions.ServerError):
            await reader.send(protocol.list_lists())
        told = "4 reads in 10 min (1 GET /api/v1/lists, 3 GET /api/v1/lists/{list_id}), 1 failed."
        assert logs.count(f"Connection '{CONN_ID}', for all that waits on it here: {told}") == 1
        await read(reader, lists[0])
        assert logs.count("for all that waits on it here") == 1
    assert logs.count("1 read in 0 s (1 GET /api/v1/lists/{list_id}), 0 failed.") == 1
    assert slow_sandbox.api_key not in logs.text


async def test_who_sent_nothing_says_nothing(slow_sandbox: Sandbox, lists: list[str], logs: Logs):
    async with shared_client(CONN_ID):
        pass
    assert "waits on it here" not in logs.text


async def test_a_cancelled_read_leaves_nothing(slow_sandbox: Sandbox, lists: list[str]):
    slow_sandbox.fault("hang", endpoint="list")
    async with shared_client(CONN_ID) as reader:
        hanging = read(reader, lists[0])
        await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 1)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        await in_thread(slow_sandbox.wait_until, lambda: slow_sandbox.hanging == 0)
        assert (await read(reader, lists[1])).id == lists[1]


async def test_no_reference_is_kept(slow_sandbox: Sandbox, lists: list[str]):
    async with shared_client(CONN_ID) as reader:
        await read(reader, lists[0])
        gone = weakref.ref(reader)
    del reader
    await requests(slow_sandbox, "list", 0)
    gc.collect()
    assert gone() is None

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
from machfive_provider.api.models import Lead, LeadList
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from machfive_provider.waiting.shared_client import NotWantedError, SharedClient, shared_client
from tests.tasks import Logs
from tests.virtual import buy

Connect = Callable[..., None]
CONN_ID = "machfive_default"
HOST = "http://127.0.0.1:1"
NEW_KEY = "mf_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def read(client: SharedClient, list_id: str) -> asyncio.Task[LeadList]:
    return asyncio.create_task(client.send(protocol.get_list(list_id)))


def statuses(sandbox: Sandbox) -> list[int | None]:
    return [request.status for request in sandbox.requests_to("list")]


async def test_nothing_is_repeated(workspace: Sandbox):
    """Who waits polls again in its own time."""
    workspace.fault("status", endpoint="lists", status=500)
    async with shared_client(CONN_ID) as client:
        with pytest.raises(exceptions.ServerError):
            await client.send(protocol.list_lists())
    assert len(workspace.requests_to("lists")) == 1


async def test_one_client_a_connection(workspace: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", f'{{"conn_type": "machfive", "host": "{HOST}", "password": "x"}}')
    async with shared_client(CONN_ID) as one, shared_client("other") as other, shared_client(CONN_ID) as again:
        assert one is again
        assert one is not other


async def test_eight_at_once(workspace: Sandbox):
    (list_id,) = await buy(workspace)
    workspace.fault("delay", endpoint="list", times=None, seconds=1)
    async with shared_client(CONN_ID) as client:
        reads = [read(client, list_id) for _ in range(20)]
        for sent in (8, 16, 20):
            await asyncio.sleep(0.9)
            assert len(statuses(workspace)) == sent
            await asyncio.sleep(0.1)
        await asyncio.gather(*reads)


async def test_few_connections_are_opened(slow_sandbox: Sandbox, connect: Connect):
    """On sockets: one for reads after each other, eight at the most."""
    connect(slow_sandbox)
    with MachFiveHook() as hook:
        list_id = hook.generate_batch(slow_sandbox.campaign_id, [Lead("a@example.com")]).list_id
    async with shared_client(CONN_ID) as client:
        for _ in range(5):
            await read(client, list_id)
        assert slow_sandbox.open_connections == 1
        await asyncio.gather(*(read(client, list_id) for _ in range(100)))
        assert 1 <= slow_sandbox.open_connections <= 8
    await asyncio.to_thread(slow_sandbox.wait_until, lambda: slow_sandbox.open_connections == 0)


async def test_a_rotated_key_and_new_settings_are_read_again(workspace: Sandbox, connect: Connect):
    lists = await buy(workspace, 3)
    async with shared_client(CONN_ID) as client:
        assert (await client.settings()).max_concurrent_batches is None
        connect(host=HOST, password=NEW_KEY, extra={"max_concurrent_batches": 7})
        workspace.workspaces[0].api_key = NEW_KEY
        assert (await read(client, lists[0])).id == lists[0]
        assert (await client.settings()).max_concurrent_batches == 7
        assert statuses(workspace) == [401, 200]
        # Under many reads: a client that is replaced is closed by its last user.
        workspace.fault("delay", endpoint="list", times=None, seconds=1)
        for key in ("mf_live_second", "mf_live_third"):
            connect(host=HOST, password=key)
            workspace.workspaces[0].api_key = key
            assert len(await asyncio.gather(*(read(client, lists[number % 3]) for number in range(40)))) == 40


async def test_a_revoked_key_is_tried_once_more(workspace: Sandbox):
    lists = await buy(workspace)
    workspace.workspaces[0].api_key = NEW_KEY
    async with shared_client(CONN_ID) as client:
        with pytest.raises(exceptions.UnauthorizedError, match=r"Invalid API key\."):
            await read(client, lists[0])
    assert statuses(workspace) == [401, 401]  # with the connection as it was, and as it is


# --- when the API asks for fewer requests


@pytest.mark.parametrize(
    ("response", "held"),
    [
        ({"status": 429, "headers": {"Retry-After": "120"}}, 120),
        ({"status": 503, "headers": {"Retry-After": "120"}}, 120),
        ({"status": 429, "code": "RATE_LIMITED"}, 10),
        ({"status": 429, "headers": {"Retry-After": "86400"}}, 300),
        ({"status": 500}, 0),
        ({"status": 429, "headers": {"Retry-After": "0"}}, 0),
    ],
    ids=str,
)
async def test_one_response_holds_back_all_reads(response: dict[str, Any], held: float, workspace: Sandbox, logs: Logs):
    lists = await buy(workspace, 3)
    workspace.fault("status", endpoint="list", **response)
    async with shared_client(CONN_ID) as client:
        with pytest.raises(exceptions.MachFiveTransientError):
            await read(client, lists[0])
        waiting = [read(client, lists[number % 3]) for number in range(30)]
        await asyncio.sleep(held - 0.1)
        assert len(statuses(workspace)) == (1 if held else 31)
        assert logs.count("Connection 'machfive_default' is not used for reads for") == bool(held)
        await asyncio.sleep(0.2)
        assert len(await asyncio.gather(*waiting)) == 30


async def test_nobody_is_held_back_for_ever(workspace: Sandbox):
    """Who was held back for five minutes hears of it, and can compare the time with its deadline."""
    lists = await buy(workspace, 2)
    workspace.fault("status", endpoint="list", times=None, status=429, headers={"Retry-After": "200"})
    async with shared_client(CONN_ID) as client:
        with pytest.raises(exceptions.RateLimitedError):
            await read(client, lists[0])
        held = [read(client, lists[1]) for _ in range(20)]
        await asyncio.sleep(301)
        for task in held:
            assert isinstance(task.exception(), exceptions.RateLimitedError)
        assert len(statuses(workspace)) <= 1 + 8  # eight were sent together after 200 s
        assert sum("this one was held back for 5 min" in str(task.exception()) for task in held) >= 12


async def test_what_is_not_wanted_after_a_pause_is_not_sent(workspace: Sandbox):
    lists = await buy(workspace, 3)
    workspace.fault("status", endpoint="list", status=429, headers={"Retry-After": "200"})
    wanted = True
    async with shared_client(CONN_ID) as client:
        with pytest.raises(exceptions.RateLimitedError):
            await read(client, lists[0])
        gone = asyncio.create_task(client.send(protocol.get_list(lists[1]), lambda: wanted))
        stays = read(client, lists[2])
        await asyncio.sleep(1)
        wanted = False
        assert (await stays).id == lists[2]
        with pytest.raises(NotWantedError):
            await gone
    assert [request.path[-36:] for request in workspace.requests_to("list")] == [lists[0], lists[2]]


# --- its traffic in the log, and its end


async def test_the_traffic_is_logged_now_and_then_and_at_the_end(workspace: Sandbox, logs: Logs):
    (list_id,) = await buy(workspace)
    async with shared_client(CONN_ID):
        pass
    assert "waits on it here" not in logs.text
    async with shared_client(CONN_ID) as client:
        for _ in range(3):
            await read(client, list_id)
        assert "read" not in logs.text
        await asyncio.sleep(600)
        workspace.fault("status", endpoint="lists", status=500)
        with pytest.raises(exceptions.ServerError):
            await client.send(protocol.list_lists())
        told = "4 reads in 10 min (1 GET /api/v1/lists, 3 GET /api/v1/lists/{list_id}), 1 failed."
        assert logs.count(f"Connection '{CONN_ID}', for all that waits on it here: {told}") == 1
        await read(client, list_id)
        assert logs.count("for all that waits on it here") == 1
    assert logs.count("1 read in 0 s (1 GET /api/v1/lists/{list_id}), 0 failed.") == 1
    assert workspace.api_key not in logs.text


async def test_a_cancelled_read_leaves_nothing(workspace: Sandbox):
    lists = await buy(workspace, 2)
    workspace.fault("hang", endpoint="list")
    async with shared_client(CONN_ID) as client:
        hanging = read(client, lists[0])
        await asyncio.sleep(1)
        assert workspace.hanging == 1
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        assert workspace.hanging == 0
        assert (await read(client, lists[1])).id == lists[1]
        gone = weakref.ref(client)
    del client, hanging
    await asyncio.sleep(1)
    gc.collect()
    assert gone() is None

"""The lists of a connection, read once for all viewers: how many requests a refresh takes and what it must not miss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from machfive_provider.api import protocol
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.exceptions import ServerError, UnauthorizedError
from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.ui.snapshot import Snapshots

CONN = "machfive_default"


@pytest.fixture(scope="module")
def large() -> Any:
    """Run a sandbox with more lists than a snapshot begins with."""
    settings = SandboxSettings(processing_seconds=float("inf"), concurrency=100_000, credits=100_000)
    with Sandbox(settings) as sandbox:
        buy(sandbox, 1250)
        yield sandbox


def buy(sandbox: Sandbox, number: int) -> list[str]:
    with closing(MachFiveClient(ClientSettings(sandbox.base_url, sandbox.api_key))) as client:
        call = protocol.generate_batch(sandbox.campaign_id, [Lead("a@example.com")], None)
        return [client.send(call).list_id for _ in range(number)]


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def snapshots(clock: Time) -> Snapshots:
    return Snapshots(now=clock)


def pages(sandbox: Sandbox, action: Callable[[], Any]) -> tuple[Any, int, int]:
    """Return what an action returns, and how many pages and single lists it read."""
    before = (len(sandbox.requests_to("lists")), len(sandbox.requests_to("list")))
    result = action()
    after = (len(sandbox.requests_to("lists")), len(sandbox.requests_to("list")))
    return result, after[0] - before[0], after[1] - before[1]


def test_one_read_serves_all_viewers_for_five_seconds(
    large: Sandbox, connect: Callable[..., None], snapshots: Snapshots, clock: Time
):
    connect(large)
    first, read, _ = pages(large, lambda: snapshots.read(CONN))
    assert (len(first.lists), first.has_older, read) == (1000, True, 10)
    clock.now += 4.9
    again, read, single = pages(large, lambda: [snapshots.read(CONN) for _ in range(50)])
    assert (again[-1] is first, read, single) == (True, 0, 0)
    clock.now += 0.2
    fresh, read, single = pages(large, lambda: [snapshots.read(CONN) for _ in range(50)])
    # One page, and three of the older lists that still run.
    assert (len(fresh[0].lists), read, single) == (1000, 1, 3)
    assert set(fresh[0].campaigns.values()) >= {"Spring Outreach"}


def test_older_lists_are_read_when_asked_for(large: Sandbox, connect: Callable[..., None], snapshots: Snapshots):
    connect(large)
    snapshots.read(CONN)
    older, read, _ = pages(large, lambda: snapshots.read(CONN, pages=20))
    assert (len(older.lists), older.has_older) == (len(large.lists), False)
    assert read <= 1 + 3


def test_lists_made_while_nobody_looked_are_all_found(
    large: Sandbox, connect: Callable[..., None], snapshots: Snapshots, clock: Time
):
    connect(large)
    known = set(snapshots.read(CONN).lists)
    clock.now += 3600
    made = buy(large, 130)
    assert set(snapshots.read(CONN).lists) == known | set(made)


def test_a_list_that_left_the_first_page_is_followed_to_its_end(
    large: Sandbox, connect: Callable[..., None], snapshots: Snapshots, clock: Time
):
    connect(large)
    first = snapshots.read(CONN)
    created = sorted(first.lists.values(), key=lambda each: str(each.created_at))
    oldest = created[0].id
    large.complete(oldest)
    for _ in range(-(-len(first.lists) // 3)):
        clock.now += 6
        snapshots.read(CONN)
    ended = snapshots.read(CONN).lists[oldest]
    assert (ended.is_completed, ended.leads_count) == (True, 1)


def test_what_was_read_stays_when_machfive_cannot_be_read(
    sandbox: Sandbox, connect: Callable[..., None], snapshots: Snapshots, clock: Time
):
    connect(sandbox)
    known = snapshots.read(CONN)
    clock.now += 6
    sandbox.fault("status", endpoint="lists", status=503, times=1)
    lost = snapshots.read(CONN)
    assert (lost.lists, lost.read_at, type(lost.error)) == (known.lists, known.read_at, ServerError)
    clock.now += 6
    assert snapshots.read(CONN).error is None


def test_a_wrong_key_is_an_error_to_show(sandbox: Sandbox, connect: Callable[..., None], snapshots: Snapshots):
    connect(host=sandbox.base_url, password="mf_live_" + "0" * 32)
    snapshot = snapshots.read(CONN)
    assert isinstance(snapshot.error, UnauthorizedError)
    assert (snapshot.lists, snapshot.read_at) == ({}, 0.0)


def test_the_server_says_when_to_come_again(
    sandbox: Sandbox, connect: Callable[..., None], snapshots: Snapshots, clock: Time
):
    connect(sandbox)
    sandbox.fault("status", endpoint="lists", status=429, headers={"Retry-After": "60"}, times=None)
    _, first, _ = pages(sandbox, lambda: snapshots.read(CONN))
    reads = []
    for later in (10, 40, 20):
        clock.now += later
        reads.append(pages(sandbox, lambda: snapshots.read(CONN))[1])
    assert (first, reads) == (1, [0, 0, 1])

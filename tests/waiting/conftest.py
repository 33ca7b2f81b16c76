"""A workspace with lists in work, a loop's clock that can be set forward, and a check that nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.waiting import capacity_watcher, poller, shared_client


@pytest.fixture(scope="module")
def running_busy_sandbox() -> Iterator[Sandbox]:
    """Run one sandbox for a module, in which any number of lists stay in work."""
    with Sandbox(SandboxSettings(processing_seconds=float("inf"), concurrency=10_000, credits=10_000)) as sandbox:
        yield sandbox


@pytest.fixture
def busy_sandbox(running_busy_sandbox: Sandbox, connect: Callable[..., None]) -> Sandbox:
    """Give the sandbox with room for any number of lists, as new, and connect to it."""
    running_busy_sandbox.reset()
    connect(running_busy_sandbox)
    return running_busy_sandbox


@pytest.fixture
def lists(slow_sandbox: Sandbox, connect: Callable[..., None]) -> list[str]:
    """Connect, and buy three lists that stay in work."""
    connect(slow_sandbox)
    return bought(slow_sandbox, 3)


def bought(sandbox: Sandbox, count: int) -> list[str]:
    """Buy lists, as workers would have."""
    with MachFiveHook() as hook:
        return [hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com")]).list_id for _ in range(count)]


@pytest.fixture(autouse=True)
async def _nothing_is_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Check after each test that pollers, readers, tasks and connections are gone."""
    names = {"running_slow_sandbox", "running_busy_sandbox"} & set(request.fixturenames)
    sandboxes = [request.getfixturevalue(name) for name in names]
    before = asyncio.all_tasks()
    yield
    for shared in (poller._pollers, shared_client._readers, capacity_watcher._keepers):
        assert shared.in_use() == {}
    assert {task for task in asyncio.all_tasks() if not task.done()} <= {*before, asyncio.current_task()}
    for sandbox in sandboxes:
        await asyncio.to_thread(sandbox.wait_until, lambda each=sandbox: each.open_connections == 0)


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


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what blocks."""
    return await asyncio.to_thread(function, *arguments)


async def requests(sandbox: Sandbox, endpoint: str, more: int) -> None:
    """Wait for so many further requests."""
    await in_thread(sandbox.wait_for_requests, endpoint, len(sandbox.requests_to(endpoint)) + more)


async def barrier() -> None:
    """Return when a request of our own has been there and back: whatever else was due has been sent by then."""

    def there_and_back() -> None:
        with MachFiveHook() as hook:
            hook.list_campaigns()

    await in_thread(there_and_back)

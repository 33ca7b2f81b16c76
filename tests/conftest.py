"""What every test needs: an Airflow home of its own, set before Airflow is imported, and the shared fixtures."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

_HOME = Path(tempfile.mkdtemp(prefix="machfive-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = str(_HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME / 'airflow.db'}"

# No deadline: how long an example takes says something about the machine, not about the code.
settings.register_profile("provider", deadline=None, database=None)
# For `make fuzz`: fifty times as many.
settings.register_profile(
    "fuzz", settings.get_profile("provider"), max_examples=int(os.environ.get("EXAMPLES", "5000"))
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "provider"))

# Imported only now: they import Airflow, which reads the variables above.
import asyncio  # noqa: E402
import logging  # noqa: E402
import time  # noqa: E402

from machfive_provider.sandbox import Sandbox, SandboxSettings  # noqa: E402
from tests import tasks, virtual  # noqa: E402
from tests.clock import Clock  # noqa: E402
from tests.tasks import Logs, set_connection  # noqa: E402


@pytest.hookimpl(tryfirst=True)  # before xdist reads the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares fixtures when tests run in several processes: a file, and all with a live Airflow."""
    repeated = [name for name, number in Counter(item.nodeid for item in items).items() if number > 1]
    assert not repeated, f"xdist would run only one test of each of these names: {repeated}"
    # Those with a live Airflow take longest: they begin first, while the other processes do the rest.
    items.sort(key=lambda item: not is_live(item))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("live" if is_live(item) else str(item.path)))


def is_live(item: pytest.Item) -> bool:
    """Return whether a test has one of the two Airflows that live for a whole session."""
    return not {"e2e", "jobs"}.isdisjoint(item.path.parts)


@pytest.fixture(scope="module")
def running_sandbox() -> Iterator[Sandbox]:
    """Run one sandbox for a module; lists complete at once."""
    with Sandbox(SandboxSettings()) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    """Give the module's sandbox, as new."""
    running_sandbox.reset()
    return running_sandbox


@pytest.fixture(scope="module")
def running_slow_sandbox() -> Iterator[Sandbox]:
    """Run one sandbox for a module whose lists stay in work until a test completes them."""
    with Sandbox(SandboxSettings(processing_seconds=float("inf"))) as sandbox:
        yield sandbox


@pytest.fixture
def slow_sandbox(running_slow_sandbox: Sandbox) -> Sandbox:
    """Give the sandbox whose lists end by hand only, as new."""
    running_slow_sandbox.reset()
    return running_slow_sandbox


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Clock:
    """Give a clock that this process lives by, and the timed sandbox if the test has one."""
    timed = "running_timed_sandbox" in request.fixturenames
    given = request.getfixturevalue("running_timed_sandbox")[1] if timed else Clock()
    given.ahead = 0.0
    given.slept.clear()
    monkeypatch.setattr(time, "time", given)
    monkeypatch.setattr(time, "sleep", given.sleep)
    return given


@pytest.fixture(scope="module")
def running_timed_sandbox() -> Iterator[tuple[Sandbox, Clock]]:
    """Run one sandbox for a module that lives by the test's clock; lists complete at once."""
    shared = Clock()
    with Sandbox(SandboxSettings(), clock=shared) as sandbox:
        yield sandbox, shared


@pytest.fixture
def timed_sandbox(running_timed_sandbox: tuple[Sandbox, Clock], clock: Clock) -> Sandbox:
    """Give the sandbox that lives by the test's clock, as new."""
    running_timed_sandbox[0].reset()
    return running_timed_sandbox[0]


def pytest_asyncio_loop_factories(item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let a test that asks for the sandbox in its own loop, or is marked so, live on virtual time."""
    is_virtual = "workspace" in item.fixturenames or item.get_closest_marker("virtual_time")
    return {"loop": virtual.VirtualLoop if is_virtual else asyncio.new_event_loop}


@pytest.fixture
async def workspace(monkeypatch: pytest.MonkeyPatch, connect: Callable[..., None]) -> AsyncIterator[Sandbox]:
    """Serve a sandbox in the test's own loop, on virtual time; its lists end by hand. Check that nothing is left."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(time, "time", lambda: virtual.EPOCH + loop.time())
    settings = SandboxSettings(processing_seconds=float("inf"), concurrency=10_000, credits=10_000)
    sandbox = Sandbox(settings, clock=time.time)
    network = virtual.Network(sandbox)
    monkeypatch.setattr("httpx._client.AsyncHTTPTransport", network.open)
    connect(host="http://127.0.0.1:1", password=sandbox.api_key)
    before = asyncio.all_tasks()
    yield sandbox
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if not task.done()} <= {*before, asyncio.current_task()}
    assert network.clients == 0


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Point ``machfive_default`` to a sandbox, or to whatever is given."""

    def point(to: Sandbox | None = None, **fields: Any) -> None:
        known = {"host": to.base_url, "password": to.api_key} if to else {}
        if to:
            monkeypatch.setitem(tasks.connected, to.base_url, to)
        set_connection(monkeypatch.setenv, **{**known, **fields})

    return point


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Logs:
    """Capture what tasks and triggers log."""
    caplog.set_level(logging.INFO)
    return Logs(caplog, capsys)

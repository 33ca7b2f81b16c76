"""What the tests over real sockets share: the sandbox, a connection to it, and a task without an Airflow around it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from machfive_provider.api.client import AsyncMachFiveClient, MachFiveClient
from machfive_provider.api.retries import RetryPolicy
from machfive_provider.api.settings import ClientSettings
from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.triggers import settling

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
NO_PAUSE = RetryPolicy(base=0.0)  # the default's five attempts, without the pauses between them
LEADS = (
    {"email": "dana.reyes@example.com", "name": "Dana Reyes", "title": "COO", "company": "Reyes Logistics"},
    {"email": "li.wei@example.org", "name": "Li Wei", "company": "Harbour Foods"},
    {"email": "sam.okafor@example.net", "name": "Sam Okafor", "company": "Okafor Mills"},
)
PERSONAL = ("dana.reyes", "Dana", "Reyes", "li.wei", "sam.okafor", "Okafor", "Harbour Foods")


# --- fixtures: test modules and conftests take them by assignment


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


class Clock:
    """The time of a test: runs as the real one does, but a pause passes at once and counts all the same."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.slept: list[float] = []
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.ahead

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += seconds

    def sleep(self, seconds: float) -> None:
        """Take the place of ``time.sleep``."""
        self.slept.append(seconds)
        self.advance(seconds)
        assert len(self.slept) < 1000, "it waits for ever"

    async def sleep_in_loop(self, seconds: float) -> None:
        """Take the place of ``asyncio.sleep`` where a trigger waits for a moment of the wall clock."""
        self.sleep(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Clock:
    """Give a clock that this process lives by, and the timed sandbox if the test has one."""
    timed = "running_timed_sandbox" in request.fixturenames
    given = request.getfixturevalue("running_timed_sandbox")[1] if timed else Clock()
    given.ahead = 0.0
    given.slept.clear()
    monkeypatch.setattr(time, "time", given)
    monkeypatch.setattr(time, "sleep", given.sleep)
    # The client took its pause as a default before there was a test.
    monkeypatch.setattr(MachFiveClient.__init__, "__defaults__", (None, given.sleep))
    monkeypatch.setattr(settling, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": given.sleep_in_loop}))
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


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Point ``machfive_default`` to a sandbox, or to whatever is given."""

    def point(to: Sandbox | None = None, **fields: Any) -> None:
        known = {"host": to.base_url, "password": to.api_key} if to else {}
        set_connection(monkeypatch.setenv, **{**known, **fields})

    return point


def set_connection(set_variable: Callable[[str, str], Any], **fields: Any) -> None:
    """Write an Airflow connection to the environment."""
    set_variable("AIRFLOW_CONN_MACHFIVE_DEFAULT", json.dumps({"conn_type": "machfive", **fields}))


class Logs:
    """What was logged at INFO or above: by way of logging, and of structlog where Airflow writes to stdout itself."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
        self._caplog, self._capsys = caplog, capsys
        self._printed = ""

    @property
    def text(self) -> str:
        """Everything since the start of the test, or since the last :meth:`clear`."""
        self._printed += "".join(self._capsys.readouterr())
        return self._caplog.text + self._printed

    def count(self, text: str) -> int:
        """How many lines say so, each counted once although two handlers may have written it."""
        everything = self.text
        return max(self._caplog.text.count(text), everything.count(text) - self._caplog.text.count(text))

    def clear(self) -> None:
        """Forget what was logged so far."""
        self._caplog.clear()
        self._capsys.readouterr()
        self._printed = ""


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Logs:
    """Capture what tasks and triggers log."""
    caplog.set_level(logging.INFO)
    return Logs(caplog, capsys)


# --- clients, the same from both worlds


class Awaited:
    """The asynchronous client behind the synchronous one's methods, so that one test drives both."""

    def __init__(self, settings: ClientSettings, policy: RetryPolicy, sleep: Callable[[float], None] | None) -> None:
        self._runner = asyncio.Runner()

        async def pause(seconds: float) -> None:
            if sleep:
                sleep(seconds)

        async def make() -> AsyncMachFiveClient:
            return AsyncMachFiveClient(settings, policy, pause)

        self.client = self._runner.run(make())

    def send(self, call: Any) -> Any:
        return self._runner.run(self.client.send(call))

    def stream(self, request: Any) -> Iterator[bytes]:
        chunks = self.client.stream(request)

        async def step() -> bytes:
            return await anext(chunks)

        try:
            while True:
                try:
                    yield self._runner.run(step())
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(chunks.aclose())

    def close(self) -> None:
        self._runner.run(self.client.close())
        self._runner.close()


Client = MachFiveClient | Awaited
WORLDS = ("sync", "async")


@contextmanager
def open_client(
    world: str,
    base_url: str,
    api_key: str = "mf_live_0123456789abcdefghijABCDEFGHIJ00",
    policy: RetryPolicy = NO_PAUSE,
    sleep: Callable[[float], None] | None = None,
) -> Iterator[Client]:
    """Give a client of one world, closed afterwards; it never really pauses."""
    settings = ClientSettings(base_url, api_key)
    client: Client
    if world == "async":
        client = Awaited(settings, policy, sleep)
    else:
        client = MachFiveClient(settings, policy, sleep or (lambda _: None))
    try:
        yield client
    finally:
        client.close()


# --- a server that says what a test wants, byte for byte


class RawServer(socketserver.ThreadingTCPServer):
    """Answers each request with the bytes given; ``heads`` is what it was asked, over so many ``connections``."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, answer: bytes | Callable[[Callable[[bytes], Any]], None]) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections = 0
        super().__init__(("127.0.0.1", 0), _RawHandler)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients that hang up are what these tests are about."""


class _RawHandler(socketserver.StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        self.server.connections += 1
        while head := b"".join(iter(self.rfile.readline, b"\r\n")) if self.rfile.peek(1) else b"":
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            self.rfile.read(int(length[1]) if length else 0)
            self.server.heads.append(head)
            if callable(self.server.answer):
                self.server.answer(self.request.sendall)
                return
            self.request.sendall(self.server.answer)
            if b"Connection: close" in self.server.answer:
                return


@contextmanager
def raw_server(answer: bytes | Callable[[Callable[[bytes], Any]], None]) -> Iterator[RawServer]:
    """Serve ``answer``, raw: bytes, or a function that is given ``sendall``."""
    with RawServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Write an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def unused_url() -> str:
    """Return an address on which nothing listens."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_address[1]}"


# --- tasks


class StateStore:
    """Takes the place of Airflow's task state store: what a task writes there is there on its next try.

    :param dies: the phase whose writing kills the process; None for none
    """

    def __init__(self, dies: str | None = None) -> None:
        self.kept: dict[str, str] = {}
        self.dies = dies

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if value is None:
            raise ValueError("Cannot set value as None")
        if self.dies == value["phase"]:
            self.dies = None
            raise Killed
        self.kept[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


class Killed(BaseException):
    """The worker is gone: no line of the task runs after this one."""


class FakeTaskInstance:
    """What operators ask of a task instance; XComs are kept in a dictionary, as JSON would keep them.

    :param clears: what a clear has done to ``max_tries``: how many tries there had been
    """

    def __init__(
        self, task: Any, run_id: str = "manual__1", map_index: int = -1, clears: int = 0, try_number: int = 1
    ) -> None:
        self.dag_id = "crm"
        self.task_id = task.task_id
        self.run_id = run_id
        self.map_index = map_index
        self.try_number = try_number
        self.max_tries = (task.retries or 0) + clears
        self.xcoms: dict[str, Any] = {}
        self.pushes: list[tuple[str, Any]] = []

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))
        self.pushes.append((key, self.xcoms[key]))

    def xcom_pull(self, task_ids: Any = None, key: str = "return_value", map_indexes: Any = None, **_: Any) -> Any:
        mine = task_ids == self.task_id and map_indexes == self.map_index
        return self.xcoms.get(key) if mine else None


def task_context(task: Any, store: StateStore | None = None, began: Any = None, **ti: Any) -> Any:
    """Return the context of one try of a task.

    :param store: Airflow's task state store, None for an Airflow that has none
    :param began: the start of the DAG run, or of what a clear made of it
    """
    run = SimpleNamespace(run_after=pendulum.now("UTC"), start_date=began)
    known = {"ti": FakeTaskInstance(task, **ti), "dag_run": run}
    return {**known, "task_state_store": store} if store is not None else known


class Run:
    """One try of a task, driven through its deferrals as Airflow does, only without the pauses.

    :param between: called while a trigger runs, on another thread, with the trigger
    """

    def __init__(self, task: Any, context: Any = None, between: Callable[[Any], None] | None = None, **ti: Any) -> None:
        self.task = task
        self.context = context or task_context(task, **ti)
        self.between = between
        self.triggers: list[Any] = []
        self.ended_in_triggerer = False

    @property
    def xcoms(self) -> dict[str, Any]:
        return self.context["ti"].xcoms

    def __call__(self) -> Any:
        method, kwargs = "execute", {}
        while True:
            # A deferred task resumes in another process: only the arguments of the operator survive.
            attempt = copy.copy(self.task)
            try:
                return getattr(attempt, method)(self.context, **kwargs)
            except TaskDeferred as deferred:
                left = deferred
            self.triggers.append(left.trigger)
            assert left.timeout.total_seconds() > 0
            event = self._event_of(left.trigger)
            if isinstance(event, TaskSuccessEvent):
                self.ended_in_triggerer = True
                return None
            kwargs = {**(left.kwargs or {}), "event": json.loads(json.dumps(event.payload))}
            method = left.method_name

    def _event_of(self, trigger: Any) -> TriggerEvent:
        helper = threading.Thread(target=self.between, args=(trigger,)) if self.between else None
        if helper:
            helper.start()
        try:
            events = asyncio.run(events_of(hurried(trigger)))
        finally:
            if helper:
                helper.join()
        assert len(events) == 1
        return events[0]


def hurried(trigger: Any) -> Any:
    """Return the trigger as the triggerer gets it, through its serialised form, but looking all the time.

    The one that waits for a moment of the wall clock keeps its pauses: the ``clock`` lets them pass.
    """
    path, kwargs = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__qualname__}"
    kwargs = json.loads(json.dumps(kwargs))
    if "first_look_at" in kwargs:
        kwargs["first_look_at"] = 0.0
    if "until" in kwargs:
        return type(trigger)(**kwargs)
    return type(trigger)(**{**kwargs, "poll_interval": 0.01})


async def events_of(trigger: Any, patience: float = 30.0) -> list[TriggerEvent]:
    """Run a trigger to its end; a test that has gone wrong fails instead of waiting for ever."""
    async with asyncio.timeout(patience):
        return [event async for event in trigger.run()]


class Pauses(list[float]):
    """Takes the place of ``sleep``: notes pauses instead of making them, and ends a loop that has no end."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        assert len(self) < 1000, "it waits for ever"


def assert_plain(value: Any) -> None:
    """Check that a trigger's argument survives any serialisation."""
    if isinstance(value, list):
        for each in value:
            assert_plain(each)
    else:
        assert value is None or isinstance(value, (str, int, float, bool))


def temporary_databases() -> set[str]:
    """Return the files that SQLite holds open for this process, those without a name as ``/tmp/etilqs_… (deleted)``."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder's own
            found.add(str(each.readlink()))
    return {each for each in found if "etilqs_" in each}


def leaks(secrets: Any, *texts: Any) -> list[str]:
    """Return the secrets that a text holds."""
    everything = "\n".join(map(str, texts))
    return [secret for secret in secrets if secret in everything]

"""A task without an Airflow around it: its context, its tries, its deferrals and what it logs."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pendulum
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sandbox import Sandbox
from tests import virtual
from tests.clock import Clock

connected: dict[str, Sandbox] = {}
"""The running sandboxes to which a test has pointed the connection, by base URL."""

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


LEADS = (
    {"email": "dana.reyes@example.com", "name": "Dana Reyes", "title": "COO", "company": "Reyes Logistics"},
    {"email": "li.wei@example.org", "name": "Li Wei", "company": "Harbour Foods"},
    {"email": "sam.okafor@example.net", "name": "Sam Okafor", "company": "Okafor Mills"},
)


PERSONAL = ("dana.reyes", "Dana", "Reyes", "li.wei", "sam.okafor", "Okafor", "Harbour Foods")


def batch(sandbox: Sandbox, **arguments: Any) -> MachFiveGenerateBatchOperator:
    """Make the operator as a DAG author does, short of what the test sets."""
    known: dict[str, Any] = {"task_id": "write", "leads": list(LEADS), "campaign_id": sandbox.campaign_id}
    if "leads_path" in arguments:
        del known["leads"]
    if "campaign_name" in arguments:
        del known["campaign_id"]
    return MachFiveGenerateBatchOperator(**{**known, **arguments})


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
        self.deferred: int | Exception | Callable[[], int] = 0

    def get_ti_count(self, dag_id: str, task_ids: list[str], states: list[str]) -> int:
        assert (dag_id, task_ids, states) == (self.dag_id, [self.task_id], ["deferred"])
        if isinstance(self.deferred, Exception):
            raise self.deferred
        return self.deferred() if callable(self.deferred) else self.deferred

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))
        self.pushes.append((key, self.xcoms[key]))

    def xcom_pull(self, task_ids: Any = None, key: str = "return_value", map_indexes: Any = None, **_: Any) -> Any:
        mine = task_ids == self.task_id and map_indexes == self.map_index
        return self.xcoms.get(key) if mine else None


def told(xcoms: dict[str, Any]) -> dict[str, Any]:
    """Return what a task has told of its batch, without the times of its phases, which no two runs share."""
    return {name: value for name, value in xcoms["machfive_batch"].items() if name != "times"}


def task_context(task: Any, store: StateStore | None = None, began: Any = None, **ti: Any) -> Any:
    """Return the context of one try of a task.

    :param store: Airflow's task state store, None for an Airflow that has none
    :param began: the start of the DAG run, or of what a clear made of it
    """
    run = SimpleNamespace(run_after=pendulum.now("UTC"), start_date=began)
    known = {"ti": FakeTaskInstance(task, **ti), "dag_run": run, "outlet_events": OutletEventAccessors()}
    return {**known, "task_state_store": store} if store is not None else known


class Run:
    """One try of a task, driven through its deferrals as Airflow does, with triggers on virtual time.

    :param between, after: as for :func:`run_trigger`
    """

    def __init__(
        self,
        task: Any,
        context: Any = None,
        between: Callable[[Any], Any] | None = None,
        after: float | None = None,
        **ti: Any,
    ) -> None:
        self.task = task
        self.context = context or task_context(task, **ti)
        self.between, self.after = between, after
        self.triggers: list[Any] = []
        self.ended_in_triggerer = False
        self.left = task  # the operator, as the last process has left it

    @property
    def xcoms(self) -> dict[str, Any]:
        return self.context["ti"].xcoms

    def __call__(self) -> Any:
        method, kwargs = "execute", {}
        while True:
            # A deferred task resumes in another process: only the arguments of the operator survive.
            self.left = attempt = copy.copy(self.task)
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
        return run_trigger(trigger, self.between, self.after)


def run_trigger(trigger: Any, between: Callable[[Any], Any] | None = None, after: float | None = None) -> TriggerEvent:
    """Run a trigger as the triggerer gets it, through its serialised form, on virtual time; return its one event.

    Its requests reach the sandbox of the connection without a socket. The clock of the test moves with the loop's.

    :param between: called with the trigger while it runs, after so many virtual seconds
    :param after: one and a half polls by default
    """
    path, kwargs = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__qualname__}"
    made = type(trigger)(**json.loads(json.dumps(kwargs)))
    clock = time.time if isinstance(time.time, Clock) else Clock()
    loop = virtual.VirtualLoop(clock.advance)
    if between:
        loop.call_later(1.5 * trigger.poll_interval if after is None else after, between, trigger)
    host = json.loads(os.environ["AIRFLOW_CONN_MACHFIVE_DEFAULT"]).get("host")
    with (
        mock.patch.object(time, "time", clock),
        mock.patch("httpx._client.AsyncHTTPTransport", virtual.Network(connected.get(host)).open),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        (event,) = runner.run(events_of(made, patience=1e9))
    return event


async def events_of(trigger: Any, patience: float = 30.0) -> list[TriggerEvent]:
    """Run a trigger to its end; a test that has gone wrong fails instead of waiting for ever."""
    async with asyncio.timeout(patience):
        return [event async for event in trigger.run()]


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

    @property
    def warnings(self) -> list[str]:
        """The lines at WARNING, each once although two handlers may have written it."""
        logged = [line for line in self._caplog.text.splitlines() if line.startswith("WARNING")]
        return logged or [line for line in self.text.splitlines() if "[warning" in line]

    def clear(self) -> None:
        """Forget what was logged so far."""
        self._caplog.clear()
        self._capsys.readouterr()
        self._printed = ""


def set_connection(set_variable: Callable[[str, str], Any], **fields: Any) -> None:
    """Write an Airflow connection to the environment."""
    set_variable("AIRFLOW_CONN_MACHFIVE_DEFAULT", json.dumps({"conn_type": "machfive", **fields}))


def assert_plain(value: Any) -> None:
    """Check that a trigger's argument survives any serialisation."""
    if isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            assert_plain(each)
    else:
        assert value is None or isinstance(value, (str, int, float, bool))


def leaks(secrets: Any, *texts: Any) -> list[str]:
    """Return the secrets that a text holds."""
    everything = "\n".join(map(str, texts))
    return [secret for secret in secrets if secret in everything]

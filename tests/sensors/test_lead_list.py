"""The sensor over real sockets: poke, reschedule and deferrable end alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from airflow.sdk import Asset

from machfive_provider import exceptions
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from machfive_provider.sensors.lead_list import MachFiveListSensor
from tests.clock import Pauses
from tests.tasks import UNKNOWN_ID, Logs, Run, assert_plain, leaks, task_context

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Collect pauses instead of making them; what the list holds is called, one at each pause."""
    script: list[Callable[[], Any]] = []
    pauses = Pauses()

    def sleep(seconds: float) -> None:
        if not seconds:  # between two attempts of one read, as the fault asks
            return
        pauses(seconds)
        if script:
            script.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)
    return script


def bought(sandbox: Sandbox, count: int = 1) -> list[str]:
    """Buy lists that stay in work."""
    with MachFiveHook() as hook:
        return [hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com")]).list_id for _ in range(count)]


def sensor(list_id: Any, **arguments: Any) -> MachFiveListSensor:
    return MachFiveListSensor(task_id="wait", list_id=list_id, **arguments)


def end_all(sandbox: Sandbox, how: str = "complete") -> Callable[[Any], None]:
    """Return what ends every list that the trigger waits for, once each has been looked at."""

    def end(trigger: Any) -> None:
        for list_id in trigger.list_ids:
            getattr(sandbox, how)(list_id)

    return end


# --- success


@MODES
def test_completed_already(deferrable: bool, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    (list_id,) = bought(sandbox)
    run = Run(sensor(list_id, deferrable=deferrable))
    run()
    assert run.triggers == []
    told = run.xcoms["machfive_batch"]
    assert (told["phase"], [each["list_id"] for each in told["lists"]]) == ("completed", [list_id])
    assert told["lists"][0].items() >= {"phase": "completed", "leads_count": 1, "emails_created": 3}.items()
    assert len(sandbox.requests_to("list")) == 1
    assert logs.count(f"List {list_id} has completed.") == 1


@MODES
def test_each_poll_is_sent_once_and_a_failed_one_is_warned_of(
    deferrable: bool, sandbox: Sandbox, connect: Connect, logs: Logs
):
    connect(sandbox)
    (list_id,) = bought(sandbox)
    sandbox.fault("status", endpoint="list", times=3, status=500)
    Run(sensor(list_id, deferrable=deferrable))()
    assert len(sandbox.requests_to("list")) == 4
    assert [line for line in logs.warnings if f"Poll 1 in a row of list {list_id} failed" in line]


def test_poke(slow_sandbox: Sandbox, connect: Connect, sleeps: list[Any], logs: Logs):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    sleeps += [lambda: None, lambda: slow_sandbox.complete(list_id)]
    Run(sensor(list_id, deferrable=False))()
    assert sleeps == []
    assert len(slow_sandbox.requests_to("list")) == 3
    assert logs.count(f"List {list_id} is processing") == 1


def test_reschedule(slow_sandbox: Sandbox, connect: Connect, logs: Logs):
    """Between pokes the task is gone: each poke is a look by a fresh operator, and only the first has news."""
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    first_poke: list[datetime] = []

    def poke() -> bool:
        task = sensor(list_id, mode="reschedule", deferrable=False, timeout=60)
        context = task_context(task)
        context["ti"].get_first_reschedule_date = lambda context: first_poke[0] if first_poke else None
        return task.poke(context)

    assert poke() is False
    first_poke.append(datetime.now(UTC))
    assert poke() is False
    assert logs.count(f"List {list_id} is processing") == 1
    slow_sandbox.fault("status", endpoint="list", status=500)
    assert poke() is False
    assert [line for line in logs.warnings if f"Poll 1 in a row of list {list_id} failed" in line]
    slow_sandbox.complete(list_id)
    assert poke() is True
    assert logs.count(f"List {list_id} has completed.") == 1


def test_reschedule_counts_from_the_first_poke(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    task = sensor(list_id, mode="reschedule", deferrable=False, timeout=60)
    context = task_context(task)
    context["ti"].get_first_reschedule_date = lambda context: an_hour_ago
    with pytest.raises(exceptions.SensorTimeoutError, match=r"still processing after 1 h \(timeout\)"):
        task.poke(context)


@pytest.mark.parametrize("several", [list, tuple])
def test_several_lists(several: type, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    first, second, third = bought(slow_sandbox, 3)
    operator = sensor(several([first, second, third, second]), deferrable=False)
    context = task_context(operator)
    slow_sandbox.complete(second)
    assert operator.poke(context) is False
    phases = {each["list_id"]: each["phase"] for each in context["ti"].xcoms["machfive_batch"]["lists"]}
    assert phases == {first: "submitted", second: "completed", third: "submitted"}
    slow_sandbox.complete(first)
    assert operator.poke(context) is False
    slow_sandbox.complete(third)
    assert operator.poke(context) is True
    looked = [request.path.rpartition("/")[2] for request in slow_sandbox.requests_to("list")]
    # What has completed is not asked for again.
    assert looked == [first, second, third, first, third, third]


def test_deferrable_ends_in_the_triggerer(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    lists = bought(slow_sandbox, 3)
    slow_sandbox.complete(lists[0])
    run = Run(sensor(lists, deferrable=True, poke_interval=15, timeout=3600), between=end_all(slow_sandbox))
    before = time.time()
    run()
    assert run.ended_in_triggerer
    (trigger,) = run.triggers
    _, kwargs = trigger.serialize()
    assert kwargs["list_ids"] == lists[1:]
    assert kwargs["ends_task"] is True
    assert kwargs["poll_interval"] == 15
    assert 3590 < kwargs["deadline"] - before < 3610
    for value in kwargs.values():
        assert_plain(value)
    assert leaks([slow_sandbox.api_key, "a@example.com"], json.dumps(kwargs)) == []


class Announcing(MachFiveListSensor):
    """A user's sensor with a ``post_execute`` of its own."""

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do something."""


WORKERS: dict[str, Callable[[str], MachFiveListSensor]] = {
    "outlets": lambda list_id: sensor(list_id, deferrable=True, outlets=[Asset("s3://bucket/emails")]),
    "an on_success_callback": lambda list_id: sensor(list_id, deferrable=True, on_success_callback=lambda _: None),
    "a post_execute argument": lambda list_id: sensor(list_id, deferrable=True, post_execute=lambda *_: None),
    "a post_execute method": lambda list_id: Announcing(task_id="wait", list_id=list_id, deferrable=True),
}


@pytest.mark.parametrize("why", WORKERS)
def test_what_only_a_worker_can_do_gets_a_worker(why: str, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    run = Run(WORKERS[why](list_id), between=end_all(slow_sandbox))
    assert run() is None
    assert len(run.triggers) == 1
    assert not run.ended_in_triggerer


# --- failure


@MODES
def test_failed_already(deferrable: bool, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    first, second = bought(slow_sandbox, 2)
    slow_sandbox.fail(second)
    with pytest.raises(exceptions.ListFailedError, match=second) as caught:
        Run(sensor([first, second], deferrable=deferrable))()
    assert isinstance(caught.value, AirflowFailException)


@MODES
def test_fails_meanwhile(deferrable: bool, slow_sandbox: Sandbox, connect: Connect, sleeps: list[Any]):
    """The first failure ends the wait, whatever becomes of the other list."""
    connect(slow_sandbox)
    first, second = bought(slow_sandbox, 2)
    sleeps += [lambda: slow_sandbox.fail(second)]
    with pytest.raises(exceptions.ListFailedError, match=second):
        Run(sensor([first, second], deferrable=deferrable), between=lambda _: slow_sandbox.fail(second))()


@MODES
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_look_ends_the_wait(
    deferrable: bool, status: int, slow_sandbox: Sandbox, connect: Connect, sleeps: list[Any]
):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)

    def refuse(_: Any = None) -> None:
        slow_sandbox.fault("status", endpoint="list", times=None, status=status, request_id="req_refused")

    sleeps.append(refuse)
    with pytest.raises(AirflowFailException, match="req_refused") as caught:
        Run(sensor(list_id, deferrable=deferrable), between=refuse)()
    assert isinstance(caught.value, exceptions.MachFivePermanentError)
    assert caught.value.status_code == status


@MODES
def test_trouble_heals(deferrable: bool, slow_sandbox: Sandbox, connect: Connect, sleeps: list[Any]):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    slow_sandbox.fault("status", endpoint="list", times=7, status=500, headers={"Retry-After": "0"})
    sleeps += [lambda: None] * 6 + [lambda: slow_sandbox.complete(list_id)]

    Run(sensor(list_id, deferrable=deferrable), between=lambda _: slow_sandbox.complete(list_id), after=3600)()
    assert slow_sandbox.unused_faults == []


# --- timeout


def timed_out(list_id: str, deferrable: bool, slow_sandbox: Sandbox, **arguments: Any) -> Any:
    """Let a sensor run into its timeout."""
    # The first look is in time; the last, some milliseconds later, is not.
    return Run(sensor(list_id, deferrable=deferrable, timeout=0.2, **arguments))()


@MODES
def test_timeout(deferrable: bool, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    with pytest.raises(exceptions.SensorTimeoutError, match=list_id) as caught:
        timed_out(list_id, deferrable, slow_sandbox)
    assert isinstance(caught.value, AirflowSensorTimeout)
    assert "Clear the task to wait on" in str(caught.value)
    assert not caught.value.retryable


@MODES
def test_soft_fail_on_timeout(deferrable: bool, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    with pytest.raises(AirflowSkipException):
        timed_out(list_id, deferrable, slow_sandbox, soft_fail=True)


@MODES
@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("ending", ["failed", "refused"])
def test_soft_fail_and_never_fail(deferrable: bool, option: str, ending: str, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)

    def end(_: Any = None) -> None:
        if ending == "failed":
            slow_sandbox.fail(list_id)
        else:
            slow_sandbox.fault("status", endpoint="list", times=None, status=403)

    if not deferrable:
        end()
    with pytest.raises(AirflowSkipException):
        Run(sensor(list_id, deferrable=deferrable, **{option: True}), between=end)()


@pytest.mark.parametrize(("option", "skips"), [("soft_fail", False), ("never_fail", True), (None, False)])
def test_what_time_may_heal_is_skipped_by_never_fail_alone(
    option: str | None, skips: bool, sandbox: Sandbox, connect: Connect
):
    """As in worker mode, where Airflow's soft_fail does not catch it either."""
    connect(sandbox)
    event = {"status": "error", "error": {"class": "PollingError", "message": "gave up"}}
    operator = sensor(UNKNOWN_ID, deferrable=True, **({option: True} if option else {}))
    with pytest.raises(AirflowSkipException if skips else exceptions.PollingError, match="gave up"):
        operator.resume(task_context(operator), event)


# --- resuming


@pytest.mark.parametrize("event", [None, {}, {"status": "done"}, {"status": "room"}, {"status": "error"}, "failed", 1])
def test_an_unknown_event_is_no_success(event: Any):
    operator = sensor(UNKNOWN_ID, deferrable=True)
    with pytest.raises(exceptions.PollingError, match="without a usable event"):
        operator.resume(task_context(operator), event)


def test_dag_test_resumes_with_the_state_alone():
    """Where the triggerer would have ended the task, dag.test() resumes it."""
    operator = sensor(UNKNOWN_ID, deferrable=True)
    assert operator.resume(task_context(operator), "success") is None


def test_the_deferral_outlives_our_own_deadline(slow_sandbox: Sandbox, connect: Connect):
    from airflow.providers.common.compat.sdk import TaskDeferred

    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    operator = sensor(list_id, deferrable=True, timeout=600, execution_timeout=timedelta(seconds=200))
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(task_context(operator))
    trigger = caught.value.trigger
    assert trigger.deadline - trigger.started_at == pytest.approx(190)
    assert timedelta(seconds=190) < caught.value.timeout < timedelta(seconds=600)


def test_on_kill(logs: Logs):
    sensor(UNKNOWN_ID).on_kill()
    assert "MachFive goes on with the lists" in logs.text


def test_template_fields():
    operator = sensor(["{{ params.a }}", "{{ params.b }}"])
    operator.render_template_fields({"params": {"a": "1", "b": "2"}})
    assert operator.list_id == ["1", "2"]


def test_never_fail_skips_on_airflows_own_timeout(slow_sandbox: Sandbox, connect: Connect):
    """timeout=0 ends after the first look, before our own deadline is asked a second time."""
    connect(slow_sandbox)
    (list_id,) = bought(slow_sandbox)
    with pytest.raises(AirflowSkipException):
        Run(sensor(list_id, deferrable=False, never_fail=True, timeout=0))()

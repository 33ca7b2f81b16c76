"""start_from_trigger: what is refused while the DAG is parsed, and what the trigger makes of the rest."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator
from airflow.sdk import DAG, Asset, task_group
from airflow.triggers.base import TaskSuccessEvent
from packaging.version import Version

from machfive_provider import exceptions
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from machfive_provider.sensors.lead_list import MachFiveListSensor
from machfive_provider.triggers.lead_list import MachFiveListStartTrigger
from machfive_provider.waiting.deferral import DEFERRAL_MARGIN
from tests.tasks import UNKNOWN_ID, Logs, assert_plain, events_of, leaks, task_context

Connect = Callable[..., None]
CAN = Version(airflow.__version__).release >= (3, 3)
only_where_it_can = pytest.mark.skipif(not CAN, reason="Airflow renders templates in the triggerer from 3.3 on")
OTHER_ID = UNKNOWN_ID[:-1] + "7"
WORKER_WARNING = "start_from_trigger has no effect"


def sensor(list_id: Any = UNKNOWN_ID, **arguments: Any) -> MachFiveListSensor:
    return MachFiveListSensor(task_id="wait", list_id=list_id, start_from_trigger=True, **arguments)


class Submitting(BaseOperator):
    """Something upstream."""

    def execute(self, context: Any) -> str:
        return UNKNOWN_ID


# --- refused while the DAG is parsed


@only_where_it_can
@pytest.mark.parametrize("parameter", ["list_id", "machfive_conn_id", "one of several"])
@pytest.mark.parametrize("kind", ["an XComArg", "an xcom_pull without map_indexes"])
def test_what_is_known_to_hang_is_refused_with_what_to_write(parameter: str, kind: str):
    with DAG("crm", schedule=None):
        output = Submitting(task_id="submit").output
        value = output if kind == "an XComArg" else "{{ ti.xcom_pull('submit') }}"
        arguments = {"list_id": [UNKNOWN_ID, value]} if parameter == "one of several" else {parameter: value}
        with pytest.raises(exceptions.ConfigurationError, match=kind) as caught:
            sensor(**arguments)
    for part in ("{{ ti.xcom_pull(task_ids='…', map_indexes=-1) }}", "deferrable=True", "task 'wait'"):
        assert part in str(caught.value)


@pytest.mark.skipif(CAN, reason="this Airflow can")
def test_an_older_airflow_is_refused():
    with pytest.raises(exceptions.ConfigurationError, match=r"Airflow 3\.3 or later, and this is 3\."):
        sensor()


# --- accepted


@only_where_it_can
@pytest.mark.parametrize(
    "list_id",
    [
        UNKNOWN_ID,
        (UNKNOWN_ID, OTHER_ID),
        "{{ params.list_id }}",
        "{{ ti.xcom_pull(task_ids='submit', map_indexes=-1) }}",
        ["{{ ti.xcom_pull('submit', map_indexes=2) }}", UNKNOWN_ID],
        "{{ latest_list() }}",  # what else a user writes is the user's
    ],
    ids=str,
)
def test_what_else_there_is_starts_in_the_triggerer(list_id: Any):
    operator = sensor(list_id, machfive_conn_id="machfive_{{ params.team }}", deferrable=False)
    assert (operator.start_from_trigger, operator.deferrable) == (True, True)
    kwargs = operator.start_trigger_args.trigger_kwargs
    assert kwargs["machfive_conn_id"] == "machfive_{{ params.team }}"
    assert kwargs["ends_task"] is True
    for value in kwargs.values():
        assert_plain(value)


@only_where_it_can
@pytest.mark.parametrize(
    "needs_it",
    [{"outlets": [Asset("s3://bucket/emails")]}, {"post_execute": print}, {"on_success_callback": print}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_what_a_worker_does_at_the_end_is_resumed_for(needs_it: dict[str, Any]):
    assert sensor(**needs_it).start_trigger_args.trigger_kwargs["ends_task"] is False


def test_nothing_is_asked_for_by_default():
    operator = MachFiveListSensor(task_id="wait", list_id="{{ ti.xcom_pull('submit') }}")
    assert (operator.start_from_trigger, operator.start_trigger_args, operator.deferrable) == (False, None, False)


# --- mapped: by way of a worker, whatever the Airflow


ASKED = {"task_id": "wait", "start_from_trigger": True}
MAPPED: dict[str, Callable[[], Any]] = {
    "plainly": lambda: MachFiveListSensor.partial(**ASKED).expand(list_id=[UNKNOWN_ID]),
    "over an XComArg": lambda: MachFiveListSensor.partial(**ASKED).expand(list_id=Submitting(task_id="submit").output),
    "over the parameter itself": lambda: MachFiveListSensor.partial(task_id="wait", list_id=UNKNOWN_ID).expand(
        start_from_trigger=[True]
    ),
    "by default_args": lambda: MachFiveListSensor.partial(
        task_id="wait", default_args={"start_from_trigger": True}
    ).expand(list_id=[UNKNOWN_ID]),
}


@pytest.mark.parametrize("make", MAPPED)
def test_a_mapped_task_goes_by_way_of_a_worker(make: str):
    """What the scheduler and the triggerer look at says no: both would take the class's arguments."""
    with DAG("crm", schedule=None):
        mapped = MAPPED[make]()
    assert not mapped.start_from_trigger
    assert mapped.start_trigger_args is None
    assert serialised(mapped.dag)["start_from_trigger"] in (None, False)
    assert MachFiveListSensor.start_from_trigger is False
    assert MachFiveListSensor.start_trigger_args is None


@pytest.mark.parametrize("make", ["plainly", "over the parameter itself"])
def test_a_mapped_task_says_so_in_its_log(make: str, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    list_id = bought(sandbox)
    with DAG("crm", schedule=None):
        mapped = MAPPED[make]()
    operator = mapped.unmap({"list_id": list_id} if make == "plainly" else {"start_from_trigger": True})
    operator.list_id = list_id
    assert (operator.start_from_trigger, operator.deferrable) == (False, True)
    operator.execute(task_context(operator))
    assert WORKER_WARNING in logs.text


def test_a_mapped_task_that_did_not_ask_says_nothing(sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    list_id = bought(sandbox)
    with DAG("crm", schedule=None):
        mapped = MachFiveListSensor.partial(task_id="wait", start_from_trigger=False).expand(list_id=[list_id])
    operator = mapped.unmap({"list_id": list_id})
    assert operator.deferrable is False
    operator.execute(task_context(operator))
    assert WORKER_WARNING not in logs.text


def test_a_task_in_a_mapped_group_goes_by_way_of_a_worker(sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    made: list[MachFiveListSensor] = []

    @task_group
    def shard(list_id: Any) -> None:
        made.append(sensor(list_id))

    with DAG("crm", schedule=None):
        shard.expand(list_id=[UNKNOWN_ID])
    (operator,) = made
    assert (operator.start_from_trigger, operator.start_trigger_args, operator.deferrable) == (False, None, True)
    operator.list_id = bought(sandbox)
    operator.execute(task_context(operator))
    assert WORKER_WARNING in logs.text


# --- the DAG as Airflow keeps it


def serialised(dag: Any, task_id: str = "wait") -> dict[str, Any]:
    """Return what Airflow keeps of a task."""
    from airflow.serialization import serialized_objects

    kept = getattr(serialized_objects, "DagSerialization", serialized_objects.SerializedDAG).to_dict(dag)
    tasks = [each["__var"] for each in json.loads(json.dumps(kept))["dag"]["tasks"]]
    (found,) = [each for each in tasks if each["task_id"] == task_id]
    return {"start_from_trigger": None, **found}


@only_where_it_can
def test_parsing_again_makes_no_new_version_of_the_dag(monkeypatch: pytest.MonkeyPatch):
    def parse() -> dict[str, Any]:
        with DAG("crm", schedule=None) as dag:
            sensor("{{ params.list_id }}", timeout=600)
        return serialised(dag)

    first, later = parse(), time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert parse() == first
    assert first["start_from_trigger"] is True
    assert first["start_trigger_args"]["timeout"] == 600 + DEFERRAL_MARGIN


# --- the trigger, made as Airflow makes it


def bought(sandbox: Sandbox) -> str:
    with MachFiveHook() as hook:
        return hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com")]).list_id


def triggered(operator: MachFiveListSensor, context: Any = None, began: float | None = None) -> Any:
    """Take the way of a task through Airflow: serialised, made in the triggerer, rendered there.

    :param began: epoch seconds at which the scheduler deferred the task, now if None
    """
    from airflow.serialization.decoders import smart_decode_trigger_kwargs

    dag = operator.dag if operator.has_dag() else DAG("crm", schedule=None)
    if not operator.has_dag():
        dag.add_task(operator)
    kept = serialised(dag, operator.task_id)["start_trigger_args"]
    assert kept["trigger_cls"] == "machfive_provider.triggers.lead_list.MachFiveListStartTrigger"
    assert hasattr(operator, kept["next_method"])
    trigger = MachFiveListStartTrigger(**smart_decode_trigger_kwargs(kept["trigger_kwargs"]))
    limit = operator.execution_timeout.total_seconds() if operator.execution_timeout else kept["timeout"]
    end = (time.time() if began is None else began) + min(limit, kept["timeout"])
    trigger.timeout_after = datetime.fromtimestamp(end, UTC)
    trigger.poll_interval = 0.01
    trigger.task_instance = SimpleNamespace(task=operator, task_id=operator.task_id)
    trigger.render_template_fields(context or {})
    return trigger


def ended(trigger: Any) -> Any:
    """Run a trigger and return its one event."""
    (event,) = asyncio.run(events_of(trigger))
    return event


def resume(operator: MachFiveListSensor, event: Any) -> None:
    operator.resume(task_context(operator), json.loads(json.dumps(event.payload)))


@only_where_it_can
def test_a_success_needs_no_worker(sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    first, second = bought(sandbox), bought(sandbox)
    operator = sensor([first, "{{ params.list_id }}"], machfive_conn_id="machfive_{{ params.team }}")
    trigger = triggered(operator, {"params": {"list_id": second, "team": "default"}})
    event = ended(trigger)
    assert isinstance(event, TaskSuccessEvent)
    assert trigger.list_ids == [first, second]
    assert f"List {second} has completed" in logs.text
    _, kwargs = trigger.serialize()
    assert leaks([sandbox.api_key, "a@example.com"], json.dumps(kwargs)) == []


@only_where_it_can
def test_with_outlets_it_resumes_on_a_worker(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    operator = sensor(bought(sandbox), outlets=[Asset("s3://bucket/emails")])
    event = ended(triggered(operator))
    assert not isinstance(event, TaskSuccessEvent)
    resume(operator, event)


@only_where_it_can
def test_a_failed_list_is_raised_on_a_worker(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    list_id = bought(slow_sandbox)
    slow_sandbox.fail(list_id)
    operator = sensor(list_id)
    with pytest.raises(exceptions.ListFailedError, match=list_id):
        resume(operator, ended(triggered(operator)))


@only_where_it_can
@pytest.mark.parametrize(
    ("list_id", "says"),
    [
        ("{{ run_id }}", "no UUID"),
        ("{{ params.nothing }}", "empty"),
        ([UNKNOWN_ID, "{{ params.nothing }}"], "empty"),
        ("", "empty"),
        ([], "one or several|id or several"),
        ("{{ params.several }}", "text of a list"),
    ],
)
def test_ids_that_are_none_fail_for_good(list_id: Any, says: str, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    operator = sensor(list_id)
    context = {"run_id": "manual__1", "params": {"several": [UNKNOWN_ID, OTHER_ID]}}
    with pytest.raises(exceptions.ConfigurationError, match=says):
        resume(operator, ended(triggered(operator, context)))
    assert sandbox.requests_to("list") == []
    skipping = sensor(list_id, soft_fail=True)
    with pytest.raises(AirflowSkipException):
        resume(skipping, ended(triggered(skipping, context)))


@only_where_it_can
def test_a_move_to_another_triggerer_does_not_set_the_clock_back(slow_sandbox: Sandbox, connect: Connect):
    """The deferral's end is what the new triggerer is told, and it stays the same."""
    connect(slow_sandbox)
    operator = sensor(bought(slow_sandbox), timeout=600)
    trigger = triggered(operator, began=time.time() - 900)
    with pytest.raises(exceptions.SensorTimeoutError, match="still processing after 15 min"):
        resume(operator, ended(trigger))
    assert trigger.deadline - trigger.started_at == 600


@only_where_it_can
@pytest.mark.parametrize(("seconds", "wait"), [(200, 190), (60, 57), (7200, 600)])
def test_the_nearer_execution_timeout_rules(seconds: int, wait: float, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    began = time.time() - 10
    operator = sensor(bought(sandbox), timeout=600, execution_timeout=timedelta(seconds=seconds))
    trigger = triggered(operator, began=began)
    ended(trigger)
    assert trigger.started_at == pytest.approx(began, abs=0.01)
    assert trigger.deadline == pytest.approx(began + wait, abs=0.01)


@pytest.mark.parametrize("end", ["aware", "naive", None])
def test_the_start_is_found_from_the_deferrals_end(end: str | None, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    trigger = MachFiveListStartTrigger(bought(sandbox), "machfive_default", 1, 60, 360, ends_task=True)
    now = datetime.now(UTC)
    trigger.timeout_after = {"aware": now, "naive": now.replace(tzinfo=None), None: None}[end]
    assert isinstance(ended(trigger), TaskSuccessEvent)
    expected = now.timestamp() - 360 if end else time.time()
    assert trigger.started_at == pytest.approx(expected, abs=10)
    path, kwargs = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__qualname__}"
    assert MachFiveListStartTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


@only_where_it_can
def test_executed_all_the_same_it_waits_as_usual(sandbox: Sandbox, connect: Connect):
    """dag.test() and `airflow tasks test` know no start in the triggerer."""
    connect(sandbox)
    operator = sensor(bought(sandbox))
    assert operator.execute(task_context(operator)) is None

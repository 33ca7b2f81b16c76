"""The metrics and spans of tasks, on the worker and in the triggerer, and that none of them fails a task."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, Stats
from opentelemetry import trace

from machfive_provider import exceptions, telemetry
from machfive_provider.api import protocol
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.operators.generate import MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.sensors.lead_list import MachFiveListSensor
from tests.clock import Clock
from tests.tasks import LEADS, PERSONAL, UNKNOWN_ID, Run, batch, leaks
from tests.telemetry.conftest import Metrics, Spans

Connect = Callable[..., None]


def finish(sandbox: Sandbox, how: str = "complete") -> Callable[[Any], None]:
    """Return what ends the lists that a trigger waits for."""
    return lambda trigger: [getattr(sandbox, how)(each) for each in trigger.list_ids]


def test_a_batch_on_a_worker(sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans, tmp_path: Path):
    connect(sandbox)
    Run(batch(sandbox, deferrable=False, export_to=str(tmp_path / "emails.jsonl")))()
    assert metrics.counts == {
        "machfive.requests": 5,
        "machfive.requests.list_lists.200": 1,
        "machfive.requests.generate_batch.202": 1,
        "machfive.requests.get_list.200": 2,
        "machfive.requests.export_list.200": 1,
        "machfive.batches.bought": 1,
        "machfive.credits": 3,
        "machfive.leads.delivered": 3,
    }
    (waited,) = metrics.seconds
    assert waited[0] == "machfive.wait.completion"
    by_endpoint = {each["endpoint"]: each["status"] for each in metrics.tags["machfive.requests"]}
    assert by_endpoint == {"list_lists": "200", "generate_batch": "202", "get_list": "200", "export_list": "200"}
    assert {each["conn_id"] for tags in metrics.tags.values() for each in tags} == {"machfive_default"}

    assert spans.names == ["purchase", "wait", "delivery"]
    purchase, wait, delivery = (dict(each.attributes or {}) for each in spans.all)
    list_id = sandbox.purchases[0].list_id
    assert purchase == {
        "machfive.conn_id": "machfive_default",
        "machfive.campaign_id": sandbox.campaign_id,
        "machfive.list_id": list_id,
        "machfive.generation": 1,
        "machfive.bought": True,
        "machfive.leads_submitted": 3,
        "machfive.credits": 3,
    }
    assert wait == {"machfive.conn_id": "machfive_default", "machfive.waited_for": "completion"}
    assert delivery == {"machfive.conn_id": "machfive_default", "machfive.list_id": list_id}


def test_a_wait_in_the_triggerer(slow_sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans, clock: Clock):
    connect(slow_sandbox)
    run = Run(batch(slow_sandbox, deferrable=True, poll_interval=20), between=finish(slow_sandbox), after=300)
    run()
    assert 300 / 20 <= metrics.counts["machfive.requests.get_list.200"] < 20
    ((name, seconds),) = metrics.seconds
    assert name == "machfive.wait.completion"
    assert 300 <= seconds < 330
    assert spans.names == ["purchase", "wait", "delivery"]
    wait = spans.all[1]
    assert 300e9 <= (wait.end_time or 0) - (wait.start_time or 0) < 330e9


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_a_sensor(
    deferrable: bool, slow_sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans, clock: Clock
):
    """A sensor that ends in the triggerer comes to no worker that could tell of its wait."""
    connect(slow_sandbox)
    if not deferrable:
        slow_sandbox.fault("end_when_polled", endpoint="generate-batch")
    Run(batch(slow_sandbox, wait_for_completion=False))()
    list_id = slow_sandbox.purchases[0].list_id
    sensor = MachFiveListSensor(task_id="wait", list_id=list_id, deferrable=deferrable)
    Run(sensor, between=finish(slow_sandbox))()
    assert [name for name, _ in metrics.seconds] == ["machfive.wait.completion"]
    assert spans.names == ["purchase", "wait"]


def test_an_adopted_batch_costs_no_credits(sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans):
    connect(sandbox)
    for try_number in (1, 2):
        Run(batch(sandbox, wait_for_completion=False), try_number=try_number)()
    assert metrics.ours() == {"machfive.batches.bought": 1, "machfive.credits": 3, "machfive.batches.adopted": 1}
    assert [each.attributes and each.attributes["machfive.bought"] for each in spans.all] == [True, False]


def test_a_task_that_is_skipped_buys_nothing(sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans):
    connect(sandbox)
    with pytest.raises(AirflowSkipException):
        Run(batch(sandbox, suppress=[lead["email"] for lead in LEADS]))()
    assert metrics.ours() == {}
    assert spans.all == []


def test_a_failed_batch(slow_sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans):
    connect(slow_sandbox)
    with pytest.raises(exceptions.BatchFailedError):
        Run(batch(slow_sandbox, deferrable=True), between=finish(slow_sandbox, "fail"))()
    assert metrics.ours() == {"machfive.batches.bought": 1, "machfive.credits": 3, "machfive.batches.failed": 1}
    delivery = spans.all[-1]
    assert (delivery.name, delivery.status.status_code) == ("machfive.delivery", trace.StatusCode.ERROR)
    assert dict(delivery.attributes or {})["error.type"] == "BatchFailedError"


def test_missing_leads(sandbox: Sandbox, connect: Connect, metrics: Metrics, tmp_path: Path):
    connect(sandbox)
    sandbox.fault("lose_leads", count=2)
    with pytest.raises(exceptions.IncompleteExportError):
        Run(batch(sandbox, export_to=str(tmp_path / "emails.csv")))()
    assert metrics.counts["machfive.leads.delivered"] == 1
    assert metrics.counts["machfive.leads.missing"] == 2


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_a_single_lead(deferrable: bool, sandbox: Sandbox, connect: Connect, metrics: Metrics):
    connect(sandbox)
    task = MachFiveGenerateOperator(
        task_id="write", lead=LEADS[0], campaign_id=sandbox.campaign_id, deferrable=deferrable
    )
    Run(task)()
    assert metrics.ours() == {"machfive.batches.bought": 1, "machfive.credits": 1, "machfive.leads.delivered": 1}


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_a_wait_for_capacity(
    deferrable: bool, timed_sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans, clock: Clock
):
    connect(timed_sandbox)
    asks_for = {"Retry-After": "33"}
    timed_sandbox.fault("status", endpoint="generate-batch", status=429, code="WORKSPACE_LIMIT", headers=asks_for)
    Run(batch(timed_sandbox, deferrable=deferrable, wait_for_completion=False))()
    assert metrics.counts["machfive.requests.generate_batch.429"] == 1
    ((name, seconds),) = metrics.seconds
    assert name == "machfive.wait.capacity"
    assert 33 <= seconds < 120
    assert spans.names == ["wait", "purchase"]
    assert dict(spans.all[0].attributes or {})["machfive.waited_for"] == "capacity"


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_what_a_backend_raises_fails_no_task(
    deferrable: bool, slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    connect(slow_sandbox)
    slow_sandbox.fault("end_when_polled", times=None)
    asked = []

    def broken(*arguments: Any, **_: Any) -> None:
        asked.append(arguments[0])
        raise OSError("the backend is gone")

    monkeypatch.setattr(time, "sleep", lambda _: None)
    for each in ("incr", "timing"):
        monkeypatch.setattr(Stats, each, broken)
    monkeypatch.setattr(trace, "get_tracer", broken)
    path = tmp_path / "emails.jsonl"
    Run(batch(slow_sandbox, deferrable=deferrable, export_to=str(path)), between=finish(slow_sandbox))()
    assert len(path.read_text().splitlines()) == 3
    assert {"machfive.requests", "machfive.wait.completion", "machfive_provider"} <= set(asked)


def test_no_key_and_no_lead_is_sent(
    slow_sandbox: Sandbox, connect: Connect, metrics: Metrics, spans: Spans, tmp_path: Path
):
    """The name that the user gives the list is left out too: it may be a person's."""
    connect(slow_sandbox)
    slow_sandbox.fault("lose_leads")
    task = batch(
        slow_sandbox,
        deferrable=True,
        list_name="For Dana Reyes",
        export_to=str(tmp_path / "dana.reyes.csv"),
        on_missing_leads="warn",
    )
    Run(task, between=finish(slow_sandbox))()
    slow_sandbox.fault("status", status=401, endpoint="generate-batch", message="dana.reyes@example.com is refused")
    with pytest.raises(exceptions.UnauthorizedError):
        Run(batch(slow_sandbox, on_existing_list="resubmit"), run_id="manual__2")()
    sent = [metrics.counts, metrics.tags, *(each.to_json() for each in spans.all)]
    assert len(spans.all) == 4
    assert leaks([slow_sandbox.api_key, *PERSONAL], *sent) == []


def test_requests_that_are_sent_again(sandbox: Sandbox, connect: Connect, metrics: Metrics, clock: Clock):
    connect(sandbox)
    sandbox.fault("status", endpoint="campaigns", status=503, times=2)
    with MachFiveHook() as hook:
        hook.list_campaigns()
    assert metrics.counts == {
        "machfive.requests": 3,
        "machfive.requests.list_campaigns.503": 2,
        "machfive.requests.list_campaigns.200": 1,
        "machfive.retries": 2,
    }
    assert metrics.tags["machfive.retries"][0] == {"conn_id": "machfive_default", "endpoint": "list_campaigns"}


def test_names_without_tags_can_be_switched_off(
    sandbox: Sandbox, connect: Connect, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
):
    """Airflow's own switch, for backends that take tags."""
    connect(sandbox)
    monkeypatch.setenv("AIRFLOW__METRICS__LEGACY_NAMES_ON", "False")
    with MachFiveHook() as hook:
        hook.list_campaigns()
    assert metrics.counts == {"machfive.requests": 1}


def test_every_endpoint_has_a_name():
    requests = [
        protocol.list_campaigns().request,
        protocol.list_lists().request,
        protocol.list_statuses("pending").request,
        protocol.get_list(UNKNOWN_ID).request,
        protocol.export(UNKNOWN_ID),
        protocol.generate(UNKNOWN_ID, Lead("a@example.com")).request,
        protocol.generate_batch(UNKNOWN_ID, [Lead("a@example.com")]).request,
    ]
    assert {each.endpoint for each in requests} == set(telemetry.ENDPOINTS)

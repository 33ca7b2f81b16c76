"""Metrics and spans from a triggerer and from workers that are processes of their own."""

from __future__ import annotations

from typing import Any

import airflow
import pytest
from packaging.version import Version

from scripts.airflow_api import FINISHED
from scripts.live_airflow import LiveAirflow
from tests.jobs.conftest import TELEMETRY_DAG
from tests.telemetry.receivers import Collector, StatsdServer

pytestmark = pytest.mark.live
TIMEOUT = 150.0


@pytest.fixture(scope="module")
def finished(live: LiveAirflow) -> None:
    run_id = live.trigger(TELEMETRY_DAG)
    run = live.wait_until(TELEMETRY_DAG, run_id, lambda run: run.state in FINISHED, timeout=TIMEOUT)
    assert run.state == "success"


def test_metrics_with_tags(finished: None, live: LiveAirflow, statsd: StatsdServer):
    """The sensor comes to no worker after its wait: its timer is the triggerer's."""

    def values(metric: str) -> list[str]:
        prefix = f"airflow.machfive.{metric},conn_id=machfive_telemetry"
        return [line.removeprefix(prefix) for line in statsd.lines if line.startswith((f"{prefix}:", f"{prefix},"))]

    live.wait_for("two waits", lambda: len(values("wait.completion")) == 2, timeout=30)
    assert values("batches.bought") == [":1|c"] * 2
    assert values("credits") == [":1|c"] * 2
    assert ",endpoint=generate_batch,status=202:1|c" in values("requests")
    assert values("requests.generate_batch.202") == [":1|c"] * 2
    seconds = [float(each.strip(":").removesuffix("|ms")) / 1000 for each in values("wait.completion")]
    assert all(each > 0 for each in seconds)


@pytest.mark.skipif(
    Version(airflow.__version__).release < (3, 2), reason="Airflow 3.1 sets up no tracer provider for tasks"
)
def test_spans(finished: None, live: LiveAirflow, traces: Collector):
    def ours() -> list[tuple[str, str | None]]:
        parents = {each.span_id: each.name for each in traces.spans}
        return [(each.name, parents.get(each.parent_span_id)) for each in traces.ours() if is_of_this_dag(each)]

    expected = [
        ("machfive.delivery", "worker.write"),
        ("machfive.purchase", "worker.submit"),
        ("machfive.purchase", "worker.write"),
        ("machfive.wait", "trigger.wait"),
        ("machfive.wait", "trigger.write"),
    ]
    live.wait_for(
        "all spans and their parents", lambda: sorted(map(str, ours())) == sorted(map(str, expected)), timeout=60
    )


def is_of_this_dag(span: Any) -> bool:
    return any(
        each.key == "machfive.conn_id" and each.value.string_value == "machfive_telemetry" for each in span.attributes
    )

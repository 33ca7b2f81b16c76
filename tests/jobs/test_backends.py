"""What a statsd server, an OpenTelemetry collector and OpenLineage's file transport get from real runs of tasks.

The runs are those of ``dag.test()``, in a process of its own, because Airflow reads its settings once. The same from a
triggerer and workers in processes of their own: test_telemetry.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import airflow
import pytest
from packaging.version import Version

from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.tasks import LEADS, PERSONAL, leaks
from tests.telemetry.receivers import Collector, StatsdServer, collector, statsd_server

DAGS = '''
"""One batch that waits in the triggerer and one on a worker."""

import os

import pendulum
from airflow.sdk import DAG

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

with DAG("campaigns", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
    common = {"campaign_name": os.environ["MACHFIVE_CAMPAIGN"], "poll_interval": 1}
    deferred = MachFiveGenerateBatchOperator(
        task_id="deferred", leads_path="people.csv", export_to="emails.jsonl", deferrable=True, **common
    )
    bought = MachFiveGenerateBatchOperator(
        task_id="bought", leads=[{"email": "dana.reyes@example.com", "name": "Dana Reyes"}], deferrable=False, **common
    )
    deferred >> bought
    MachFiveExportListOperator(task_id="exported", list_id=bought.output, export_to="one.csv", deferrable=False)

if __name__ == "__main__":
    run = dag.test()
    assert run.state == "success", run.state
'''
HAS_TRACES = pytest.mark.skipif(
    Version(airflow.__version__).release < (3, 2), reason="Airflow 3.1 sets up no tracer provider for tasks"
)


@dataclass(frozen=True)
class Seen:
    """What the backends got, and what they got it from."""

    statsd: StatsdServer
    collector: Collector
    events: list[dict[str, Any]]
    sandbox: Sandbox
    folder: Path

    def lineage(self, task_id: str, kind: str = "COMPLETE") -> tuple[list[str], list[str]]:
        """Return the inputs and outputs of a task's last event of that kind, each as one text."""
        event = [
            each for each in self.events if each["job"]["name"] == f"campaigns.{task_id}" and each["eventType"] == kind
        ][-1]
        inputs, outputs = (
            [f"{each['namespace']} {each['name']}" for each in event[way]] for way in ("inputs", "outputs")
        )
        return inputs, outputs


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    (folder / "dags" / "campaigns.py").write_text(DAGS)
    (folder / "people.csv").write_text("email,name\n" + "".join(f"{each['email']},{each['name']}\n" for each in LEADS))
    with Sandbox(SandboxSettings(processing_seconds=0.4)) as sandbox, statsd_server() as statsd, collector() as traces:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "OTEL"))},
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
            "AIRFLOW__TRACES__OTEL_ON": "True",
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            "NO_PROXY": "127.0.0.1",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(folder / "lineage.jsonl"), "append": True}
            ),
            "AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(
                {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
            ),
            "MACHFIVE_CAMPAIGN": sandbox.workspaces[0].campaigns[0].name,
        }
        for arguments in (["-m", "airflow", "db", "migrate"], ["dags/campaigns.py"]):
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        events = [json.loads(line) for line in (folder / "lineage.jsonl").read_text().splitlines()]
        yield Seen(statsd, traces, events, sandbox, folder)


def test_a_statsd_server_gets_the_metrics(seen: Seen):
    metrics = seen.statsd.ours()
    expected = {
        "machfive.requests.list_campaigns.200": 2,
        "machfive.requests.generate_batch.202": 2,
        "machfive.requests.export_list.200": 2,
        "machfive.batches.bought": 2,
        "machfive.credits": 4,
        "machfive.leads.delivered": 4,
        "machfive.wait.completion": 3,
    }
    assert expected.items() <= metrics.items()
    assert metrics["machfive.requests"] == len(seen.sandbox.requests)
    waits = [line for line in seen.statsd.lines if line.startswith("airflow.machfive.wait")]
    assert all(line.endswith("|ms") for line in waits)


@HAS_TRACES
def test_a_collector_gets_the_spans(seen: Seen):
    parents = {each.span_id: each.name for each in seen.collector.spans}
    ours = [(each.name, parents.get(each.parent_span_id)) for each in seen.collector.ours()]
    assert [name for name, _ in ours] == [
        *("machfive.purchase", "machfive.wait", "machfive.delivery") * 2,
        *("machfive.wait", "machfive.delivery"),
    ]


def test_openlineage_gets_campaigns_lists_and_files(seen: Seen):
    machfive = f"machfive://{seen.sandbox.base_url.removeprefix('http://')}"
    campaign = f"{machfive} campaign/{seen.sandbox.campaign_id}"
    first, second = (f"{machfive} list/{each.list_id}" for each in seen.sandbox.purchases)
    people, emails, one = (f"file {seen.folder / name}" for name in ("people.csv", "emails.jsonl", "one.csv"))
    assert seen.lineage("deferred", "START") == ([people], [emails])
    assert seen.lineage("deferred") == ([people, campaign], [first, emails])
    assert seen.lineage("bought") == ([campaign], [second])
    assert seen.lineage("exported") == ([second], [one])
    (written,) = (
        each["outputFacets"]["outputStatistics"]
        for event in seen.events
        for each in event["outputs"]
        if each["name"].endswith("emails.jsonl") and event["eventType"] == "COMPLETE"
    )
    assert (written["rowCount"], written["size"]) == (3, (seen.folder / "emails.jsonl").stat().st_size)


def test_no_backend_gets_the_key_or_a_lead(seen: Seen):
    secrets = [seen.sandbox.api_key, *PERSONAL]
    assert leaks(secrets, json.dumps(seen.events), *seen.statsd.lines, *seen.collector.raw) == []

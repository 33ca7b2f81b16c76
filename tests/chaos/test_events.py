"""Lists that end outside Airflow start DAG runs, in a real Airflow whose triggerer is killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import airflow
import pytest
from packaging.version import Version

from machfive_provider.api import protocol
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.restarting_airflow import RestartingAirflow
from tests.chaos.kills import kill_all, triggerer_processes

pytestmark = pytest.mark.live
TIMEOUT = 150.0
INTERVAL = 2
EXAMPLE = "machfive_finished_lists"
# Before 3.3 Airflow keeps nothing for a trigger: a watcher has to look back over what ended while it was down.
LOOK_BACK = 0 if Version(airflow.__version__).release >= (3, 3) else 600
DAGS = f'''
"""Runs for each list that ends, and does nothing."""

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher

from machfive_provider.triggers.list_event import MachFiveListEventTrigger

ended = Asset(
    "e2e_ended_lists",
    watchers=[
        AssetWatcher(
            name="lists", trigger=MachFiveListEventTrigger(poll_interval={INTERVAL}, look_back={LOOK_BACK})
        )
    ],
)

with DAG("e2e_events", schedule=[ended], start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
    EmptyOperator(task_id="nothing")
'''


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox whose lists end by hand."""
    with Sandbox(SandboxSettings(processing_seconds=float("inf"), concurrency=100)) as running:
        yield running


@pytest.fixture(scope="module")
def lists(sandbox: Sandbox) -> list[str]:
    """Buy twenty lists as MachFive's own app would, and one that carries the tag of a task."""
    names = ["Made in the app"] * 19 + ["The newsletter", "Leads [af1:0123456789-0123456789ab:0..012345]"]
    with closing(MachFiveClient(ClientSettings(sandbox.base_url, sandbox.api_key))) as client:
        calls = [
            protocol.generate_batch(sandbox.campaign_id, [Lead("ada@example.com")], {"list_name": name})
            for name in names
        ]
        return [client.send(call).list_id for call in calls]


@pytest.fixture(scope="module")
def live(sandbox: Sandbox, lists: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartingAirflow]:
    """Run an Airflow with a DAG of this test and the example, which polls more often and for one list only."""
    folder, results = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("results")
    (folder / "e2e_events.py").write_text(DAGS)
    example = (Path(__file__).parents[2] / "example_dags" / f"{EXAMPLE}.py").read_text()
    assert "poll_interval=60" in example
    changed = f'poll_interval={INTERVAL}, look_back={LOOK_BACK}, name="newsletter"'
    (folder / f"{EXAMPLE}.py").write_text(example.replace("poll_interval=60", changed))
    connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
    env = {
        "AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(connection),
        "MACHFIVE_RESULTS": str(results),
        # The assets of a paused DAG are not watched, and its file is parsed once a minute.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        # Seconds without a heartbeat after which another triggerer takes over.
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
    }
    airflow = RestartingAirflow(tmp_path_factory.mktemp("airflow"), folder, wanted=("e2e_events", EXAMPLE), env=env)
    with airflow:
        yield airflow


def told(live: RestartingAirflow, dag_id: str = "e2e_events") -> dict[str, dict[str, Any]]:
    """Return the payloads in some run's triggering events, by list."""
    payloads = [event["extra"]["payload"] for event in live.triggering_events(dag_id)]
    return {each["list_id"]: each for each in payloads}


def test_every_list_that_ends_starts_a_run_although_the_triggerer_is_killed(
    live: RestartingAirflow, sandbox: Sandbox, lists: list[str]
) -> None:
    *foreign, ours = lists
    sandbox.wait_for_requests("lists", 6, TIMEOUT)
    sandbox.complete(ours)
    for each in foreign[:5]:
        sandbox.complete(each)
    live.wait_for("run for the first lists", lambda: set(foreign[:5]) <= told(live).keys(), timeout=TIMEOUT)

    # Killed while it asks how a list has ended: Airflow knows nothing of these lists yet.
    for each in foreign[5:10]:
        sandbox.fail(each)
    sandbox.wait_until(lambda: any(foreign[5] in each.path for each in sandbox.requests), TIMEOUT)
    assert kill_all(triggerer_processes(live))
    for each in foreign[10:15]:
        sandbox.complete(each)
    live.wait_for("run for the lists of the outage", lambda: set(foreign[:15]) <= told(live).keys(), timeout=TIMEOUT)

    for each in foreign[15:]:
        sandbox.complete(each)
    live.wait_for("run for the last lists", lambda: set(foreign) <= told(live).keys(), timeout=TIMEOUT)

    assert told(live).keys() == set(foreign)
    assert told(live)[foreign[5]]["status"] == "failed"
    assert told(live)[foreign[19]]["leads_count"] == 1


def test_the_example_exports_what_has_completed(live: RestartingAirflow, sandbox: Sandbox, lists: list[str]) -> None:
    live.wait_for("asset event of an export", lambda: bool(live.asset_events(EXAMPLE)), timeout=TIMEOUT)
    newsletter = lists[19]
    assert told(live, EXAMPLE).keys() == {newsletter}
    extra = live.asset_events(EXAMPLE)[0]["extra"]
    written = Path(extra["path"].removeprefix("file://"))
    assert (extra["list_id"], extra["leads"], extra["emails"], extra["missing"]) == (newsletter, 1, 3, 0)
    assert json.loads(written.read_text(encoding="utf-8"))["email"] == "ada@example.com"

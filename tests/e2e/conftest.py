"""One sandbox and one real Airflow for all end-to-end tests; starting them is most of what they cost."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from machfive_provider.api import protocol
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.database_servers import postgres_engine
from tests.e2e.pictures import Photographer, chromium

ROOT = Path(__file__).parents[2]
DAG_IDS = (
    "machfive_batch",
    "machfive_sharded_batches",
    "machfive_single_lead",
    "machfive_wait_for_list",
    "machfive_warehouse",
    "machfive_approval",
    "machfive_drop_folder",
    "e2e_pipeline",
    "e2e_rejected",
    "e2e_approval_timeout",
    "e2e_batch_on_worker",
    "e2e_single_on_worker",
    "e2e_sensor_on_worker",
    "e2e_payment_required",
    "e2e_forbidden",
    "e2e_server_error_on_poll",
    "e2e_not_ready",
    "e2e_start_from_trigger",
)
PAGE_DAG, PAGE_CONN, SHARDS = "e2e_page_shards", "machfive_shards", 20
ODD_DAG = "e2e_page_states"
NEW_CONN = "machfive_new"  # nothing was ever made in its workspace
DEMO_CONN = "machfive_demo"  # its workspace has lists in every state
DOWN_CONN = "machfive_down"  # nothing listens there
PEOPLE = """
CREATE TABLE contacts AS
SELECT 'person' || n % 600 || '@warehouse.example.com' AS email, 'Person ' || n AS full_name, 'COO' AS job_title,
       'Reyes Logistics' AS company, n = 7 AS opted_out,
       date_trunc('day', now(), 'UTC') - interval '3 hours' AS created_at
FROM generate_series(0, 600) n
"""
USERS = {"viewer": "viewer", "user": "user"}  # beside the admin
SETTINGS = SandboxSettings(workspaces=3, processing_seconds=5, generate_seconds=2, credits=5000, concurrency=20)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def shards() -> Iterator[Sandbox]:
    """Run a sandbox that takes three batches at a time, which end by hand only."""
    with Sandbox(SandboxSettings(processing_seconds=float("inf"), concurrency=3)) as running:
        yield running


@pytest.fixture(scope="session")
def demo() -> Iterator[Sandbox]:
    """Run a sandbox with lists in every state. It loses a purchase's response and its list, and another altogether."""
    with Sandbox(SandboxSettings(demo=True, concurrency=20)) as running:
        running.fault("visible_late", "generate-batch", seconds=3600, contains="checking@")
        running.fault("reset", "generate-batch", accepted=True, contains="checking@")
        running.fault("status", "generate-batch", status=500, contains="retrying@")
        yield running


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.environ.get("MACHFIVE_SCREENSHOTS"):  # a path that may stand in a picture
        shutil.rmtree("/tmp/emails", ignore_errors=True)
        Path("/tmp/emails").mkdir()
        return Path("/tmp/emails")
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def warehouse() -> Iterator[Engine | None]:
    """Make a database of 600 people of yesterday, of whom one has opted out and one is there twice."""
    with postgres_engine() as engine:
        if engine:
            with engine.begin() as database:
                database.execute(text(PEOPLE))
        yield engine


@pytest.fixture(scope="session")
def live(
    sandbox: Sandbox,
    shards: Sandbox,
    demo: Sandbox,
    results: Path,
    warehouse: Engine | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveAirflow]:
    hosts = (
        ("DEFAULT", sandbox.base_url, sandbox.workspaces[0].api_key),
        ("SECOND", sandbox.base_url, sandbox.workspaces[1].api_key),
        ("NEW", sandbox.base_url, sandbox.workspaces[2].api_key),
        ("SHARDS", shards.base_url, shards.api_key),
        ("DEMO", demo.base_url, demo.api_key),
        ("DOWN", "http://127.0.0.1:1", demo.api_key),
    )
    connections = {
        f"AIRFLOW_CONN_MACHFIVE_{name}": json.dumps({"conn_type": "machfive", "host": host, "password": key})
        for name, host, key in hosts
    }
    if warehouse:
        fields = {"host": warehouse.url.host, "port": warehouse.url.port, "login": "airflow", "schema": "postgres"}
        connections["AIRFLOW_CONN_WAREHOUSE"] = json.dumps({"conn_type": "postgres", **fields})
    # A list that exists when the DAGs are parsed.
    with closing(MachFiveClient(ClientSettings(sandbox.base_url, sandbox.api_key))) as client:
        known = client.send(protocol.generate_batch(sandbox.campaign_id, [Lead("known@example.com")], None)).list_id
    airflow = LiveAirflow(
        tmp_path_factory.mktemp("airflow"),
        [ROOT / "example_dags", Path(__file__).parent / "dags"],
        wanted=(*DAG_IDS, PAGE_DAG, ODD_DAG),
        users=USERS,
        env=connections
        | {
            "MACHFIVE_RESULTS": str(results),
            "MACHFIVE_E2E_LIST": known,
            "AIRFLOW__MACHFIVE__UI_PREVIEW": "True",
            "AIRFLOW__MACHFIVE__UI_CONNECTIONS": f"{NEW_CONN},{DEMO_CONN},{DOWN_CONN}",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        },
    )
    with airflow:
        yield airflow


@pytest.fixture(scope="session")
def foreign_list(shards: Sandbox) -> str:
    """A list that somebody made in the MachFive app."""
    with closing(MachFiveClient(ClientSettings(shards.base_url, shards.api_key))) as client:
        options: Any = {"list_name": "Made by hand", "email_count": 2, "email_signature": "x"}
        call = protocol.generate_batch(shards.campaign_id, [Lead("by.hand@example.com")], options)
        list_id = client.send(call).list_id
    shards.complete(list_id)
    return list_id


@pytest.fixture(scope="session")
def run_id(live: LiveAirflow, shards: Sandbox, foreign_list: str) -> Iterator[str]:
    """Three shards are at MachFive, the others wait for a slot."""
    # The list that is bought first comes back without one of its leads.
    shards.fault("lose_leads", endpoint="generate-batch", times=1)
    run = live.trigger(PAGE_DAG)
    live.wait_until(
        PAGE_DAG,
        run,
        lambda now: Counter(task.state for task in now.tasks)["deferred"] == SHARDS and len(shards.purchases) == 1 + 3,
        timeout=150,
    )
    yield run
    with suppress(Exception):
        live.delete_run(PAGE_DAG, run)


@pytest.fixture(scope="session")
def odd_states(live: LiveAirflow) -> None:
    """One task searches for a list that it may have bought, one waits for its next try, one had nothing to buy."""
    run = live.trigger(ODD_DAG)
    wanted = {"checking": "deferred", "retrying": "up_for_retry", "skipped": "skipped"}
    live.wait_until(
        ODD_DAG,
        run,
        lambda now: {task.task_id: task.state for task in now.tasks} == wanted,
        timeout=120,
    )


@pytest.fixture(scope="module")  # no longer: Playwright's event loop is that of the whole process meanwhile
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def shoot(browser: Any, live: LiveAirflow, token: Callable[[str], str]) -> Photographer:
    return Photographer(browser, live, token)


@pytest.fixture(scope="session")
def token(live: LiveAirflow) -> Callable[[str], str]:
    """Log in as a user; return what Airflow keeps in the cookie."""

    def token(user: str) -> str:
        credentials = {"username": user, "password": live.home.passwords[user]}
        answer = httpx.post(f"{live.base_url}/auth/token", json=credentials, timeout=30, trust_env=False)
        return str(answer.json()["access_token"])

    return token


@pytest.fixture(scope="session")
def client(live: LiveAirflow, token: Callable[[str], str]) -> Iterator[Callable[[str | None], httpx.Client]]:
    """Return a client of the page for a user, or for nobody."""
    opened: list[httpx.Client] = []

    def client(user: str | None) -> httpx.Client:
        page = httpx.Client(base_url=f"{live.base_url}/machfive/", timeout=30, trust_env=False)
        opened.append(page)
        if user:
            page.cookies.set("_token", token(user))
        return page

    yield client
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def row_of(client: Any, run_id: str) -> Callable[[int], str]:
    return lambda index: f"{PAGE_DAG}|{run_id}|write|{index}"

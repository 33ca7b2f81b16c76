"""What the MachFive page costs with many lists, beside Airflow's own list of Dags in the same Airflow.

Usage: ``python -m tests.benchmarks.page``; takes two minutes.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit
from tests.benchmarks.running import run

__all__ = ["measure"]

LISTS, TASKS, REFRESHES, VIEWERS = 5000, 1000, 12, 10
CONN = "machfive_default"
DAG = "page_benchmark"
FIRST_PAINT, REFRESH = 1500.0, 300.0  # milliseconds

HOW = f"""
{LISTS:,} lists at MachFive's stand-in, {TASKS:,} of them bought by mapped tasks of one run whose XComs are in Airflow's
SQLite; the page shows the newest thousand. "First" is a browser's way from the request to the table on the screen, in
Chromium with an empty cache: ours alone and Airflow's page of Dags. A refresh is what the open page asks: ours every
5 s, Airflow's list of Dags, which has one Dag here, as often as it refreshes; the median of {REFRESHES} from a client
without a browser. Page reads are what a refresh asks of MachFive, with one viewer and with {VIEWERS} at once.
""".strip().replace("\n", " ")


def measure() -> Figure:
    """Start an Airflow, fill it, and look at both pages."""
    settings = SandboxSettings(processing_seconds=0, pending_seconds=0, concurrency=100_000, credits=100_000)
    with tempfile.TemporaryDirectory() as folder, Sandbox(settings) as sandbox:
        connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
        airflow = LiveAirflow(
            Path(folder) / "airflow",
            [environment.ROOT / "tests" / "benchmarks" / "page_dags"],
            wanted=[DAG],
            env={f"AIRFLOW_CONN_{CONN.upper()}": json.dumps(connection)},
        )
        lists = fill(sandbox)
        with airflow:
            run_id = airflow.trigger(DAG, {"list_id": lists[0]})
            assert airflow.wait(DAG, run_id, 120).state == "success"
            multiply(airflow.home.database, lists[1:TASKS])
            return figure(look(airflow, sandbox))


def fill(sandbox: Sandbox) -> list[str]:
    """Make the lists, the newest last."""
    from machfive_provider.api import protocol
    from machfive_provider.api.client import MachFiveClient
    from machfive_provider.api.client_settings import ClientSettings
    from machfive_provider.api.models import Lead

    with closing(MachFiveClient(ClientSettings(sandbox.base_url, sandbox.api_key))) as client:
        call = protocol.generate_batch(sandbox.campaign_id, [Lead("a@example.com")], None)
        made = [client.send(call).list_id for _ in range(LISTS)]
    return made[::-1]


def multiply(database: Path, lists: list[str]) -> None:
    """Make more mapped task instances of the one that has run, each with the XCom of another list."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        (ti,) = (dict(row) for row in connection.execute("SELECT * FROM task_instance"))
        query = "SELECT * FROM xcom WHERE key = 'machfive_batch'"
        (xcom,) = (dict(row) for row in connection.execute(query))
        for index, list_id in enumerate(lists, start=1):
            told = json.dumps({**json.loads(xcom["value"]), "list_id": list_id})
            for table, row in (
                ("task_instance", {**ti, "id": uuid.uuid4().hex, "map_index": index}),
                ("xcom", {**xcom, "map_index": index, "value": told}),
            ):
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        connection.commit()


def look(airflow: LiveAirflow, sandbox: Sandbox) -> dict[str, float]:
    """Return milliseconds and page reads."""
    token = httpx.post(
        f"{airflow.base_url}/auth/token",
        json={"username": airflow.user, "password": airflow.password},
        trust_env=False,
    ).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=airflow.base_url, headers=headers, timeout=60, trust_env=False) as client:
        found = first_views(airflow)
        reads: dict[int, list[int]] = {1: [], VIEWERS: []}
        ours, theirs = [], []
        for number in range(REFRESHES):
            viewers = (1, VIEWERS)[number % 2]
            time.sleep(5.1)
            before = len(sandbox.requests_to("lists"))
            ours.append(milliseconds(lambda: client.get("/machfive/content", params={"conn": CONN})))
            for _ in range(viewers - 1):
                client.get("/machfive/content", params={"conn": CONN})
            reads[viewers].append(len(sandbox.requests_to("lists")) - before)
            theirs.append(milliseconds(lambda: client.get("/ui/dags", params={"limit": 50})))
    return found | {
        "refresh": statistics.median(ours),
        "their refresh": statistics.median(theirs),
        "reads": max(reads[1]),
        "reads of many": max(reads[VIEWERS]),
    }


def first_views(airflow: LiveAirflow) -> dict[str, float]:
    """Return the milliseconds until each page shows its table in a browser with an empty cache."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        raise RuntimeError("Debian's Chromium is not installed: apt install chromium")
    quiet = ("background-networking", "component-update", "sync", "gpu", "quic")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{each}" for each in quiet)],
        )
        page = browser.new_page()
        page.goto(airflow.base_url)
        page.locator("input").first.fill(airflow.user)
        page.locator("input[type=password]").fill(airflow.password)
        page.keyboard.press("Enter")
        page.wait_for_selector("text=MachFive")
        state = page.context.storage_state()
        found = {}
        for name, path, shown in (
            ("first", f"/machfive/?conn={CONN}", "tr[data-key]"),
            ("their first", "/dags", f"text={DAG}"),
        ):
            tab = browser.new_context(storage_state=state).new_page()
            began = time.monotonic()
            tab.goto(f"{airflow.base_url}{path}", wait_until="commit")
            tab.wait_for_selector(shown)
            found[name] = (time.monotonic() - began) * 1000
        browser.close()
    return found


def milliseconds(ask: Callable[[], httpx.Response]) -> float:
    """Return how long a request takes."""
    began = time.monotonic()
    ask().raise_for_status()
    return (time.monotonic() - began) * 1000


def figure(found: dict[str, float]) -> Figure:
    """Return the table and its limits."""
    rows: tuple[tuple[Any, ...], ...] = (
        ("MachFive", round(found["first"]), round(found["refresh"]), found["reads"], found["reads of many"]),
        ("Airflow's list of Dags", round(found["their first"]), round(found["their refresh"]), "", ""),
    )
    return Figure(
        name="page",
        title="The page with 5,000 lists",
        how=HOW,
        columns=("page", "first, ms", "refresh, ms", "page reads a refresh", f"page reads, {VIEWERS} viewers"),
        rows=rows,
        limits=(
            Limit("first view of the page, 5,000 lists", found["first"], FIRST_PAINT, unit="ms"),
            Limit("refresh of the page, 5,000 lists", found["refresh"], REFRESH, unit="ms"),
            Limit("page reads a refresh, one viewer", found["reads"], 1),
            Limit(f"page reads a refresh, {VIEWERS} viewers", found["reads of many"], 1),
        ),
    )


if __name__ == "__main__":
    sys.exit(run("page"))

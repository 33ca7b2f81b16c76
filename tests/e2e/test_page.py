"""The MachFive page in a real Airflow: who may see what, and what it tells of twenty shards under a limit of three."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

from machfive_provider.api import protocol
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.sandbox import Sandbox
from scripts.live_airflow import LiveAirflow
from tests.e2e.conftest import PAGE_DAG

pytestmark = pytest.mark.live
CONN = "machfive_shards"
ENDPOINTS = ("", "content", "lists.csv", "row", "preview")
SHARDS = 20
TIMEOUT = 150.0


@pytest.fixture(scope="module")
def foreign_list(shards: Sandbox) -> str:
    """A list that somebody made in the MachFive app."""
    with closing(MachFiveClient(ClientSettings(shards.base_url, shards.api_key))) as client:
        options: Any = {"list_name": "Made by hand", "email_count": 2, "email_signature": "x"}
        call = protocol.generate_batch(shards.campaign_id, [Lead("by.hand@example.com")], options)
        list_id = client.send(call).list_id
    shards.complete(list_id)
    return list_id


@pytest.fixture(scope="module")
def run_id(live: LiveAirflow, shards: Sandbox, foreign_list: str) -> Iterator[str]:
    """Three shards are at MachFive, the others wait for a slot."""
    run = live.trigger(PAGE_DAG)
    live.wait_until(
        PAGE_DAG,
        run,
        lambda now: Counter(task.state for task in now.tasks)["deferred"] == SHARDS and len(shards.purchases) == 1 + 3,
        timeout=TIMEOUT,
    )
    yield run
    with suppress(Exception):
        live.delete_run(PAGE_DAG, run)


@pytest.fixture(scope="module")
def client(live: LiveAirflow) -> Iterator[Callable[[str | None], httpx.Client]]:
    """Return a client of the page for a user, or for nobody."""
    opened: list[httpx.Client] = []

    def client(user: str | None) -> httpx.Client:
        page = httpx.Client(base_url=f"{live.base_url}/machfive/", timeout=30, trust_env=False)
        opened.append(page)
        if user:
            credentials = {"username": user, "password": live.home.passwords[user]}
            token = page.post(f"{live.base_url}/auth/token", json=credentials).json()["access_token"]
            page.cookies.set("_token", token)
        return page

    yield client
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def row_of(client: Any, run_id: str) -> Callable[[int], str]:
    return lambda index: f"{PAGE_DAG}|{run_id}|write|{index}"


def test_nobody_sees_anything_without_logging_in(client: Any, run_id: str):
    page = client(None)
    for endpoint in ENDPOINTS:
        response = page.get(endpoint, params={"conn": CONN, "row": "x"})
        assert (response.status_code, "Please log in" in response.text) == (401, True), endpoint
        assert "Shard" not in response.text
    assert page.post("refresh").status_code == 401


@pytest.mark.parametrize("user", ["admin", "viewer"])
def test_who_sees_what(user: str, client: Any, live: LiveAirflow, shards: Sandbox, foreign_list: str, row_of: Any):
    """An admin may read the connection and sees all its lists; a viewer sees what his DAGs bought and nothing else."""
    page = client(user)
    everything = page.get("content", params={"conn": CONN})
    assert everything.status_code == 200
    table = page.get("lists.csv", params={"conn": CONN}).text
    assert table.count("Shard") == SHARDS
    assert (foreign_list in table) == ("Made by hand" in everything.text) == (user == "admin")
    assert page.get("row", params={"conn": CONN, "row": foreign_list}).status_code == (200 if user == "admin" else 404)
    assert page.get("row", params={"conn": CONN, "row": row_of(0)}).status_code == 200
    # The completed list is of no DAG: its emails are shown to nobody.
    preview = page.get("preview", params={"conn": CONN, "row": foreign_list})
    assert preview.status_code == (403 if user == "admin" else 404)
    assert page.get("", params={"conn": "no_such_connection"}).status_code == 403
    whole = page.get("", params={"conn": CONN})
    assert "default-src 'none'" in whole.headers["content-security-policy"]
    assert whole.headers["cache-control"] == "no-store"
    for response in (whole, everything, page.get("row", params={"conn": CONN, "row": row_of(0)})):
        assert shards.api_key not in response.text
    assert shards.api_key not in live.home.process_log.read_text(errors="replace")

"""Who may see what of the MachFive page, by requests to a real Airflow."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from machfive_provider.sandbox import Sandbox
from scripts.live_airflow import LiveAirflow
from tests.e2e.conftest import PAGE_CONN, SHARDS

pytestmark = pytest.mark.live
ENDPOINTS = ("", "content", "lists.csv", "row", "preview")


def test_nobody_sees_anything_without_logging_in(client: Any, run_id: str):
    page = client(None)
    for endpoint in ENDPOINTS:
        response = page.get(endpoint, params={"conn": PAGE_CONN, "row": "x"})
        assert (response.status_code, "Please log in" in response.text) == (401, True), endpoint
        assert "Shard" not in response.text
    assert page.post("refresh").status_code == 401


@pytest.mark.parametrize("user", ["admin", "viewer"])
def test_who_sees_what(user: str, client: Any, live: LiveAirflow, shards: Sandbox, foreign_list: str, row_of: Any):
    """An admin may read the connection and sees all its lists; a viewer sees what his DAGs bought and nothing else."""
    page = client(user)
    everything = page.get("content", params={"conn": PAGE_CONN})
    assert everything.status_code == 200
    table = page.get("lists.csv", params={"conn": PAGE_CONN}).text
    assert sum(row["name"].startswith("Shard") for row in csv.DictReader(table.splitlines())) == SHARDS
    assert (foreign_list in table) == ("Made by hand" in everything.text) == (user == "admin")
    foreign, own = ({"conn": PAGE_CONN, "row": row} for row in (foreign_list, row_of(0)))
    assert page.get("row", params=foreign).status_code == (200 if user == "admin" else 404)
    assert page.get("row", params=own).status_code == 200
    # The completed list is of no DAG: its emails are shown to nobody.
    preview = page.get("preview", params=foreign)
    assert preview.status_code == (403 if user == "admin" else 404)
    assert page.get("", params={"conn": "no_such_connection"}).status_code == 403
    whole = page.get("", params={"conn": PAGE_CONN})
    assert "default-src 'none'" in whole.headers["content-security-policy"]
    assert whole.headers["cache-control"] == "no-store"
    for response in (whole, everything, page.get("row", params=own)):
        assert shards.api_key not in response.text
    assert shards.api_key not in live.home.process_log.read_text(errors="replace")

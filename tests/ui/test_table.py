"""What is shown of the rows: filters, order, pages, figures and the CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from machfive_provider.ui.rows import Row, join
from machfive_provider.ui.table import Query, as_csv, leads_per_day, matching, page_of, tiles
from tests.ui.builders import NOW, a_list, a_task, list_id

DAY = 86400


def spring() -> list[Row]:
    lists = [
        a_list(1, age=60),
        a_list(2, "completed", age=2 * DAY, took=DAY * 1.5, custom_name="Yesterday's end"),
        a_list(3, "completed", age=40 * DAY, took=60),
        a_list(4, "failed", age=3600, failed_at=NOW.subtract(seconds=60), custom_name="=SUM(A1)"),
    ]
    tasks = [
        a_task(phase="submitted", list_id=list_id(1), credits=30, leads_submitted=30, bought=True),
        a_task("failed", dag="other", phase="failed", error={"message": "no credits left", "remedy": "Upgrade."}),
        a_task("success", dag="old", phase="completed", list_id=list_id(2), credits=7, bought=True, leads_count=7),
    ]
    return join(lists, tasks, {}, NOW)


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        ({"status": "running"}, [list_id(1)]),
        ({"status": "failed"}, [list_id(4), "other|run|write|-1"]),
        ({"status": "completed", "since": "24h"}, [list_id(2)]),
        ({"since": "today"}, [list_id(1), list_id(4)]),
        ({"by": "airflow", "since": "month"}, [list_id(1), list_id(2)]),
        ({"dag": "other"}, ["other|run|write|-1"]),
        ({"q": "CREDITS left"}, ["other|run|write|-1"]),
        ({"status": "no such", "sort": "no such", "page": "x", "since": "ever"}, None),
    ],
)
def test_filters(parameters: dict[str, str], keys: list[str] | None):
    found = matching(spring(), Query.parse(parameters), NOW)
    everything = [row.key for row in matching(spring(), Query(), NOW)]
    assert [row.key for row in found] == (everything if keys is None else keys)


def test_the_query_stands_in_the_url():
    query = Query.parse({"status": "failed", "q": "a&b", "page": "3", "conn": "machfive_eu"})
    assert query.url(page=3) == "?conn=machfive_eu&status=failed&q=a%26b&page=3"
    assert query.url(status="") == "?conn=machfive_eu&q=a%26b", "another filter begins at page 1"


def test_tiles_count_and_filter():
    rows = spring()
    shown = {tile.label: tile for tile in tiles(rows, Query(), NOW)}
    values = {label: tile.value for label, tile in shown.items()}
    assert values == {
        "Running": 1, "Waiting for room": 0, "Failed in 24 h": 1, "Completed in 24 h": 1,
        "Credits today": 30, "Credits this month": 37,
    }  # fmt: skip
    for tile in list(shown.values())[:4]:
        parameters = dict(each.split("=") for each in tile.url[1:].split("&"))
        assert len(matching(rows, Query.parse(parameters), NOW)) == tile.value, tile
    active = tiles(rows, Query(status="running"), NOW)[0]
    assert (active.active, active.url) == (True, "?")


def test_unknown_cost_is_said():
    tag = "[af1:0123456789-0123456789ab:0..abcdef]"
    rows = join([a_list(1, custom_name=f"x {tag}")], [], {}, NOW)
    (note,) = {tile.note for tile in tiles(rows, Query(), NOW) if tile.label == "Credits today"}
    assert note == "at least: 1 list of unknown cost"


@pytest.mark.parametrize(("sort", "first"), [("-created", 1), ("created", 3), ("-time", 2), ("name", 4)])
def test_order(sort: str, first: int):
    lists = [row for row in spring() if row.list_id]
    assert matching(lists, Query(sort=sort), NOW)[0].key == list_id(first)


def test_pages():
    rows: list[Any] = list(range(101))
    assert [len(page_of(rows, Query(page=number))[0]) for number in (1, 2, 3)] == [50, 50, 1]
    assert page_of(rows, Query(page=99))[1:] == (3, 3)
    assert page_of([], Query(page=2)) == ([], 1, 1)


def test_csv_calculates_nothing():
    table = list(csv.DictReader(io.StringIO(as_csv(spring()))))
    assert [each["name"] for each in table if each["list_id"] == list_id(4)] == ["'=SUM(A1)"]
    assert [each["what_to_do"] for each in table if each["problem"]] == ["Upgrade."]


def test_leads_per_day():
    days = dict(leads_per_day(spring(), NOW))
    assert len(days) == 14
    assert (days["2026-11-20"], days["2026-11-18"], sum(days.values())) == (30, 7, 37)
    unknown = dict(leads_per_day(join([a_list(1, age=DAY)], [], {}, NOW), NOW))
    assert (unknown["2026-11-19"], unknown["2026-11-20"]) == (None, 0)
    newest = [row for row in spring() if row.key != list_id(3)]
    partly = dict(leads_per_day(newest, NOW, whole=False))
    days = ("2026-11-20", "2026-11-19", "2026-11-18", "2026-11-10")
    assert [partly[day] for day in days] == [30, 0, None, None]

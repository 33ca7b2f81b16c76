"""Joining lists with tasks: each list and each task that has none is one row, in one state."""

from __future__ import annotations

from typing import Any

import pytest

from machfive_provider.ui.rows import join
from tests.ui.builders import CAMPAIGN, NOW, a_list, a_task, list_id

TAG = "[af1:0123456789-0123456789ab:0..abcdef]"


def rows(lists: Any = (), tasks: Any = (), campaigns: Any = None) -> Any:
    return {row.key: row for row in join(lists, list(tasks), campaigns or {}, NOW)}


def test_twenty_shards_under_a_limit_of_three():
    """Three run at MachFive; seventeen wait in the order in which they asked, and have spent nothing."""
    bought = [
        a_task(index=n, task="w", phase="submitted", list_id=list_id(n), credits=5, bought=True) for n in range(3)
    ]
    waiting = [
        a_task(index=n, task="w", phase="waiting_for_room", credits=5, asked_at=1000.0 - n) for n in range(3, 20)
    ]
    found = rows([a_list(n) for n in range(3)], [*bought, *waiting])
    states = [row.status for row in found.values()]
    assert (states.count("running"), states.count("waiting"), len(states)) == (3, 17, 20)
    assert found["crm|run|w|19"].position == 1  # it asked first
    assert found["crm|run|w|3"].position == 17
    assert {row.credits for row in found.values() if row.status == "waiting"} == {None}
    assert {row.credits for row in found.values() if row.status == "running"} == {5}


@pytest.mark.parametrize(
    ("state", "told", "status"),
    [
        ("deferred", {"phase": "waiting_for_room"}, "waiting"),
        ("running", {"phase": "looking_for_purchase"}, "checking"),
        ("deferred", {"phase": "submitted", "list_id": list_id(9)}, "running"),
        ("success", {"phase": "completed", "list_id": list_id(9)}, "completed"),
        ("skipped", {"phase": "skipped", "leads_suppressed": 2}, "skipped"),
        ("up_for_retry", {"phase": "failed", "error": {"message": "500"}}, "retrying"),
        ("failed", {"phase": "failed", "error": {"message": "402"}}, "failed"),
        # Killed while it waited: there was nobody left to tell a reason.
        ("failed", {"phase": "waiting_for_room"}, "failed"),
        (None, {"phase": "waiting_for_room"}, "failed"),
    ],
)
def test_the_state_of_a_task_without_a_list(state: str | None, told: dict[str, Any], status: str):
    (row,) = rows(tasks=[a_task(state, **told)]).values()
    assert row.status == status
    assert row.error == told.get("error", {})


def test_a_list_shows_who_bought_it_and_who_waits_for_it():
    buyer = a_task("success", phase="completed", list_id=list_id(1), credits=3, bought=True, emails_created=9)
    again = a_task("success", index=1, phase="submitted", list_id=list_id(1), credits=3, bought=False)
    sensor = a_task("success", task="wait", phase="completed", lists=[{"list_id": list_id(1), "phase": "completed"}])
    (row,) = rows([a_list(1, "completed", custom_name=f"Spring {TAG}")], [sensor, again, buyer]).values()
    assert [task.key for task in row.tasks] == [buyer.key, again.key, sensor.key]
    assert (row.name, row.how, row.credits, row.emails) == ("Spring", "bought", 3, 9)


@pytest.mark.parametrize(
    ("name", "tasks", "how"),
    [
        ("by hand", [], "made elsewhere"),
        (f"x {TAG}", [], "bought, task unknown"),
        ("x", [a_task(phase="submitted", list_id=list_id(1), credits=1, bought=False)], "adopted"),
        (
            "by hand",
            [a_task(phase="submitted", lists=[{"list_id": list_id(1), "phase": "submitted"}])],
            "made elsewhere",
        ),
    ],
)
def test_where_a_list_comes_from(name: str, tasks: Any, how: str):
    assert rows([a_list(1, custom_name=name)], tasks)[list_id(1)].how == how


def test_missing_leads_and_the_reason_are_in_the_row():
    export = {"missing": 2, "missing_path": "/out/x.missing.csv"}
    error = {"class": "IncompleteExportError", "message": "2 leads missing", "remedy": "Look at the file."}
    task = a_task(
        "failed",
        phase="failed",
        list_id=list_id(1),
        credits=5,
        bought=True,
        leads_submitted=5,
        leads_count=3,
        export=export,
        error=error,
    )
    row = rows([a_list(1, "completed", took=30)], [task])[list_id(1)]
    assert (row.status, row.leads, row.error, row.export) == ("undelivered", 5, error, export)


def test_stuck_is_measured_against_the_campaigns_usual():
    usual = [a_list(n, "completed", age=9000, took=400) for n in range(3)]
    found = rows([*usual, a_list(10, age=750), a_list(11, age=850), a_list(12, age=9999, campaign_id="other")])
    assert [found[list_id(n)].stuck for n in (10, 11, 12)] == [False, True, False]
    assert found[list_id(11)].usual == 400
    # Two lists say nothing of what is usual.
    assert not rows([*usual[:2], a_list(11, age=850)])[list_id(11)].stuck


def test_campaigns_have_names():
    task = a_task(phase="waiting_for_room", campaign_id="gone", campaign_name="Told by the task")
    found = rows([a_list(1), a_list(2, campaign_id=None)], [task], {CAMPAIGN: "Spring"})
    assert [found[key].campaign for key in (list_id(1), list_id(2), task.key)] == ["Spring", None, "Told by the task"]


def test_the_timeline_is_in_order():
    times = {"waiting_for_room": "2026-11-20T11:58:00Z", "submitted": "2026-11-20T11:59:01Z"}
    task = a_task("success", phase="submitted", list_id=list_id(1), credits=1, bought=True, times=times)
    row = rows([a_list(1, "completed", age=60, took=30)], [task])[list_id(1)]
    assert [text for _, text in row.timeline] == [
        "task waits for a free slot",
        "list created at MachFive",
        "task has a list",
        "list completed at MachFive",
    ]

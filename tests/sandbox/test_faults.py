"""Which request a scripted fault is for, what list faults do, and which descriptions are refused."""

from __future__ import annotations

from typing import Any

import pytest

from machfive_provider.sandbox import Sandbox
from tests.sandbox.conftest import MakeWorld, World, refused

LISTS = "/api/v1/lists"


def test_faults_wait_for_their_turn_and_their_text(world: World) -> None:
    sandbox = world.sandbox
    sandbox.fault("status", "lists", status=500, times=2, after=1)
    sandbox.fault("status", "lists", status=503)
    answers = [world.client.get(LISTS).status_code for _ in range(5)]
    assert answers == [503, 500, 500, 200, 200]
    sandbox.fault("status", "generate-batch", status=500, contains="Ümlaut", times=None)
    assert world.batch(options={"list_name": "plain"}).status_code == 202
    assert world.batch(options={"list_name": "Ümlaut"}).status_code == 500
    escaped = b'{"leads": [{"email": "a@x.example"}], "options": {"list_name": "\\u00dcmlaut"}}'
    url = f"/api/v1/campaigns/{sandbox.campaign_id}/generate-batch"
    headers = {"Content-Type": "application/json"}
    assert world.client.post(url, content=escaped, headers=headers).status_code == 500
    assert sandbox.unused_faults == []
    unused = sandbox.fault("reset", contains="never said")
    assert world.client.get(LISTS).status_code == 200
    assert sandbox.unused_faults == [unused]
    sandbox.clear_faults()
    assert world.batch(options={"list_name": "Ümlaut"}).status_code == 202


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kind": "explode"}, "explode"),
        ({"kind": "reset", "endpoint": "everything"}, "everything"),
        ({"kind": "cut_name", "endpoint": "lists", "length": 3}, "lists"),
        ({"kind": "cut_name"}, "length"),
        ({"kind": "reset", "seconds": 1}, "seconds"),
        ({"kind": "reset", "times": 0}, "times"),
        ({"kind": "reset", "after": -1}, "after"),
        ({"kind": "reset", "contains": 7}, "contains"),
        ({"kind": "status", "status": "x"}, "status"),
        ({"kind": "status", "status": 99}, "status"),
        ({"kind": "unknown_status", "status": 500}, "status"),
        ({"kind": "delay", "seconds": "1"}, "seconds"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Sandbox().fault(**arguments)


def test_visible_late_hides_a_list_until_its_time(world: World) -> None:
    world.sandbox.fault("visible_late", seconds=30)
    list_id = world.bought()
    assert world.lists() == []
    refused(world.list(list_id), 404, "NOT_FOUND")
    refused(world.export(list_id), 404, "NOT_FOUND")
    world.clock.now += 30
    assert [row["id"] for row in world.lists()] == [list_id]
    assert world.list(list_id).status_code == 200


def test_names_are_cut_and_rewritten(world: World) -> None:
    world.sandbox.fault("cut_name", length=4)
    world.sandbox.fault("rewrite_name", after=1, name="Ours now")
    assert world.list(world.bought(options={"list_name": "A long name"})).json()["custom_name"] == "A lo"
    assert world.list(world.bought(options={"list_name": "A long name"})).json()["custom_name"] == "Ours now"
    assert [purchase.list_name for purchase in world.sandbox.purchases] == ["A long name"] * 2


def test_lists_fail_or_get_stuck_or_are_told_in_unknown_words(make_world: MakeWorld) -> None:
    world = make_world(processing_seconds=10)
    for kind in ("fail_list", "stuck", "unknown_status", "end_when_polled"):
        world.sandbox.fault(kind, after=0)
        list_id = world.bought()
        running = world.list(list_id).json()["processing_status"]
        world.clock.now += 10
        ended = world.list(list_id).json()["processing_status"]
        expected = {
            "fail_list": ("processing", "failed"),
            "stuck": ("processing", "processing"),
            "end_when_polled": ("completed", "completed"),
            "unknown_status": ("researching", "completed"),
        }
        assert (running, ended) == expected[kind]


@pytest.mark.parametrize(
    ("kind", "counts"), [("lose_leads", (1, 2)), ("extra_leads", (4, 8)), ("short_sequences", (3, 4))]
)
def test_exports_that_are_not_what_was_paid_for(world: World, kind: str, counts: tuple[int, int]) -> None:
    world.sandbox.fault(kind, count=1 if kind == "extra_leads" else 2)
    list_id = world.bought("a@x.example", "b@x.example", "c@x.example", options={"email_count": 2})
    details = world.list(list_id).json()
    assert (details["leads_count"], details["emails_created"]) == counts
    leads = world.export(list_id, "json").json()["leads"]
    assert (len(leads), sum(len(lead["sequence"]) for lead in leads)) == counts
    assert world.export(list_id).text.count("\r\n") == counts[0] + 1
    assert world.sandbox.purchases[0].credits == 3


def test_several_list_faults_spoil_one_list_and_a_refused_request_uses_none(make_world: MakeWorld) -> None:
    world = make_world(credits=1)
    world.sandbox.fault("visible_late", seconds=5)
    world.sandbox.fault("cut_name", length=1)
    assert world.batch("a@x.example", "b@x.example").status_code == 402
    assert len(world.sandbox.unused_faults) == 2
    list_id = world.bought("a@x.example", options={"list_name": "xyz"})
    assert world.lists() == []
    world.clock.now += 5
    assert world.list(list_id).json()["custom_name"] == "x"


def test_a_generate_that_is_marked_failed_answers_500(world: World) -> None:
    world.sandbox.fault("fail_list", "generate")
    refused(world.generate(), 500, "INTERNAL_ERROR")
    assert world.lists()[0]["processing_status"] == "failed"

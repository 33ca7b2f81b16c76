"""The lists that a demo begins with."""

from __future__ import annotations

from collections import Counter

from machfive_provider.purchase.tag import Tag
from tests.sandbox.conftest import MakeWorld


def test_a_demo_begins_with_every_state_and_two_weeks_of_history(make_world: MakeWorld) -> None:
    world = make_world(demo=True)
    lists = world.lists(limit=100)
    by_status = {status: [] for status in ("pending", "processing", "researching", "completed", "failed")}
    for each in lists:
        by_status[each["processing_status"]].append(each)
    assert all(by_status.values())
    assert len({each["completed_at"][:10] for each in by_status["completed"]}) >= 14
    assert {bool(Tag.all_in(each["custom_name"])) for each in lists} == {True, False}
    assert None in [each["custom_name"] for each in lists]
    odd = next(each for each in lists if str(each["custom_name"]).startswith("Two leads without emails"))
    leads = world.export(odd["id"], "json").json()["leads"]
    assert [lead["sequence"] for lead in leads].count(None) == 2


def test_a_demo_takes_no_slot_changes_with_time_and_comes_back_with_a_reset(make_world: MakeWorld) -> None:
    world = make_world(demo=True, concurrency=1, processing_seconds=3600)
    before = world.lists(limit=100)
    statuses = Counter(each["processing_status"] for each in before)
    world.bought()
    assert world.batch().status_code == 429
    assert len(world.sandbox.purchases) == 1
    world.clock.now += 300
    later = Counter(each["processing_status"] for each in world.lists(limit=100))
    assert [later[status] - statuses[status] for status in ("completed", "failed")] == [1, 1]
    world.sandbox.reset()
    assert [each["id"] for each in world.lists(limit=100)] == [each["id"] for each in before]

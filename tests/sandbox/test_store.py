"""What a purchase costs, and what the sandbox does not sell."""

from __future__ import annotations

import math
import re
import threading
from typing import Any

import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.sandbox.conftest import LEAD, OPTIONS_2026, MakeWorld, World, refused


def test_credits_run_out(make_world: MakeWorld) -> None:
    older, newer = make_world(credits=1), make_world(generation="2026", credits=1)
    body = refused(older.batch("a@x.example", "b@x.example"), 402, "INSUFFICIENT_CREDITS", "1 credits remaining")
    assert "detail" not in body
    assert older.sandbox.purchases == []
    assert older.generate().json()["credits_remaining"] == 0
    refused(older.generate(), 402, "INSUFFICIENT_CREDITS", "You have 0 credits remaining. Please upgrade your plan.")
    body = refused(newer.batch("a@x.example", "b@x.example"), 402, "INSUFFICIENT_CREDITS")
    assert set(body["detail"]) == {"required", "available", "payg_enabled", "pct_of_cap"}
    assert (body["detail"]["required"], body["detail"]["available"]) == (2, 1)


def test_2026_enrichment_costs_double(make_world: MakeWorld) -> None:
    world = make_world(generation="2026")
    world.bought("a@x.example", "b@x.example", options={**OPTIONS_2026, "enrichment_enabled": True})
    assert world.sandbox.purchases[0].credits == 4
    assert world.sandbox.workspaces[0].credits == 1996


def test_the_workspace_limit_counts_unfinished_batches_of_the_workspace(make_world: MakeWorld) -> None:
    world = make_world(concurrency=2, processing_seconds=50, workspaces=2)
    first = world.bought("a@x.example")
    world.sandbox.set_status(world.bought("b@x.example"), "researching")
    refused(world.batch("c@x.example"), 429, "WORKSPACE_LIMIT")
    assert len(world.sandbox.purchases) == 2
    assert world.generate().status_code == 200
    other = world.sandbox.workspaces[1]
    url = f"/api/v1/campaigns/{other.campaigns[0].id}/generate-batch"
    assert world.client.post(
        url, json={"leads": [LEAD]}, headers={"Authorization": f"Bearer {other.api_key}"}
    ).is_success
    world.sandbox.fail(first)
    assert world.batch("c@x.example").status_code == 202


def test_a_campaign_that_is_not_set_up_is_refused_or_keeps_batches_pending(make_world: MakeWorld) -> None:
    world = make_world()
    campaign = world.sandbox.unready_campaign_id
    refused(world.batch(campaign=campaign), 400, "BAD_REQUEST", "not set up")
    world.sandbox.build_campaign(campaign)
    assert world.batch(campaign=campaign).status_code == 202
    world = make_world(generation="2026", processing_seconds=5)
    campaign = world.sandbox.unready_campaign_id
    refused(world.generate(campaign=campaign), 400, "BAD_REQUEST", "not set up")
    list_id = world.bought(campaign=campaign)
    world.clock.now += 10_000
    assert world.list(list_id).json()["processing_status"] == "pending"
    world.sandbox.build_campaign(campaign)
    assert world.list(list_id).json()["processing_status"] == "processing"
    world.clock.now += 5
    assert world.list(list_id).json()["processing_status"] == "completed"


def test_users_can_rename_a_list(world: World) -> None:
    list_id = world.bought(options={"list_name": "Before"})
    world.sandbox.rename(list_id, "After")
    assert world.lists()[0]["custom_name"] == "After"
    assert world.sandbox.purchases[0].list_name == "Before"
    with pytest.raises(KeyError):
        world.sandbox.rename("unknown", "x")


def test_many_threads_buy_exactly_what_there_is(make_world: MakeWorld) -> None:
    world = make_world(credits=10)
    statuses: list[int] = []
    workers = [threading.Thread(target=lambda: statuses.append(world.batch().status_code)) for _ in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(statuses) == [202] * 10 + [402] * 10
    assert len(world.sandbox.purchases) == 10


def test_the_same_address_in_two_campaigns_is_no_duplicate(world: World) -> None:
    world.bought("a@x.example")
    world.bought("a@x.example", campaign=world.sandbox.workspaces[0].campaigns[1].id)
    assert world.sandbox.duplicates == 0


def test_a_seed_settles_keys_ids_and_bytes(make_world: MakeWorld) -> None:
    first, second, other = make_world(seed=5), make_world(seed=5), make_world(seed=6)
    ids = [world.bought("a@x.example", "b@x.example") for world in (first, second, other)]
    assert ids[0] == ids[1] != ids[2]
    assert first.sandbox.api_key == second.sandbox.api_key != other.sandbox.api_key
    assert first.export(ids[0]).content == first.export(ids[0]).content == second.export(ids[1]).content
    assert first.export(ids[0]).content != other.export(ids[2]).content


def test_the_first_workspace_is_always_the_same_and_the_others_differ() -> None:
    one, two = Sandbox(), Sandbox(SandboxSettings(workspaces=3))
    assert one.workspaces[0] == two.workspaces[0]
    assert re.fullmatch(r"mf_live_[A-Za-z0-9]{32}", one.api_key)
    assert len({workspace.api_key for workspace in two.workspaces}) == 3
    ids = [campaign.id for workspace in two.workspaces for campaign in workspace.campaigns]
    assert len(set(ids)) == 9
    assert two.workspaces[1].campaigns[0].name not in [campaign.name for campaign in one.workspaces[0].campaigns]


@pytest.mark.parametrize(
    "settings",
    [
        {"generation": "2024"},
        {"port": 70000},
        {"workspaces": 0},
        {"credits": -1},
        {"concurrency": 0},
        {"processing_seconds": -1},
        {"pending_seconds": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SandboxSettings(**settings)

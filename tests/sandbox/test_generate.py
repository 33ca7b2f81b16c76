from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from tests.sandbox.conftest import LEAD, OPTIONS_2026, MakeWorld, World, refused


def test_a_batch_is_accepted_and_paid_for(each_world: World) -> None:
    options = {**OPTIONS_2026, "list_name": "Ünïque 名前"}
    response = each_world.batch("a@x.example", "b@x.example", options=options)
    body = response.json()
    assert (response.status_code, body["status"], body["leads_count"]) == (202, "processing", 2)
    assert body["message"]
    assert each_world.sandbox.workspaces[0].credits == 1998
    (purchase,) = each_world.sandbox.purchases
    assert (purchase.endpoint, purchase.workspace, purchase.list_id) == (
        "generate-batch",
        "Workspace 1",
        body["list_id"],
    )
    assert (purchase.emails, purchase.credits) == (("a@x.example", "b@x.example"), 2)
    assert purchase.list_name == each_world.list(body["list_id"]).json()["custom_name"] == "Ünïque 名前"


def test_generate_answers_with_the_sequence_and_makes_a_completed_list(each_world: World) -> None:
    response = each_world.generate(options={**OPTIONS_2026, "email_count": 4})
    body = response.json()
    assert response.status_code == 200
    assert [email["step"] for email in body["sequence"]] == [1, 2, 3, 4]
    assert body["credits_remaining"] == 1999
    assert body["lead_id"]
    assert each_world.list(body["list_id"]).json()["processing_status"] == "completed"
    assert each_world.export(body["list_id"], "json").json()["leads"][0]["sequence"] == body["sequence"]


def test_while_generate_runs_its_list_can_be_seen_and_takes_no_place(make_world: MakeWorld) -> None:
    world = make_world(generate_seconds=3600, concurrency=1)
    ending: list[httpx.TransportError] = []

    def generate() -> None:
        try:
            world.generate({"list_name": "Mine"})
        except httpx.TransportError as problem:
            ending.append(problem)

    worker = threading.Thread(target=generate)
    worker.start()
    world.sandbox.wait_until(lambda: len(world.sandbox.purchases) == 1)
    (row,) = world.lists()
    assert (row["custom_name"], row["processing_status"]) == ("Mine", "processing")
    assert world.batch().status_code == 202
    world.clock.now += 3600
    assert world.list(row["id"]).json()["processing_status"] == "completed"
    world.sandbox.stop()
    worker.join()
    assert len(ending) == 1
    assert world.sandbox.lists[0].forced is None


def test_the_number_of_emails_defaults_to_three_in_the_older_generation(world: World) -> None:
    assert len(world.generate().json()["sequence"]) == 3


BAD_BODIES: list[tuple[str, Any, str]] = [
    ("generate-batch", {}, "leads"),
    ("generate-batch", {"leads": []}, "leads"),
    ("generate-batch", {"leads": LEAD}, "leads"),
    ("generate-batch", {"leads": "a@x.example"}, "leads"),
    ("generate-batch", {"leads": [LEAD, 7]}, "leads[1]"),
    ("generate-batch", {"leads": [LEAD, {"name": "x"}]}, "leads[1].email is required"),
    ("generate-batch", {"leads": [LEAD, LEAD, LEAD, {"email": "nonsense"}]}, "leads[3].email"),
    ("generate-batch", {"leads": [{"email": "a b@x.example"}]}, "leads[0].email"),
    ("generate-batch", {"leads": [{"email": "a@x"}]}, "leads[0].email"),
    ("generate-batch", {"leads": [{**LEAD, "name": None}]}, "leads[0].name"),
    ("generate-batch", {"leads": [{**LEAD, "phone": "1"}]}, "leads[0].phone"),
    ("generate-batch", {"leads": [LEAD], "lead": LEAD}, "body field: lead"),
    ("generate-batch", {"leads": [LEAD], "webhook": "x"}, "webhook"),
    ("generate-batch", {"leads": [LEAD], "options": []}, "options"),
    ("generate", {"lead": [LEAD]}, "lead must be an object"),
    ("generate", {"lead": {"email": ""}}, "lead.email"),
    ("generate", {"leads": [LEAD]}, "leads"),
]


@pytest.mark.parametrize(("endpoint", "body", "named"), BAD_BODIES)
def test_wrong_bodies_are_refused_with_their_position(each_world: World, endpoint: str, body: Any, named: str) -> None:
    url = f"/api/v1/campaigns/{each_world.sandbox.campaign_id}/{endpoint}"
    refused(each_world.client.post(url, json=body), 400, "BAD_REQUEST", named)
    assert each_world.sandbox.purchases == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"{", "json"),
        (b"", "json"),
        (b'{"leads": NaN}', "json"),
        (b"[" * 100_000, "json"),
        (b'{"leads": "\xff"}', "utf-8"),
        (b'{"leads": "\\ud800"}', "utf-8"),
        (b"[]", "object"),
    ],
)
def test_bytes_that_are_no_json_object_are_refused(world: World, content: bytes, named: str) -> None:
    url = f"/api/v1/campaigns/{world.sandbox.campaign_id}/generate-batch"
    headers = {"Content-Type": "application/json; charset=utf-8"}
    refused(world.client.post(url, content=content, headers=headers), 400, "BAD_REQUEST", named)


def test_a_body_must_say_that_it_is_json(world: World) -> None:
    url = f"/api/v1/campaigns/{world.sandbox.campaign_id}/generate-batch"
    refused(world.client.post(url, data={"leads": "x"}), 400, "BAD_REQUEST", "content-type")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"email_count": 0}, "email_count"),
        ({"email_count": 6}, "email_count"),
        ({"email_count": True}, "email_count"),
        ({"email_count": "3"}, "email_count"),
        ({"email_count": 2.5}, "email_count"),
        ({"list_name": None}, "list_name"),
        ({"approved_ctas": [1]}, "approved_ctas[0]"),
        ({"approved_ctas": {}}, "approved_ctas"),
        ({"additional_details": "x"}, "additional_details"),
        ({"signature_id": "x"}, "signature_id"),
        ({"sequence_name": "x"}, "sequence_name"),
        ({"tone": "x", "angle": "y"}, "angle, tone"),
    ],
)
def test_2025_options_that_are_refused(world: World, options: dict[str, Any], named: str) -> None:
    refused(world.batch(options=options), 400, "BAD_REQUEST", named)


def test_2025_options_that_are_taken(world: World) -> None:
    options = {"list_name": "x", "email_count": 5, "email_signature": "R", "campaign_angle": "y"}
    for ctas in (["Anything", "goes"], "Anything, goes", []):
        assert world.batch(options={**options, "approved_ctas": ctas}).status_code == 202
    assert world.sandbox.lists[0].emails_created == 5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"email_count": None}, "email_count"),
        ({"email_count": 5}, "from 1 to 4"),
        ({"email_signature": ...}, "exactly one"),
        ({"signature_id": "00000000-0000-4000-8000-000000000000"}, "exactly one"),
        ({"email_signature": ..., "signature_id": "7"}, "uuid"),
        ({"email_count": ...}, "email_count"),
        ({"approved_ctas": ["Question CTA", "Question"]}, "approved_ctas[1]"),
        ({"approved_ctas": "Demo CTA, Fun CTA"}, "approved_ctas[1]"),
        ({"notification_email": "nobody"}, "notification_email"),
        ({"enrichment_enabled": "yes"}, "enrichment_enabled"),
        ({"angle": "x"}, "angle"),
    ],
)
def test_2026_options_that_are_refused(make_world: MakeWorld, changes: dict[str, Any], named: str) -> None:
    options = {name: value for name, value in {**OPTIONS_2026, **changes}.items() if value is not ...}
    refused(make_world(generation="2026").batch(options=options), 400, "BAD_REQUEST", named)


def test_2026_needs_options_at_all(make_world: MakeWorld) -> None:
    refused(make_world(generation="2026").batch(options={}), 400, "BAD_REQUEST", "email_count")


def test_2026_options_that_are_taken(make_world: MakeWorld) -> None:
    world = make_world(generation="2026", concurrency=9)
    for more in (
        {"approved_ctas": "Demo CTA, Loom Video CTA", "additional_details": "x"},
        {"approved_ctas": ["Trial CTA"], "campaign_angle": "x", "notification_email": "me@x.example"},
    ):
        assert world.batch(options={**OPTIONS_2026, **more}).status_code == 202
    list_id = world.bought(options={**OPTIONS_2026, "sequence_name": "Old name"})
    assert world.list(list_id).json()["custom_name"] == "Old name"
    refused(world.generate({**OPTIONS_2026, "notification_email": "me@x.example"}), 400, "BAD_REQUEST", "notification")


def test_2026_enrichment_costs_double_and_needs_something_to_start_from(make_world: MakeWorld) -> None:
    world = make_world(generation="2026")
    options = {**OPTIONS_2026, "enrichment_enabled": True}
    world.bought("a@x.example", "b@x.example", options=options)
    assert world.sandbox.purchases[0].credits == 4
    bare = {"leads": [LEAD, {"email": "c@x.example", "name": "C"}]}
    refused(world.post("generate-batch", bare, options), 400, "BAD_REQUEST", "leads[1]")
    refused(world.post("generate", {"lead": {"email": "c@x.example"}}, options), 400, "BAD_REQUEST", "lead needs")
    linked = {"lead": {"email": "c@x.example", "linkedin_url": "https://linkedin.example/c"}}
    assert world.post("generate", linked, options).status_code == 200


def test_2026_saved_signatures_are_listed_saved_and_used(make_world: MakeWorld) -> None:
    world = make_world(generation="2026", workspaces=2)
    (given,) = world.client.get("/api/v1/signatures").json()["signatures"]
    saved = world.client.post("/api/v1/signatures", json={"name": "Mine", "signature": "Kim\nSales"})
    assert saved.status_code == 201
    assert world.client.get("/api/v1/signatures").json()["signatures"] == [given, saved.json()]
    options = {"email_count": 1, "signature_id": saved.json()["id"]}
    assert world.generate(options).json()["sequence"][0]["body"].endswith("Kim\nSales")
    foreign = {"email_count": 1, "signature_id": world.sandbox.workspaces[1].signatures[0].id}
    refused(world.batch(options=foreign), 404, "NOT_FOUND", "signature_id")
    for body in ({"name": "x"}, {"name": "x", "signature": ""}, {"name": "x", "signature": "y", "z": 1}):
        refused(world.client.post("/api/v1/signatures", json=body), 400, "BAD_REQUEST")


def test_signatures_are_unknown_to_the_older_generation(world: World) -> None:
    refused(world.client.get("/api/v1/signatures"), 404, "NOT_FOUND")


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


def test_an_unready_campaign_is_refused_by_the_older_generation(world: World) -> None:
    campaign = world.sandbox.unready_campaign_id
    refused(world.batch(campaign=campaign), 400, "BAD_REQUEST", "not set up")
    world.sandbox.build_campaign(campaign)
    assert world.batch(campaign=campaign).status_code == 202


def test_a_building_campaign_keeps_batches_of_the_newer_generation_pending(make_world: MakeWorld) -> None:
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

from __future__ import annotations

import threading

import httpx
import pytest

from tests.sandbox.conftest import OPTIONS_2026, MakeWorld, World, refused

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_every_endpoint_needs_a_right_key_before_anything_else(make_world: MakeWorld) -> None:
    world = make_world(generation="2026")
    reads = [("GET", path) for path in ("campaigns", "lists", "lists/x", "lists/x/export", "signatures")]
    for method, path in [*reads, ("POST", "campaigns/x/generate"), ("POST", "campaigns/x/generate-batch")]:
        url = f"{world.sandbox.base_url}/api/v1/{path}"
        refused(httpx.request(method, url), 401, "UNAUTHORIZED", "missing api key")
        refused(httpx.request(method, url, headers={"Authorization": "Basic abc"}), 401, "UNAUTHORIZED", "missing")
        refused(httpx.request(method, url, headers={"X-API-Key": "mf_live_no"}), 401, "UNAUTHORIZED", "invalid")


def test_either_header_carries_the_key_and_a_rotated_key_is_refused(world: World) -> None:
    url = f"{world.sandbox.base_url}/api/v1/campaigns"
    assert httpx.get(url, headers={"X-API-Key": world.sandbox.api_key}).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"bearer {world.sandbox.api_key}"}).status_code == 200
    old = world.sandbox.api_key
    world.sandbox.workspaces[0].api_key = "mf_live_new"
    refused(httpx.get(url, headers={"X-API-Key": old}), 401, "UNAUTHORIZED", "invalid")
    assert httpx.get(url, headers={"X-API-Key": "mf_live_new"}).status_code == 200


def test_campaigns_are_listed_and_found_by_part_of_their_name(each_world: World) -> None:
    client = each_world.client
    names = [campaign["name"] for campaign in client.get("/api/v1/campaigns").json()["campaigns"]]
    assert names == ["Spring Outreach", "Product Launch", "Draft Campaign"]
    for parameter in ("q", "name"):
        found = client.get("/api/v1/campaigns", params={parameter: "LAUNCH"}).json()["campaigns"]
        assert [campaign["name"] for campaign in found] == ["Product Launch"]
    both = client.get("/api/v1/campaigns", params={"q": "spring", "name": "launch"}).json()["campaigns"]
    assert [campaign["name"] for campaign in both] == ["Spring Outreach"]


def test_lists_page_newest_first_with_ties_in_reverse_order(make_world: MakeWorld) -> None:
    world = make_world(concurrency=200)
    ids = [world.bought(f"lead{number}@x.example") for number in range(60)]
    world.clock.now += 1
    ids.append(world.bought("last@x.example"))
    newest_first = ids[::-1]
    assert [row["id"] for row in world.lists()] == newest_first[:50]
    assert [row["id"] for row in world.lists(limit=100)] == newest_first
    assert [row["id"] for row in world.lists(limit=7, offset=55)] == newest_first[55:]
    assert world.lists(offset=61) == []


def test_lists_are_filtered_by_campaign_and_status(make_world: MakeWorld) -> None:
    world = make_world(processing_seconds=100)
    first, second = (campaign.id for campaign in world.sandbox.workspaces[0].campaigns[:2])
    done, running = world.bought(), world.bought(campaign=second)
    world.sandbox.complete(done)
    assert [row["id"] for row in world.lists(campaign_id=first)] == [done]
    assert [row["id"] for row in world.lists(status="processing")] == [running]
    assert [row["id"] for row in world.lists(status="completed", campaign_id=second.upper())] == []
    assert world.lists(campaign_id=UNKNOWN) == []


def test_a_wrong_query_or_body_is_refused_and_buys_nothing(each_world: World) -> None:
    refused(each_world.client.get("/api/v1/lists?limit=0"), 400, "BAD_REQUEST", "limit")
    refused(each_world.client.get("/api/v1/lists?campaign_id=7"), 400, "BAD_REQUEST", "campaign_id")
    refused(each_world.client.get("/api/v1/lists?status=done"), 400, "BAD_REQUEST", "status")
    refused(each_world.client.get("/api/v1/campaigns?query=x"), 400, "BAD_REQUEST", "query")
    refused(each_world.client.get("/api/v1/lists/x?verbose=1"), 400, "BAD_REQUEST", "verbose")
    for query in ("format=xml", "columns=all"):
        refused(each_world.client.get(f"/api/v1/lists/x/export?{query}"), 400, "BAD_REQUEST", query.partition("=")[0])
    refused(each_world.batch("nonsense"), 400, "BAD_REQUEST", "leads[0].email")
    url = f"/api/v1/campaigns/{each_world.sandbox.campaign_id}/generate-batch"
    refused(each_world.client.post(url, data={"leads": "x"}), 400, "BAD_REQUEST", "content-type")
    assert each_world.sandbox.purchases == []


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

    def generate() -> None:
        with pytest.raises(httpx.TransportError):
            world.generate({"list_name": "Mine"})

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
    assert world.sandbox.lists[0].forced is None


def test_a_list_tells_what_its_state_allows(make_world: MakeWorld) -> None:
    world = make_world(pending_seconds=10, processing_seconds=20)
    list_id = world.bought("a@x.example", "b@x.example", options={"list_name": "Mine", "email_count": 4})
    always = {"id", "campaign_id", "custom_name", "processing_status", "created_at", "updated_at"}
    pending = world.list(list_id).json()
    assert (pending["processing_status"], set(pending)) == ("pending", always)
    assert (pending["custom_name"], pending["created_at"]) == ("Mine", "2023-11-14T22:13:20.000Z")
    world.clock.now += 10
    assert world.list(list_id).json()["processing_status"] == "processing"
    assert world.lists()[0]["completed_at"] is None
    world.clock.now += 20
    completed = world.list(list_id).json()
    assert set(completed) == always | {"leads_count", "emails_created", "completed_at"}
    assert (completed["leads_count"], completed["emails_created"]) == (2, 8)
    assert completed["completed_at"] == world.lists()[0]["completed_at"] == "2023-11-14T22:13:50.000Z"


def test_only_a_completed_list_can_be_exported(each_world: World) -> None:
    list_id = each_world.bought()
    each_world.sandbox.set_status(list_id, "processing")
    refused(each_world.export(list_id), 409, "NOT_READY", "processing")
    each_world.sandbox.complete(list_id)
    assert each_world.export(list_id).status_code == 200
    each_world.sandbox.fail(list_id)
    failed = each_world.list(list_id).json()
    assert failed["processing_status"] == "failed"
    assert "failed_at" in failed
    assert "leads_count" not in failed
    refused(each_world.export(list_id), 409, "NOT_READY", "failed")


def test_other_workspaces_are_forbidden_and_the_unknown_is_not_found(make_world: MakeWorld) -> None:
    world = make_world(workspaces=2)
    mine = world.bought()
    theirs = world.sandbox.workspaces[1]
    refused(world.batch(campaign=theirs.campaigns[0].id), 403, "FORBIDDEN")
    refused(world.generate(campaign=theirs.campaigns[0].id), 403, "FORBIDDEN")
    other = {"Authorization": f"Bearer {theirs.api_key}"}
    for path in (f"/api/v1/lists/{mine}", f"/api/v1/lists/{mine}/export"):
        refused(world.client.get(path, headers=other), 403, "FORBIDDEN")
    assert world.client.get("/api/v1/lists", headers=other).json() == {"lists": []}
    refused(world.batch(campaign=UNKNOWN), 404, "NOT_FOUND")
    refused(world.list(UNKNOWN), 404, "NOT_FOUND")
    refused(world.export(UNKNOWN), 404, "NOT_FOUND")


def test_unknown_paths_and_wrong_methods(each_world: World) -> None:
    client = each_world.client
    for path in ("/", "/api/v1", "/api/v2/lists", "/api/v1/lists/", "/api/v1/jobs/1"):
        refused(client.get(path), 404, "NOT_FOUND")
    wrong = client.delete("/api/v1/lists")
    refused(wrong, 405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["Allow"] == "GET"
    assert client.head("/api/v1/lists").status_code == 405
    assert client.get(f"/api/v1/campaigns/{each_world.sandbox.campaign_id}/generate").headers["Allow"] == "POST"


def test_request_ids_are_on_every_answer_and_in_newer_error_bodies(make_world: MakeWorld) -> None:
    older, newer = make_world(generation="2025"), make_world(generation="2026")
    assert "request_id" not in older.client.get("/api/v1/nothing").json()
    response = newer.client.get("/api/v1/nothing")
    assert response.json()["request_id"] == response.headers["X-Request-Id"]
    assert newer.client.get("/api/v1/lists").headers["X-Request-Id"] != response.headers["X-Request-Id"]


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
    refused(make_world(generation="2025").client.get("/api/v1/signatures"), 404, "NOT_FOUND")


def test_the_page_for_people_names_lists_and_escapes_them(world: World) -> None:
    world.bought("secret@x.example", options={"list_name": "<script>alert(1)</script>"})
    url = f"{world.sandbox.base_url}/campaigns/{world.sandbox.campaign_id}"
    page = httpx.get(url)
    assert page.status_code == 200
    assert "Spring Outreach" in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script>" not in page.text
    assert "completed" in page.text
    assert "secret@" not in page.text
    assert httpx.get(f"{world.sandbox.base_url}/campaigns/unknown").status_code == 404

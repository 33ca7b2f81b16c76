from __future__ import annotations

import csv
import io

import httpx
import pytest

from tests.sandbox.conftest import MakeWorld, World, refused


def test_campaigns_are_listed_and_found_by_part_of_their_name(each_world: World) -> None:
    client = each_world.client
    names = [campaign["name"] for campaign in client.get("/api/v1/campaigns").json()["campaigns"]]
    assert names == ["Spring Outreach", "Product Launch", "Draft Campaign"]
    for parameter in ("q", "name"):
        found = client.get("/api/v1/campaigns", params={parameter: "LAUNCH"}).json()["campaigns"]
        assert [campaign["name"] for campaign in found] == ["Product Launch"]
    both = client.get("/api/v1/campaigns", params={"q": "spring", "name": "launch"}).json()["campaigns"]
    assert [campaign["name"] for campaign in both] == ["Spring Outreach"]


@pytest.mark.parametrize("path", ["campaigns", "lists", "lists/x", "lists/x/export", "signatures"])
def test_reading_needs_a_right_key(make_world: MakeWorld, path: str) -> None:
    world = make_world(generation="2026")
    url = f"{world.sandbox.base_url}/api/v1/{path}"
    refused(httpx.get(url), 401, "UNAUTHORIZED", "missing api key")
    refused(httpx.get(url, headers={"Authorization": "Basic abc"}), 401, "UNAUTHORIZED", "missing api key")
    refused(httpx.get(url, headers={"X-API-Key": "mf_live_wrong"}), 401, "UNAUTHORIZED", "invalid api key.")


@pytest.mark.parametrize("endpoint", ["generate", "generate-batch"])
def test_buying_needs_a_right_key_before_anything_else(world: World, endpoint: str) -> None:
    url = f"{world.sandbox.base_url}/api/v1/campaigns/nonsense/{endpoint}"
    refused(httpx.post(url, content=b"nonsense"), 401, "UNAUTHORIZED", "missing")
    refused(httpx.post(url, headers={"Authorization": "Bearer no"}), 401, "UNAUTHORIZED", "invalid")


def test_either_header_carries_the_key_and_a_rotated_key_is_refused(world: World) -> None:
    url = f"{world.sandbox.base_url}/api/v1/campaigns"
    assert httpx.get(url, headers={"X-API-Key": world.sandbox.api_key}).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"bearer {world.sandbox.api_key}"}).status_code == 200
    old = world.sandbox.api_key
    world.sandbox.workspaces[0].api_key = "mf_live_new"
    refused(httpx.get(url, headers={"X-API-Key": old}), 401, "UNAUTHORIZED", "invalid")
    assert httpx.get(url, headers={"X-API-Key": "mf_live_new"}).status_code == 200


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
    assert world.lists(campaign_id="00000000-0000-4000-8000-000000000000") == []


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("lists?limit=0", "limit"),
        ("lists?limit=101", "limit"),
        ("lists?limit=ten", "limit"),
        ("lists?limit=", "limit"),
        ("lists?limit=1.5", "limit"),
        ("lists?offset=-1", "offset"),
        ("lists?status=done", "status"),
        ("lists?campaign_id=7", "campaign_id"),
        ("lists?limit=1&limit=2", "more than once"),
        ("lists?page=2", "page"),
        ("campaigns?query=x", "query"),
        ("campaigns?q=%FF", "utf-8"),
        ("lists/{list}?verbose=1", "verbose"),
        ("lists/{list}/export?format=xml", "format"),
        ("lists/{list}/export?columns=all", "columns"),
    ],
)
def test_wrong_queries_are_refused_by_name(world: World, path: str, named: str) -> None:
    path = path.replace("{list}", world.bought())
    refused(world.client.get(f"/api/v1/{path}"), 400, "BAD_REQUEST", named)


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


def test_a_failed_list_says_when_and_can_never_be_exported(each_world: World) -> None:
    list_id = each_world.bought()
    each_world.sandbox.fail(list_id)
    failed = each_world.list(list_id).json()
    assert failed["processing_status"] == "failed"
    assert "failed_at" in failed
    assert "leads_count" not in failed
    refused(each_world.export(list_id), 409, "NOT_READY", "failed")


def test_export_is_not_ready_before_completion(each_world: World) -> None:
    list_id = each_world.bought()
    each_world.sandbox.set_status(list_id, "processing")
    refused(each_world.export(list_id), 409, "NOT_READY", "processing")
    each_world.sandbox.complete(list_id)
    assert each_world.export(list_id).status_code == 200


def test_csv_and_json_exports_tell_the_same(each_world: World) -> None:
    options = {"email_count": 2, "email_signature": 'Robin "R." Vale, MachFive\n+49 30 1'}
    list_id = each_world.bought("a@x.example", "b@x.example", options=options)
    as_csv, as_json = each_world.export(list_id), each_world.export(list_id, "json")
    assert as_csv.headers["Content-Disposition"] == f'attachment; filename="MachFive-{list_id}.csv"'
    assert as_csv.headers["Content-Type"].startswith("text/csv")
    assert as_csv.text.count("\r\n") == 3
    assert each_world.client.get(f"/api/v1/lists/{list_id}/export").content == as_csv.content
    rows = list(csv.DictReader(io.StringIO(as_csv.text, newline="")))
    assert list(rows[0]) == ["email", "name", "company", "title", "subject_1", "body_1", "subject_2", "body_2"]
    leads = as_json.json()["leads"]
    assert [lead["email"] for lead in leads] == [row["email"] for row in rows] == ["a@x.example", "b@x.example"]
    for row, lead in zip(rows, leads, strict=True):
        assert [email["step"] for email in lead["sequence"]] == [1, 2]
        for email in lead["sequence"]:
            assert row[f"subject_{email['step']}"] == email["subject"]
            assert row[f"body_{email['step']}"] == email["body"]
            assert email["body"].endswith(options["email_signature"])


def test_json_export_leaves_out_what_a_lead_does_not_have(world: World) -> None:
    response = world.post("generate-batch", {"leads": [{"email": "only@x.example"}]})
    lead = world.export(response.json()["list_id"], "json").json()["leads"][0]
    assert set(lead) == {"email", "sequence"}


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
    unknown = "00000000-0000-4000-8000-000000000000"
    refused(world.batch(campaign=unknown), 404, "NOT_FOUND")
    refused(world.list(unknown), 404, "NOT_FOUND")
    refused(world.export(unknown), 404, "NOT_FOUND")


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

from __future__ import annotations

from typing import Any

import httpx

from machfive_provider.sandbox import Sandbox
from tests.sandbox.conftest import MakeWorld, World


def control(world: World) -> httpx.Client:
    return httpx.Client(base_url=f"{world.sandbox.base_url}/_sandbox", timeout=60)


def test_state_tells_everything_but_keys_and_leads(make_world: MakeWorld) -> None:
    world = make_world(processing_seconds=9, workspaces=2, credits=10)
    world.bought("a@x.example", "b@x.example")
    world.bought("A@x.example")
    world.generate()
    with control(world) as client:
        response = client.get("/state")
    state = response.json()
    assert state["generation"] == "2025"
    assert [(each["credits"], each["active_lists"]) for each in state["workspaces"]] == [(6, 2), (10, 0)]
    assert state["purchases"] == {"batches": 2, "generates": 1, "leads": 4, "credits": 4}
    assert state["duplicates"] == world.sandbox.duplicates == 1
    assert [each["processing_status"] for each in state["lists"]] == ["processing", "processing", "completed"]
    assert "mf_live_" not in response.text
    assert "x.example" not in response.text


def test_requests_are_recorded_without_the_key(world: World) -> None:
    world.client.get("/api/v1/lists", params={"limit": 3}, headers={"User-Agent": "me/1", "X-API-Key": "mf_live_x"})
    httpx.get(f"{world.sandbox.base_url}/api/v1/campaigns")
    world.batch()
    with control(world) as client:
        response = client.get("/requests")
    first, second, third = response.json()["requests"]
    told = {name: first[name] for name in ("method", "path", "endpoint", "query", "status", "user_agent", "fault")}
    assert told == {
        "method": "GET",
        "path": "/api/v1/lists",
        "endpoint": "lists",
        "query": {"limit": "3"},
        "status": 200,
        "user_agent": "me/1",
        "fault": None,
    }
    assert [each["authenticated"] for each in (first, second, third)] == [True, False, True]
    # The first and the third came over the same kept connection.
    assert first["client_port"] == third["client_port"] != second["client_port"]
    assert second["status"] == 401
    assert third["json"]["leads"][0]["email"] == "ada@analytical.example"
    assert "mf_live_" not in response.text
    assert [request.endpoint for request in world.sandbox.requests] == ["lists", "campaigns", "generate-batch"]
    assert len(world.sandbox.requests_to("lists")) == 1


def test_faults_are_scripted_listed_and_cleared(world: World) -> None:
    with control(world) as client:
        made = client.post("/faults", json={"kind": "status", "status": 503, "endpoint": "lists", "times": None})
        assert (made.status_code, made.json()["kind"]) == (201, "status")
        assert world.client.get("/api/v1/lists").status_code == 503
        assert client.get("/faults").json()["faults"][0]["used"] == 1
        assert client.delete("/faults").json() == {"faults": []}
        assert world.client.get("/api/v1/lists").status_code == 200
        bad: list[tuple[dict[str, Any], str]] = [({"kind": "explode"}, "explode"), ({}, "kind")]
        for body, named in bad:
            response = client.post("/faults", json=body)
            assert response.status_code == 400
            assert named in response.json()["message"]


def test_lists_are_pushed_along(make_world: MakeWorld) -> None:
    world = make_world(processing_seconds=1000)
    list_id = world.bought()
    with control(world) as client:
        assert client.post(f"/lists/{list_id}", json={"status": "completed", "name": "New"}).status_code == 200
        for body in ({}, {"status": 7}, {"state": "x"}):
            assert client.post(f"/lists/{list_id}", json=body).status_code == 400
        assert client.post("/lists/unknown", json={"name": "x"}).status_code == 404
    details = world.list(list_id).json()
    assert (details["processing_status"], details["custom_name"]) == ("completed", "New")


def test_campaigns_are_built(world: World) -> None:
    campaign = world.sandbox.unready_campaign_id
    with control(world) as client:
        assert client.post(f"/campaigns/{campaign}/built").json() == {"id": campaign, "ready": True}
        assert client.post("/campaigns/unknown/built").status_code == 404
    assert world.batch(campaign=campaign).status_code == 202


def test_reset_goes_back_to_the_start(world: World) -> None:
    first = world.bought()
    world.sandbox.fault("reset", times=None)
    with control(world) as client:
        assert client.post("/reset").json() == {"reset": True}
    assert (world.sandbox.purchases, world.sandbox.requests, world.sandbox.lists) == ([], [], [])
    assert world.sandbox.workspaces[0].credits == 2000
    assert world.bought() == first


async def test_only_this_machine_is_let_in_and_no_web_page() -> None:
    # No test can connect from another machine, so the application is called as uvicorn would call it for one.
    calls: list[tuple[str, dict[str, str], int]] = [
        ("127.0.0.1", {"Host": "evil.example"}, 403),
        ("127.0.0.1", {"Host": "[::1"}, 403),
        ("127.0.0.1", {"Origin": "https://evil.example"}, 403),
        ("127.0.0.1", {"Origin": "null"}, 403),
        ("192.0.2.7", {}, 403),
        ("127.0.0.9", {}, 200),
        ("127.0.0.1", {"Host": "localhost:1"}, 200),
        ("::1", {"Host": "[::1]:1"}, 200),
        ("127.0.0.1", {"Origin": "http://127.0.0.1:8080"}, 200),
    ]
    app = Sandbox().app
    for address, headers, status in calls:
        transport = httpx.ASGITransport(app, client=(address, 9))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            assert (await client.get("/_sandbox/state")).status_code == status, (address, headers)
            assert (await client.post("/_sandbox/reset")).status_code == status


def test_wrong_methods_and_paths(world: World) -> None:
    with control(world) as client:
        assert client.get("/reset").status_code == 405
        assert client.get("/nothing").status_code == 404
    assert world.sandbox.requests == []

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from machfive_provider.sandbox import Sandbox
from tests.sandbox.conftest import MakeWorld, World, refused

LISTS = "/api/v1/lists"


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "BAD_REQUEST"), (401, "UNAUTHORIZED"), (402, "INSUFFICIENT_CREDITS"), (403, "FORBIDDEN"), (404, "NOT_FOUND"),
     (409, "NOT_READY"), (429, "WORKSPACE_LIMIT"), (500, "INTERNAL_ERROR"), (503, "HTTP_503")],
)  # fmt: skip
def test_status_plays_any_error_once(each_world: World, status: int, code: str) -> None:
    each_world.sandbox.fault("status", "lists", status=status)
    refused(each_world.client.get(LISTS), status, code)
    assert each_world.client.get(LISTS).status_code == 200


def test_status_says_what_it_is_told(make_world: MakeWorld) -> None:
    world = make_world(generation="2026")
    world.sandbox.fault(
        "status", status=429, code="RATE_LIMITED", message="Slow down", detail=[1], headers={"Retry-After": "7"},
        request_id="req_mine",
    )  # fmt: skip
    response = world.client.get(LISTS)
    assert response.json() == {"error": "RATE_LIMITED", "message": "Slow down", "detail": [1], "request_id": "req_mine"}
    assert (response.headers["Retry-After"], response.headers["X-Request-Id"]) == ("7", "req_mine")
    world.sandbox.fault("status", status=500, request_id=None, body="oops")
    response = world.client.get(LISTS)
    assert (response.text, response.headers["Content-Type"]) == ("oops", "text/plain; charset=utf-8")
    assert "X-Request-Id" not in response.headers


def test_html_is_a_proxys_page(world: World) -> None:
    world.sandbox.fault("html", status=504)
    response = world.client.get(LISTS)
    assert (response.status_code, response.headers["Content-Type"]) == (504, "text/html")
    assert "504 Gateway Time-out" in response.text
    assert "X-Request-Id" not in response.headers


@pytest.mark.parametrize("accepted", [False, True])
def test_reset_drops_the_connection_before_or_after_the_purchase(world: World, accepted: bool) -> None:
    world.sandbox.fault("reset", "generate-batch", accepted=accepted)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        world.batch()
    assert len(world.sandbox.purchases) == accepted
    (request,) = world.sandbox.requests
    assert (request.status, request.fault) == (None, "reset")
    assert world.batch().status_code == 202


@pytest.mark.parametrize("form", ["csv", "json"])
def test_truncate_ends_a_body_before_its_promised_length(world: World, form: str) -> None:
    list_id = world.bought()
    whole = world.export(list_id, form).content
    world.sandbox.fault("truncate", "export", keep=0.25)
    received = []
    with world.client.stream("GET", f"{LISTS}/{list_id}/export", params={"format": form}) as response:
        assert int(response.headers["Content-Length"]) == len(whole)
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(response.iter_bytes())
    assert b"".join(received) == whole[: len(whole) // 4]


def test_truncate_keeps_less_than_everything(world: World) -> None:
    world.sandbox.fault("truncate", keep=1.0)
    with pytest.raises(httpx.RemoteProtocolError):
        world.client.get(LISTS)


def test_garbage_and_wrong_shape_look_like_success(world: World) -> None:
    world.sandbox.fault("garbage", "generate-batch", accepted=True)
    response = world.batch()
    assert response.status_code == 202
    with pytest.raises(ValueError, match=r"."):
        response.json()
    assert len(world.sandbox.purchases) == 1
    world.sandbox.fault("wrong_shape", "lists", body=["a"])
    response = world.client.get(LISTS)
    assert (response.status_code, response.json()) == (200, ["a"])


@pytest.mark.parametrize("accepted", [False, True])
def test_hang_never_answers(world: World, accepted: bool) -> None:
    world.sandbox.fault("hang", "generate-batch", accepted=accepted)
    outcome: list[Exception] = []

    def post() -> None:
        try:
            world.batch()
        except httpx.HTTPError as problem:
            outcome.append(problem)

    worker = threading.Thread(target=post)
    worker.start()
    world.sandbox.wait_until(lambda: world.sandbox.hanging == 1)
    assert len(world.sandbox.purchases) == accepted
    assert world.sandbox.requests[0].status is None
    world.sandbox.stop()
    worker.join()
    assert isinstance(outcome[0], httpx.TransportError)
    assert world.sandbox.hanging == 0


def test_a_client_that_gives_up_ends_the_hanging(world: World) -> None:
    world.sandbox.fault("hang")
    with pytest.raises(httpx.ReadTimeout):
        world.client.get(LISTS, timeout=0.5)
    world.sandbox.wait_until(lambda: world.sandbox.hanging == 0)
    assert world.client.get(LISTS).status_code == 200


def test_fields_are_dropped_and_added(world: World) -> None:
    world.sandbox.fault("drop_field", "generate-batch", field="list_id")
    response = world.batch()
    assert response.status_code == 202
    assert "list_id" not in response.json()
    assert response.json()["status"] == "processing"
    world.sandbox.fault("extra_field", fields={"beta": {"x": 1}})
    assert world.client.get(LISTS).json()["beta"] == {"x": 1}
    list_id = world.sandbox.lists[0].id
    plain = world.export(list_id).content
    world.sandbox.fault("drop_field", "export", field="leads")
    assert world.export(list_id).content == plain


@pytest.mark.parametrize("kind", ["delay", "slow_headers"])
def test_late_answers_are_right_ones(world: World, kind: str) -> None:
    world.sandbox.fault(kind, seconds=0.01)
    response = world.batch()
    assert response.status_code == 202
    assert len(world.sandbox.purchases) == 1


@pytest.mark.parametrize(("kind", "bought"), [("delay", 0), ("slow_headers", 1)])
def test_delay_waits_before_the_purchase_and_slow_headers_after_it(world: World, kind: str, bought: int) -> None:
    world.sandbox.fault(kind, seconds=3600)
    url = f"/api/v1/campaigns/{world.sandbox.campaign_id}/generate-batch"
    with pytest.raises(httpx.ReadTimeout):
        world.client.post(url, json={"leads": [{"email": "a@x.example"}]}, timeout=0.5)
    world.sandbox.wait_for_requests("generate-batch", 1)
    world.sandbox.wait_until(lambda: len(world.sandbox.purchases) == bought)
    world.sandbox.stop()
    assert len(world.sandbox.purchases) == bought


def test_redirect_leads_elsewhere(world: World) -> None:
    world.sandbox.fault("redirect", location="https://elsewhere.example/")
    response = world.client.get(LISTS)
    assert (response.status_code, response.headers["Location"]) == (307, "https://elsewhere.example/")


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
    for kind in ("fail_list", "stuck", "unknown_status"):
        world.sandbox.fault(kind, after=0)
        list_id = world.bought()
        running = world.list(list_id).json()["processing_status"]
        world.clock.now += 10
        ended = world.list(list_id).json()["processing_status"]
        expected = {
            "fail_list": ("processing", "failed"),
            "stuck": ("processing", "processing"),
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

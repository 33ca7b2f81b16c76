"""Request faults: what the client sees instead of the right response."""

from __future__ import annotations

import socket
import threading

import httpx
import pytest

from tests.sandbox.conftest import MakeWorld, World, refused

LISTS = "/api/v1/lists"


def lost_batch(world: World) -> None:
    with pytest.raises(httpx.TransportError):
        world.batch()


def test_status_plays_any_error_once(each_world: World) -> None:
    codes = {
        400: "BAD_REQUEST", 401: "UNAUTHORIZED", 402: "INSUFFICIENT_CREDITS", 403: "FORBIDDEN", 404: "NOT_FOUND",
        409: "NOT_READY", 429: "WORKSPACE_LIMIT", 500: "INTERNAL_ERROR", 503: "HTTP_503",
    }  # fmt: skip
    for status, code in codes.items():
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
    for keep, kept in ((0.25, len(whole) // 4), (1.0, len(whole) - 1)):
        world.sandbox.fault("truncate", "export", keep=keep)
        received = []
        with world.client.stream("GET", f"{LISTS}/{list_id}/export", params={"format": form}) as response:
            assert int(response.headers["Content-Length"]) == len(whole)
            with pytest.raises(httpx.RemoteProtocolError):
                received.extend(response.iter_bytes())
        assert b"".join(received) == whole[:kept]


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
    worker = threading.Thread(target=lost_batch, args=(world,))
    worker.start()
    world.sandbox.wait_until(lambda: world.sandbox.hanging == 1)
    assert len(world.sandbox.purchases) == accepted
    assert world.sandbox.requests[0].status is None
    world.sandbox.stop()
    worker.join()
    assert world.sandbox.hanging == 0


def test_a_client_that_gives_up_ends_the_hanging(world: World) -> None:
    world.sandbox.fault("hang")
    with socket.create_connection(("127.0.0.1", world.sandbox.port)) as client:
        client.sendall(b"GET /api/v1/lists HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        world.sandbox.wait_until(lambda: world.sandbox.hanging == 1)
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


@pytest.mark.parametrize(("kind", "bought"), [("delay", 0), ("slow_headers", 1)])
def test_delay_waits_before_the_purchase_and_slow_headers_after_it(world: World, kind: str, bought: int) -> None:
    world.sandbox.fault(kind, seconds=0.01)
    assert world.batch().status_code == 202
    world.sandbox.fault(kind, seconds=3600)
    worker = threading.Thread(target=lost_batch, args=(world,))
    worker.start()
    world.sandbox.wait_for_requests("generate-batch", 2)
    world.sandbox.wait_until(lambda: len(world.sandbox.purchases) == 1 + bought)
    world.sandbox.stop()
    worker.join()
    assert len(world.sandbox.purchases) == 1 + bought


def test_redirect_leads_elsewhere(world: World) -> None:
    world.sandbox.fault("redirect", location="https://elsewhere.example/")
    response = world.client.get(LISTS)
    assert (response.status_code, response.headers["Location"]) == (307, "https://elsewhere.example/")

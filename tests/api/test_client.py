"""The two clients over real sockets: what they send, how they pause, stream and close."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from machfive_provider import __version__, exceptions
from machfive_provider.api import protocol
from machfive_provider.api.call import Call
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.api.retries import QUICK, RetryPolicy
from machfive_provider.sandbox import Sandbox
from tests.sockets import WORLDS, http, open_client, raw_server, unused_url
from tests.tasks import UNKNOWN_ID

LEAD = Lead("dana.reyes@example.com", name="Dana Reyes")


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> str:
    return request.param


def buy(sandbox: Sandbox, leads: int = 1) -> str:
    """Buy a list and return its id."""
    call = protocol.generate_batch(sandbox.campaign_id, [Lead(f"lead{n}@example.com") for n in range(leads)])
    with open_client("sync", sandbox.base_url, sandbox.api_key) as client:
        return client.send(call).list_id


# --- what is sent


def test_headers(world: str):
    with raw_server(http(b'{"campaigns": []}')) as server:
        with open_client(world, server.base_url, "mf_live_headers") as client:
            client.send(protocol.list_campaigns("a&b"))
        head = server.heads[0].decode()
    assert head.startswith("GET /api/v1/campaigns?q=a%26b HTTP/1.1\r\n")
    lines = head.lower().split("\r\n")
    assert "authorization: bearer mf_live_headers" in lines
    assert f"user-agent: airflow-provider-machfive/{__version__}" in lines
    assert "accept: application/json" in lines
    assert not [line for line in lines if line.startswith(("content-type", "x-api-key", "cookie"))]


def test_a_purchase_is_json_of_what_was_set(sandbox: Sandbox):
    with open_client("sync", sandbox.base_url, sandbox.api_key) as client:
        accepted = client.send(protocol.generate_batch(sandbox.campaign_id, [LEAD], {"email_count": 2}))
    (request,) = sandbox.requests
    assert request.authenticated
    assert request.headers["content-type"] == "application/json"
    assert request.json == {
        "leads": [{"email": "dana.reyes@example.com", "name": "Dana Reyes"}],
        "options": {"email_count": 2},
    }
    assert accepted.list_id == sandbox.purchases[0].list_id


def test_a_base_url_may_have_a_path(world: str):
    with raw_server(http(b'{"campaigns": []}')) as server:
        with open_client(world, f"{server.base_url}/gateway/") as client:
            client.send(protocol.list_campaigns())
        assert server.heads[0].startswith(b"GET /gateway/api/v1/campaigns HTTP/1.1")


def test_loopback_is_reached_without_the_proxy_of_the_environment(
    world: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with open_client(world, sandbox.base_url, sandbox.api_key) as client:
        assert client.send(protocol.list_campaigns())


# --- pauses

HOUR_AHEAD = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("7", 7, 7), ("0", 0, 0.5), ("3600", 60, 60), ("soon", 0, 0.5), (HOUR_AHEAD, 60, 60)],
    ids=["seconds", "none", "too many", "no number", "date"],
)
def test_retry_after(world: str, sandbox: Sandbox, asked: str, least: float, most: float):
    sandbox.fault("status", endpoint="campaigns", status=429, code="BUSY", headers={"Retry-After": asked})
    pauses: list[float] = []
    with open_client(world, sandbox.base_url, sandbox.api_key, RetryPolicy(), pauses.append) as client:
        assert client.send(protocol.list_campaigns())
    (pause,) = pauses
    assert least <= pause <= most


def test_the_client_pauses_with_time_sleep_as_it_is_then(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    sandbox.fault("status", endpoint="campaigns", status=500, headers={"Retry-After": "7"})
    with closing(MachFiveClient(ClientSettings(sandbox.base_url, sandbox.api_key))) as client:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        assert client.send(protocol.list_campaigns())
    assert pauses == [7]


def test_the_error_holds_the_retry_after_of_a_purchase_which_is_not_repeated(sandbox: Sandbox):
    sandbox.fault(
        "status", endpoint="generate-batch", status=429, code="WORKSPACE_LIMIT", headers={"Retry-After": "17"}
    )
    pauses: list[float] = []
    with (
        open_client("sync", sandbox.base_url, sandbox.api_key, RetryPolicy(), pauses.append) as client,
        pytest.raises(exceptions.WorkspaceLimitError) as caught,
    ):
        client.send(protocol.generate_batch(sandbox.campaign_id, [LEAD]))
    assert caught.value.retry_after == 17
    assert pauses == []


def test_pauses_grow_and_are_capped(world: str, sandbox: Sandbox):
    sandbox.fault("html", endpoint="campaigns", times=None)
    pauses: list[float] = []
    with (
        open_client(world, sandbox.base_url, sandbox.api_key, RetryPolicy(attempts=7), pauses.append) as client,
        pytest.raises(exceptions.ServerError),
    ):
        client.send(protocol.list_campaigns())
    assert len(pauses) == 6
    for pause, longest in zip(pauses, (0.5, 1, 2, 4, 8, 8), strict=True):
        assert 0 <= pause <= longest


# --- outages


@pytest.mark.parametrize(
    ("kind", "arguments"), [("html", {}), ("reset", {}), ("status", {"status": 429})], ids=["5xx", "reset", "429"]
)
def test_an_outage_is_sat_out_by_reads(world: str, kind: str, arguments: dict[str, Any], sandbox: Sandbox):
    """Of 25 s, because the requests take some time too; that it is 30 s exactly is tested without a network."""
    sandbox.fault(kind, endpoint="campaigns", times=None, **arguments)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if sum(pauses) >= 25:
            sandbox.clear_faults()

    with open_client(world, sandbox.base_url, sandbox.api_key, RetryPolicy(), pause) as client:
        assert client.send(protocol.list_campaigns())


def test_a_longer_outage_is_given_up_with_what_was_tried(world: str):
    pauses: list[float] = []
    with (
        open_client(world, unused_url(), policy=RetryPolicy(), sleep=pauses.append) as client,
        pytest.raises(exceptions.TransportError, match=r"Tried [0-9]+ times in 3[0-9] s\. \[") as caught,
    ):
        client.send(protocol.list_campaigns())
    assert caught.value.attempts == len(pauses) + 1
    assert 30 <= caught.value.tried_for < 39


def test_a_short_request_timeout_is_for_reads_only(world: str):
    """What is paid for is not left early by whoever wants a quick answer."""
    policy = RetryPolicy(attempts=1, request_timeout=0.05)
    patient = threading.Event()

    def late(send_all: Callable[[bytes], Any]) -> None:
        patient.wait(0.2)
        send_all(http(b'{"list_id": "1"}', "202 Accepted"))

    with raw_server(late) as server:
        with (
            open_client(world, server.base_url, policy=policy) as client,
            pytest.raises(exceptions.TransportError, match="timed out"),
        ):
            client.send(protocol.list_campaigns())
        with open_client("sync", server.base_url, policy=policy) as client:
            assert client.send(protocol.generate_batch(UNKNOWN_ID, [LEAD])).list_id == "1"
    assert RetryPolicy(attempts=1, request_timeout=3.0) == QUICK


# --- connections


PAID = {
    "batches": (protocol.generate_batch(UNKNOWN_ID, [LEAD]), b'{"list_id": "1"}'),
    "single leads": (protocol.generate(UNKNOWN_ID, LEAD), b'{"list_id": "1", "sequence": []}'),
}


def connections(world: str, call: Call[Any], body: bytes) -> int:
    """Send a call three times and return over how many connections."""
    with raw_server(http(body).replace(b"Connection: close", b"Connection: keep-alive")) as server:
        with open_client(world, server.base_url) as client:
            for _ in range(3):
                client.send(call)
        assert len(server.heads) == 3
        return server.connections


def test_reads_share_a_connection(world: str):
    assert connections(world, protocol.list_campaigns(), b'{"campaigns": []}') == 1


@pytest.mark.parametrize("what", PAID)
def test_purchases_never_share_a_connection(what: str):
    """A kept connection that the server has just closed would make a purchase end ambiguously."""
    assert connections("sync", *PAID[what]) == 3


def test_nothing_stays_open_after_close(world: str, sandbox: Sandbox):
    sandbox.fault("reset", endpoint="lists")
    list_id = buy(sandbox)
    with open_client(world, sandbox.base_url, sandbox.api_key) as client:
        client.send(protocol.list_lists())
        with pytest.raises(exceptions.NotFoundError):
            client.send(protocol.get_list("00000000-0000-4000-8000-000000000000"))
        chunks = client.stream(protocol.export(list_id))
        assert next(chunks)
        chunks.close()
    sandbox.wait_until(lambda: sandbox.open_connections == 0)


# --- streams


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_large_export_comes_in_chunks(world: str, sandbox: Sandbox, form: str):
    leads = 1500
    list_id = buy(sandbox, leads)
    with open_client(world, sandbox.base_url, sandbox.api_key) as client:
        chunks = list(client.stream(protocol.export(list_id, form)))
    whole = b"".join(chunks)
    assert len(chunks) > 3
    assert max(map(len, chunks)) <= 64 * 1024
    assert whole.count(b"lead1499@example.com") == 1
    if form == "json":
        assert len(json.loads(whole)["leads"]) == leads
    (request,) = sandbox.requests_to("export")
    assert request.query == {"format": form}
    assert request.headers["accept"] == {"csv": "text/csv", "json": "application/json"}[form]


def test_a_stream_that_breaks_off_is_not_begun_again(world: str, sandbox: Sandbox):
    list_id = buy(sandbox, 500)
    sandbox.fault("truncate", endpoint="export", keep=0.9)
    received = 0

    def read_all() -> None:
        nonlocal received
        for chunk in client.stream(protocol.export(list_id)):
            received += len(chunk)

    with open_client(world, sandbox.base_url, sandbox.api_key) as client:
        with pytest.raises(exceptions.TransportError, match=r"broke off after [1-9][0-9]* bytes") as caught:
            read_all()
        assert str(received) in str(caught.value)
        assert caught.value.endpoint == "GET /api/v1/lists/{list_id}/export"
    assert received > 0
    assert len(sandbox.requests_to("export")) == 1


def test_a_stream_is_repeated_before_its_first_byte(world: str, sandbox: Sandbox):
    list_id = buy(sandbox)
    sandbox.fault("html", endpoint="export", times=2)
    sandbox.fault("reset", endpoint="export", times=2)
    with open_client(world, sandbox.base_url, sandbox.api_key) as client:
        assert b"lead0@example.com" in b"".join(client.stream(protocol.export(list_id)))
    assert len(sandbox.requests_to("export")) == 5


def test_a_page_with_status_200_is_no_export(world: str, sandbox: Sandbox):
    list_id = buy(sandbox)
    sandbox.fault("html", endpoint="export", times=None, status=200)
    with (
        open_client(world, sandbox.base_url, sandbox.api_key) as client,
        pytest.raises(exceptions.ProtocolError, match="HTML page"),
    ):
        list(client.stream(protocol.export(list_id)))


def test_an_export_that_is_not_ready(world: str, slow_sandbox: Sandbox):
    list_id = buy(slow_sandbox)
    with open_client(world, slow_sandbox.base_url, slow_sandbox.api_key) as client:
        with pytest.raises(exceptions.NotReadyError):
            list(client.stream(protocol.export(list_id)))
        slow_sandbox.complete(list_id)
        assert list(client.stream(protocol.export(list_id)))


# --- what an observer hears


def test_an_observer_hears_of_each_attempt(world: str, sandbox: Sandbox):
    heard: list[tuple[str, int | None, bool]] = []
    observe = lambda *told: heard.append(told)  # noqa: E731
    list_id = buy(sandbox)
    sandbox.fault("status", endpoint="export", status=503)
    sandbox.fault("html", endpoint="campaigns", times=1, status=502)
    with open_client(world, sandbox.base_url, sandbox.api_key, observe=observe) as client:
        client.send(protocol.list_campaigns())
        assert b"".join(client.stream(protocol.export(list_id)))
        with pytest.raises(exceptions.NotFoundError):
            client.send(protocol.get_list(UNKNOWN_ID))
    with (
        open_client(world, unused_url(), policy=QUICK, observe=observe) as client,
        pytest.raises(exceptions.TransportError),
    ):
        client.send(protocol.list_campaigns())
    assert heard == [
        ("GET /api/v1/campaigns", 502, True),
        ("GET /api/v1/campaigns", 200, False),
        ("GET /api/v1/lists/{list_id}/export", 503, True),
        ("GET /api/v1/lists/{list_id}/export", 200, False),
        ("GET /api/v1/lists/{list_id}", 404, False),
        ("GET /api/v1/campaigns", None, False),
    ]

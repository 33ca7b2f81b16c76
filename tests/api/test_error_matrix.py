"""Every error response and every failure, at every endpoint that has it, with both clients, over a real socket."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pendulum
import pytest

from machfive_provider import exceptions
from machfive_provider.api import call, protocol
from machfive_provider.api.models import Lead
from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.sockets import WORLDS, Client, http, open_client, raw_server, unused_url
from tests.tasks import UNKNOWN_ID

LEAD = Lead("dana.reyes@example.com", name="Dana Reyes")
ATTEMPTS = 5  # of a read, with the policy of `open_client`
READS = ("campaigns", "lists", "list", "export")
POSTS = ("generate", "generate-batch")
ENDPOINTS = (*READS, *POSTS)
TEMPLATES = {
    "campaigns": "GET /api/v1/campaigns",
    "lists": "GET /api/v1/lists",
    "list": "GET /api/v1/lists/{list_id}",
    "export": "GET /api/v1/lists/{list_id}/export",
    "generate": "POST /api/v1/campaigns/{campaign_id}/generate",
    "generate-batch": "POST /api/v1/campaigns/{campaign_id}/generate-batch",
}


def each_client(endpoints: Iterable[str] = ENDPOINTS) -> list[tuple[str, str]]:
    """Return which client makes which call: the asynchronous one only reads."""
    return [(world, each) for each in endpoints for world in WORLDS if world == "sync" or each in READS]


def send(
    client: Client, endpoint: str, *, campaign_id: str = UNKNOWN_ID, list_id: str = UNKNOWN_ID, patience: float = 30.0
) -> Any:
    """Make the endpoint's call; ``patience`` replaces its read timeout."""
    if endpoint == "export":
        return list(client.stream(dataclasses.replace(protocol.export(list_id), read_timeout=patience)))
    call: call.Call[Any] = {
        "campaigns": protocol.list_campaigns,
        "lists": protocol.list_lists,
        "list": lambda: protocol.get_list(list_id),
        "generate": lambda: protocol.generate(campaign_id, LEAD),
        "generate-batch": lambda: protocol.generate_batch(campaign_id, [LEAD]),
    }[endpoint]()
    return client.send(dataclasses.replace(call, request=dataclasses.replace(call.request, read_timeout=patience)))


def requests_expected(endpoint: str, error: type[exceptions.MachFiveError]) -> int:
    """Only reads are repeated, and only what time may heal; waiting for a list is not the client's business."""
    passing = issubclass(error, exceptions.MachFiveTransientError) and error is not exceptions.NotReadyError
    return ATTEMPTS if endpoint in READS and passing else 1


def assert_no_leak(key: str, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Check that the key is nowhere a person, a log or a database could meet it."""
    seen: BaseException | None = error
    while seen is not None:
        assert key not in f"{seen} {seen!r} {seen.args} {vars(seen)}"
        seen = seen.__cause__ or seen.__context__
    assert key not in "".join(traceback.format_exception(error))
    assert key not in caplog.text
    assert "Dana" not in str(error)


# --- the error table of the vendor's errors page


class Row(NamedTuple):
    status: int
    code: str
    error: type[exceptions.MachFiveError]
    endpoints: tuple[str, ...] = ENDPOINTS


TABLE = (
    Row(400, "BAD_REQUEST", exceptions.BadRequestError),
    Row(401, "UNAUTHORIZED", exceptions.UnauthorizedError),
    Row(402, "INSUFFICIENT_CREDITS", exceptions.InsufficientCreditsError, POSTS),
    Row(403, "FORBIDDEN", exceptions.ForbiddenError),  # another workspace; in the newer generation also a missing scope
    Row(404, "NOT_FOUND", exceptions.NotFoundError, ("list", "export", "lists", *POSTS)),
    Row(409, "NOT_READY", exceptions.NotReadyError, ("export",)),
    Row(429, "WORKSPACE_LIMIT", exceptions.WorkspaceLimitError, POSTS),
    Row(500, "INTERNAL_ERROR", exceptions.ServerError),
    # Not on that page: docs/api.md, "Met in practice" and "Two generations".
    Row(408, "REQUEST_TIMEOUT", exceptions.ServerError),
    Row(418, "ADDED_LATER", exceptions.MachFivePermanentError),
    Row(429, "RATE_LIMITED", exceptions.RateLimitedError),
    Row(429, "ADDED_LATER", exceptions.RateLimitedError),
    Row(503, "OVERLOADED", exceptions.ServerError),
)
MATRIX = [
    pytest.param(world, endpoint, row, id=f"{row.status}-{row.code}-{endpoint}-{world}")
    for row in TABLE
    for world, endpoint in each_client(row.endpoints)
]


@pytest.mark.parametrize(("world", "endpoint", "row"), MATRIX)
def test_error_table(world: str, endpoint: str, row: Row, sandbox: Sandbox, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    key = sandbox.api_key
    sandbox.fault(
        "status",
        endpoint=endpoint,
        times=None,
        status=row.status,
        code=row.code,
        message=f"The API's own words, to {key}.",
        detail={"hint": f"said {key} again"},
        request_id="req_support_1",
    )
    before = pendulum.now("UTC")

    with open_client(world, sandbox.base_url, key) as client, pytest.raises(row.error) as caught:
        send(client, endpoint)

    error = caught.value
    assert type(error) is row.error
    assert len(sandbox.requests) == len(sandbox.requests_to(endpoint)) == requests_expected(endpoint, row.error)
    assert sandbox.purchases == []
    assert (error.status_code, error.code, error.request_id) == (row.status, row.code, "req_support_1")
    assert error.endpoint == TEMPLATES[endpoint]
    assert error.detail == {"hint": "said *** again"}
    assert before <= error.occurred_at <= pendulum.now("UTC")
    assert error.occurred_at.timezone_name == "UTC"
    assert error.occurred_at.utcoffset().total_seconds() == 0
    for part in ("The API's own words, to ***.", str(row.status), row.code, "req_support_1", TEMPLATES[endpoint]):
        assert part in str(error)
    assert error.occurred_at.to_iso8601_string() in str(error)
    assert "\n" not in str(error)
    assert_no_leak(key, error, caplog)


@pytest.mark.parametrize(("world", "endpoint"), each_client(READS))
def test_a_read_heals_within_its_attempts(world: str, endpoint: str, sandbox: Sandbox):
    """Four failures, then the response: one attempt fewer would have failed."""
    list_id = bought(sandbox)
    sandbox.fault("status", endpoint=endpoint, times=ATTEMPTS - 1, status=500)
    with open_client(world, sandbox.base_url, sandbox.api_key) as client:
        assert send(client, endpoint, list_id=list_id)
    assert len(sandbox.requests_to(endpoint)) == ATTEMPTS


# --- error responses that the sandbox gives by itself, not scripted ones


def bought(sandbox: Sandbox) -> str:
    """Buy a list and return its id."""
    with open_client("sync", sandbox.base_url, sandbox.api_key) as client:
        list_id: str = send(client, "generate-batch", campaign_id=sandbox.campaign_id).list_id
    return list_id


@pytest.mark.parametrize(("world", "endpoint"), each_client())
def test_wrong_key(world: str, endpoint: str, sandbox: Sandbox, caplog: pytest.LogCaptureFixture):
    wrong = "mf_live_00000000000000000000000000000000"
    with (
        open_client(world, sandbox.base_url, wrong) as client,
        pytest.raises(exceptions.UnauthorizedError, match=r"^Invalid API key\..* \[401 UNAUTHORIZED, ") as caught,
    ):
        send(client, endpoint)
    assert len(sandbox.requests) == 1
    assert re.fullmatch(r"req_[0-9a-f]+", caught.value.request_id)
    assert "password field" in str(caught.value)
    assert_no_leak(wrong, caught.value, caplog)


@pytest.mark.parametrize("endpoint", [*POSTS, "list", "export"])
def test_something_that_does_not_exist_or_belongs_to_another_workspace(endpoint: str):
    with Sandbox(SandboxSettings(workspaces=2)) as sandbox:
        mine, other = sandbox.workspaces
        with open_client("sync", sandbox.base_url, other.api_key) as client:
            list_id = send(client, "generate-batch", campaign_id=other.campaigns[0].id).list_id
        with open_client("sync", sandbox.base_url, mine.api_key) as client:
            with pytest.raises(exceptions.NotFoundError, match=r"not found\..* \[404 NOT_FOUND, "):
                send(client, endpoint)
            with pytest.raises(exceptions.ForbiddenError, match=r"not in the workspace .* \[403 FORBIDDEN, "):
                send(client, endpoint, campaign_id=other.campaigns[0].id, list_id=list_id)
        assert len(sandbox.purchases) == 1


@pytest.mark.parametrize("endpoint", POSTS)
def test_purchases_that_the_api_does_not_accept(endpoint: str, sandbox: Sandbox):
    sandbox.workspaces[0].credits = 0
    with open_client("sync", sandbox.base_url, sandbox.api_key) as client:
        with pytest.raises(exceptions.InsufficientCreditsError, match="You have 0 credits remaining"):
            send(client, endpoint, campaign_id=sandbox.campaign_id)
        with pytest.raises(exceptions.BadRequestError, match="not set up for generation"):
            send(client, endpoint, campaign_id=sandbox.unready_campaign_id)
    assert len(sandbox.requests) == 2


def test_a_full_workspace_and_an_export_too_early(slow_sandbox: Sandbox):
    lists = [bought(slow_sandbox) for _ in range(slow_sandbox.settings.concurrency)]
    with open_client("sync", slow_sandbox.base_url, slow_sandbox.api_key) as client:
        with pytest.raises(exceptions.WorkspaceLimitError, match="Too many concurrent batch jobs"):
            send(client, "generate-batch", campaign_id=slow_sandbox.campaign_id)
        with pytest.raises(exceptions.NotReadyError, match=r"\[409 NOT_READY, "):
            send(client, "export", list_id=lists[0])
    assert len(slow_sandbox.requests) == len(lists) + 2


def test_no_credits_in_the_newer_generation():
    """``detail`` is an object there, and the request id stands in the body as well."""
    with Sandbox(SandboxSettings(generation="2026", credits=0)) as sandbox:
        options = {"email_count": 2, "email_signature": "Best"}
        with (
            open_client("sync", sandbox.base_url, sandbox.api_key) as client,
            pytest.raises(exceptions.InsufficientCreditsError) as caught,
        ):
            client.send(protocol.generate_batch(sandbox.campaign_id, [LEAD], options))
    assert caught.value.detail == {"required": 1, "available": 0, "payg_enabled": False, "pct_of_cap": 100}
    assert '"required": 1' in str(caught.value)
    assert caught.value.request_id


# --- what is between here and the API


class Trouble(NamedTuple):
    name: str
    kind: str
    args: dict[str, Any]
    error: type[exceptions.MachFiveError]
    says: str
    endpoints: tuple[str, ...] = ENDPOINTS
    patience: float = 30.0


# The export's body is the caller's to read: what is wrong inside it is not met by the client.
_PARSED = tuple(each for each in ENDPOINTS if each != "export")
TROUBLES = (
    *(
        Trouble(
            f"html-{status}",
            "html",
            {"status": status},
            exceptions.ServerError,
            f"responded {status} and gave no reason",
        )
        for status in (500, 502, 503, 504)
    ),
    Trouble("html-200", "html", {"status": 200}, exceptions.ProtocolError, "HTML page"),
    Trouble("html-404", "html", {"status": 404}, exceptions.NotFoundError, "gave no reason (an HTML page"),
    Trouble("reset", "reset", {}, exceptions.TransportError, "MachFive sent no complete response"),
    Trouble("hang", "hang", {}, exceptions.TransportError, "timed out", patience=0.03),
    Trouble("garbage", "garbage", {}, exceptions.ProtocolError, "where JSON belongs", _PARSED),
    Trouble("garbage-500", "garbage", {"status": 500}, exceptions.ServerError, "gave no reason"),
    Trouble("wrong-shape", "wrong_shape", {}, exceptions.ProtocolError, "does not follow the API's contract", _PARSED),
    Trouble("array", "wrong_shape", {"body": [1]}, exceptions.ProtocolError, "is not an object", _PARSED),
    Trouble("shapeless-500", "wrong_shape", {"status": 500, "body": [1]}, exceptions.ServerError, "gave no reason"),
    Trouble("truncate", "truncate", {}, exceptions.TransportError, "MachFive sent no complete response", _PARSED),
    Trouble("no-content", "status", {"status": 204, "body": ""}, exceptions.ProtocolError, "does not follow the API's"),
)
TROUBLE_MATRIX = [
    pytest.param(world, endpoint, trouble, id=f"{trouble.name}-{endpoint}-{world}")
    for trouble in TROUBLES
    for world, endpoint in each_client(trouble.endpoints)
]


@pytest.mark.parametrize(("world", "endpoint", "trouble"), TROUBLE_MATRIX)
def test_trouble_on_the_way(
    world: str, endpoint: str, trouble: Trouble, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    list_id = bought(sandbox)
    spent = len(sandbox.purchases)
    asked = len(sandbox.requests_to(endpoint))
    sandbox.fault(trouble.kind, endpoint=endpoint, times=None, **trouble.args)
    with open_client(world, sandbox.base_url, sandbox.api_key) as client, pytest.raises(trouble.error) as caught:
        send(client, endpoint, campaign_id=sandbox.campaign_id, list_id=list_id, patience=trouble.patience)
    assert type(caught.value) is trouble.error
    assert trouble.says in str(caught.value)
    assert len(sandbox.requests_to(endpoint)) - asked == requests_expected(endpoint, trouble.error)
    # A truncated response belongs to an accepted purchase; the other faults hide the request from the API.
    assert len(sandbox.purchases) - spent == (endpoint in POSTS and trouble.kind == "truncate")
    if isinstance(caught.value, exceptions.TransportError):
        assert caught.value.may_have_arrived
        assert ("The request may have arrived, and may be paid for." in str(caught.value)) is (endpoint in POSTS)
    assert_no_leak(sandbox.api_key, caught.value, caplog)


@pytest.mark.parametrize("endpoint", POSTS)
@pytest.mark.parametrize("kind", ["reset", "html", "garbage", "hang"])
def test_a_purchase_is_never_repeated_although_it_was_accepted(endpoint: str, kind: str, sandbox: Sandbox):
    sandbox.fault(kind, endpoint=endpoint, times=None, accepted=True)
    with (
        open_client("sync", sandbox.base_url, sandbox.api_key) as client,
        pytest.raises(exceptions.MachFiveTransientError),
    ):
        send(client, endpoint, campaign_id=sandbox.campaign_id, patience=0.3 if kind == "hang" else 30.0)
    assert len(sandbox.requests_to(endpoint)) == 1
    assert len(sandbox.purchases) == 1


@pytest.mark.parametrize(("world", "endpoint"), each_client())
def test_a_redirect_is_not_followed(world: str, endpoint: str, sandbox: Sandbox):
    with raw_server(http(b"{}")) as elsewhere:
        sandbox.fault("redirect", endpoint=endpoint, times=None, location=f"{elsewhere.base_url}/api/v1/campaigns")
        with (
            open_client(world, sandbox.base_url, sandbox.api_key) as client,
            pytest.raises(exceptions.ProtocolError, match="redirect, which is not followed"),
        ):
            send(client, endpoint)
        assert elsewhere.heads == []
    assert len(sandbox.requests_to(endpoint)) == requests_expected(endpoint, exceptions.ProtocolError)


@pytest.mark.parametrize(("world", "endpoint"), each_client())
def test_connection_refused(world: str, endpoint: str, caplog: pytest.LogCaptureFixture):
    """Nothing left this machine, so even a purchase may be sent again."""
    pauses: list[float] = []
    with (
        open_client(world, unused_url(), sleep=pauses.append) as client,
        pytest.raises(exceptions.TransportError, match="cannot be reached") as caught,
    ):
        send(client, endpoint)
    assert not caught.value.may_have_arrived
    assert ("Nothing was sent." in str(caught.value)) is (endpoint in POSTS)
    assert f"Tried {ATTEMPTS} times in " in str(caught.value)
    assert len(pauses) == ATTEMPTS - 1
    assert_no_leak("mf_live_0123456789abcdefghijABCDEFGHIJ00", caught.value, caplog)


# --- bodies without end

MIB = 1024 * 1024


@pytest.mark.parametrize(("world", "endpoint"), each_client((*POSTS, "campaigns", "export")))
def test_an_oversized_body_is_refused_and_its_connection_closed(world: str, endpoint: str):
    hung_up = threading.Semaphore(0)

    def endless(send_all: Callable[[bytes], Any]) -> None:
        status = b"502 Bad Gateway" if endpoint == "export" else b"200 OK"
        try:
            send_all(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n")
            for _ in range(64):
                send_all(b" " * MIB)
        except OSError:
            hung_up.release()

    with raw_server(endless) as server, open_client(world, server.base_url) as client:
        with pytest.raises(exceptions.ProtocolError, match="larger than 16 MiB"):
            send(client, endpoint)
        assert len(server.heads) == requests_expected(endpoint, exceptions.ProtocolError)
        for _ in server.heads:
            assert hung_up.acquire(timeout=60), "the client keeps a connection open"


@pytest.mark.parametrize("world", WORLDS)
def test_a_body_of_just_the_limit_is_read(world: str):
    body = json.dumps({"campaigns": []}).encode().ljust(16 * MIB)
    with raw_server(http(body)) as server, open_client(world, server.base_url) as client:
        assert send(client, "campaigns") == []

"""Every request as it is built, every response as it is parsed."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.api import error_responses, protocol
from machfive_provider.api.call import Request, Response
from machfive_provider.api.models import AcceptedBatch, Campaign, GeneratedSequence, Lead, LeadList
from tests.api.test_models import json_values, near_misses

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
KEY = "mf_live_" + "A1b2" * 8
ADA = Lead("ada@example.com", name="Ada Łovelace")

CALLS = {
    "list_campaigns": (protocol.list_campaigns(), list),
    "generate": (protocol.generate(ID, ADA), GeneratedSequence),
    "generate_batch": (protocol.generate_batch(ID, [ADA]), AcceptedBatch),
    "list_lists": (protocol.list_lists(), list),
    "list_statuses": (protocol.list_statuses("processing"), list),
    "get_list": (protocol.get_list(ID), LeadList),
}
GET = protocol.get_list(ID).request


def response(status: int, body=b"", **headers: str) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


# --- requests


@pytest.mark.parametrize(
    ("request_", "method", "path", "params", "read_timeout", "accept"),
    [
        (protocol.list_campaigns().request, "GET", "/api/v1/campaigns", {}, 30, "application/json"),
        (protocol.list_campaigns("ü&x").request, "GET", "/api/v1/campaigns", {"q": "ü&x"}, 30, "application/json"),
        (CALLS["generate"][0].request, "POST", f"/api/v1/campaigns/{ID}/generate", {}, 660, "application/json"),
        (
            CALLS["generate_batch"][0].request,
            "POST",
            f"/api/v1/campaigns/{ID}/generate-batch",
            {},
            60,
            "application/json",
        ),
        (
            protocol.list_lists().request,
            "GET",
            "/api/v1/lists",
            {"limit": "100", "offset": "0"},
            30,
            "application/json",
        ),
        (
            protocol.list_lists(ID.upper(), "pending", 200).request,
            "GET",
            "/api/v1/lists",
            {"limit": "100", "offset": "200", "campaign_id": ID, "status": "pending"},
            30,
            "application/json",
        ),
        (
            protocol.list_statuses("processing", 300).request,
            "GET",
            "/api/v1/lists",
            {"limit": "100", "offset": "300", "status": "processing"},
            30,
            "application/json",
        ),
        (protocol.get_list(f" {ID.upper()} ").request, "GET", f"/api/v1/lists/{ID}", {}, 30, "application/json"),
        (protocol.export(ID), "GET", f"/api/v1/lists/{ID}/export", {"format": "csv"}, 120, "text/csv"),
        (protocol.export(ID, "json"), "GET", f"/api/v1/lists/{ID}/export", {"format": "json"}, 120, "application/json"),
    ],
    ids=["campaigns", "campaigns q", "generate", "batch", "lists", "lists filtered", "statuses", "list", "csv", "json"],
)
def test_requests(request_: Request, method: str, path: str, params: dict, read_timeout: float, accept: str):
    assert (request_.method, request_.path, request_.params) == (method, path, params)
    assert (request_.read_timeout, request_.accept) == (read_timeout, accept)
    assert request_.repeatable is (method == "GET")
    assert (request_.content is None) is (method == "GET")
    assert ID not in request_.endpoint
    assert request_.endpoint.startswith(f"{method} /api/v1/")


def test_bodies_are_utf8_json_with_only_what_is_set():
    one = protocol.generate(ID, ADA, {"list_name": "Zürich"}).request.content
    assert (
        one
        == '{"lead": {"email": "ada@example.com", "name": "Ada Łovelace"}, "options": {"list_name": "Zürich"}}'.encode()
    )
    many = protocol.generate_batch(ID, [ADA, Lead("b@example.com")], {}).request.content
    assert json.loads(many) == {"leads": [ADA.to_json(), {"email": "b@example.com"}]}


@pytest.mark.parametrize(
    "options",
    [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}, {"x": "\ud800"}, {"x": {1, 2}}],
    ids=["nan", "inf", "object", "surrogate", "set"],
)
def test_what_json_cannot_hold_is_refused_before_the_wire(options):
    with pytest.raises(exceptions.InvalidLeadsError, match="cannot be written as JSON"):
        protocol.generate_batch(ID, [ADA], options)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        7,
        ID[:-1],
        f"{ID}0",
        ID.replace("-", ""),
        f"{{{ID}}}",
        "../campaigns",
        f"{ID}/../x",
        ID.replace("0f", "\u0660f"),
        [ID],
    ],
    ids=ascii,
)
@pytest.mark.parametrize(
    ("call", "parameter"),
    [
        (lambda value: protocol.generate(value, ADA), "campaign_id"),
        (lambda value: protocol.generate_batch(value, [ADA]), "campaign_id"),
        (protocol.get_list, "list_id"),
        (protocol.export, "list_id"),
        (lambda value: protocol.list_lists(value or ""), "campaign_id"),
    ],
    ids=["generate", "generate_batch", "get_list", "export", "list_lists"],
)
def test_an_id_must_be_a_uuid(call, parameter: str, value):
    with pytest.raises(exceptions.ConfigurationError, match=f"^{parameter} is "):
        call(value)


@pytest.mark.parametrize("export_format", ["jsonl", "CSV", "", None, 1], ids=repr)
def test_an_unknown_export_format_is_refused(export_format):
    with pytest.raises(exceptions.ConfigurationError, match="the API exports csv or json"):
        protocol.export(ID, export_format)


# --- responses


@pytest.mark.parametrize(
    ("call", "status", "body", "value"),
    [
        ("list_campaigns", 200, {"campaigns": []}, []),
        ("list_campaigns", 200, {"campaigns": [{"id": "c", "name": "n", "x": 1}], "y": 2}, [Campaign("c", "n")]),
        ("generate", 200, {"list_id": "l", "sequence": []}, GeneratedSequence("l", ())),
        ("generate", 202, {"list_id": "l", "sequence": []}, GeneratedSequence("l", ())),
        ("generate_batch", 202, {"list_id": "l", "status": "processing"}, AcceptedBatch("l", "processing")),
        ("generate_batch", 200, {"list_id": "l"}, AcceptedBatch("l")),
        ("list_lists", 200, {"lists": [{"id": "l", "processing_status": "new"}]}, [LeadList("l", "new")]),
        ("list_statuses", 200, {"lists": [{"id": "l", "processing_status": "new", "x": 1}]}, [("l", "new")]),
        ("list_lists", 200, {"lists": [None, {"id": "l"}, {"id": 7}]}, [None, LeadList("l", "unknown"), None]),
        ("list_statuses", 200, {"lists": [None, {"id": "l"}, {"id": 7}]}, [None, ("l", "unknown"), None]),
        ("get_list", 200, {"id": "l", "processing_status": "pending"}, LeadList("l", "pending")),
    ],
)
def test_responses_as_the_contract_says(call: str, status: int, body, value):
    assert CALLS[call][0].parse(response(status, body)) == value


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "an empty body where JSON belongs"),
        (b" \n", "an empty body where JSON belongs"),
        (b"<html>maintenance</html>", "an HTML page of 24 bytes where JSON belongs"),
        (b"OK", "a text of 2 bytes where JSON belongs"),
        (b'{"list_id": "l', "where JSON belongs"),
        (b"\xff\xfe", "where JSON belongs"),
        (b"[" * 100_000, "where JSON belongs"),
        (b"9" * 5000, "where JSON belongs"),
        (b"[]", "is not an object"),
        (b"null", "is not an object"),
        (b"{}", "is not a"),
    ],
    ids=["empty", "blank", "html", "text", "cut", "not utf-8", "deep", "huge number", "array", "null", "no fields"],
)
def test_a_success_of_another_shape_is_a_protocol_error(call: str, body: bytes, why: str):
    with pytest.raises(exceptions.ProtocolError, match=why) as caught:
        CALLS[call][0].parse(response(200, body, x_request_id="r1"))
    error = caught.value
    assert (error.status_code, error.request_id, error.endpoint) == (200, "r1", CALLS[call][0].request.endpoint)


@pytest.mark.parametrize("call", ["list_campaigns", "list_lists", "list_statuses", "get_list"])
def test_202_is_no_response_to_a_read(call: str):
    with pytest.raises(exceptions.ProtocolError):
        CALLS[call][0].parse(response(202, {"campaigns": [], "lists": [], "id": "l", "processing_status": "pending"}))


bodies = st.one_of(
    st.binary(max_size=60),
    st.one_of(json_values, near_misses).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(["error", "message", "detail", "request_id", "campaigns", "lists", "id", "processing_status"]),
        st.one_of(json_values, st.lists(near_misses, max_size=2)),
    ).map(lambda value: json.dumps(value).encode()),
)
headers = st.dictionaries(st.sampled_from(["retry-after", "x-request-id", "request-id"]), st.text(max_size=20))


@pytest.mark.parametrize("name", CALLS)
@given(status=st.integers(100, 599) | st.sampled_from([200, 202]), body=bodies, headers=headers)
def test_any_response_is_the_type_promised_or_one_of_our_errors(name: str, status: int, body: bytes, headers):
    call, kind = CALLS[name]
    try:
        outcome = call.parse(Response(status, headers, body))
    except exceptions.MachFiveError as error:
        outcome = error
    if isinstance(outcome, exceptions.MachFiveError):
        assert (outcome.status_code, outcome.endpoint) == (status, call.request.endpoint)
        assert str(outcome)
    else:
        assert status in (200, 202)
        assert isinstance(outcome, kind)


def expected_class(status: int, code: str | None) -> type[exceptions.MachFiveError]:
    """The error table of docs/api.md, once more."""
    table = {
        400: exceptions.BadRequestError,
        401: exceptions.UnauthorizedError,
        402: exceptions.InsufficientCreditsError,
        403: exceptions.ForbiddenError,
        404: exceptions.NotFoundError,
        408: exceptions.ServerError,
        429: exceptions.WorkspaceLimitError if code == "WORKSPACE_LIMIT" else exceptions.RateLimitedError,
    }
    if code in ("NOT_READY", None):
        table[409] = exceptions.NotReadyError
    if status < 400 or status > 599:
        return exceptions.ProtocolError
    return table.get(status, exceptions.ServerError if status >= 500 else exceptions.MachFivePermanentError)


codes = st.sampled_from(["BAD_REQUEST", "NOT_READY", "WORKSPACE_LIMIT", "RATE_LIMITED", "BRAND_NEW"])
told = st.fixed_dictionaries({"message": st.text()}, optional={"error": codes}).map(
    lambda body: json.dumps(body).encode()
)


@given(
    status=st.integers(100, 599) | st.sampled_from([400, 401, 402, 403, 404, 408, 409, 429]),
    body=bodies | told,
    headers=headers,
)
@example(status=400, body=b'{"detail":' + b"[" * 5000 + b"]" * 5000 + b"}", headers={})
@example(status=400, body=b'{"error": ["a"], "message": {"a": 1}}', headers={})
def test_every_status_and_code_has_its_class(status: int, body: bytes, headers):
    error = error_responses.error_from(GET, Response(status, headers, body))
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    code = data.get("error") if isinstance(data, dict) else None
    assert type(error) is expected_class(status, code if isinstance(code, str) else None)
    assert error.status_code == status
    json.dumps(error.detail)
    assert str(error)


@pytest.mark.parametrize("detail", [None, "x", 7, 0, False, [1], [], {"required": 3, "pct_of_cap": 0.5}], ids=repr)
def test_detail_of_any_type_is_kept(detail):
    error = error_responses.error_from(GET, response(402, {"error": "X", "message": "m", "detail": detail}))
    assert error.detail == detail


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "gave no reason (an empty body)"),
        (b"<h1>502</h1>", "gave no reason (an HTML page of 12 bytes)"),
        (b"gone", "gave no reason (a text of 4 bytes)"),
        (b'{"message": "  "}', "gave no reason (a text of 17 bytes)"),
        (b'{"message": 7}', "gave no reason (a text of 14 bytes)"),
        (b'["message"]', "gave no reason (a text of 11 bytes)"),
    ],
)
def test_a_body_without_a_message_is_described_not_quoted(body: bytes, message: str):
    assert error_responses.error_from(GET, response(502, body)).message == f"MachFive responded 502 and {message}."


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_says_what_to_do(status: int):
    error = error_responses.error_from(GET, response(status, b"", location="https://elsewhere.example"))
    assert isinstance(error, exceptions.ProtocolError)
    assert "redirect, which is not followed" in error.message


@pytest.mark.parametrize(
    ("body", "sent", "request_id"),
    [
        ({}, {}, None),
        ({"request_id": "body"}, {"x_request_id": "header"}, "body"),
        ({}, {"x_request_id": "header"}, "header"),
        ({}, {"request_id": "plain"}, "plain"),
        ({"request_id": 7}, {"request_id": "plain"}, "plain"),
        ({"request_id": "  "}, {"x_request_id": "", "request_id": "plain"}, "plain"),
        ({"request_id": "a\r\nb"}, {}, "a b"),
        ({"request_id": "r" * 700}, {}, "r" * 600 + "…"),
    ],
)
def test_request_id(body, sent, request_id: str | None):
    error = error_responses.error_from(GET, response(500, {"error": "E", "message": "m", **body}, **sent))
    assert error.request_id == request_id
    assert len(str(error).splitlines()) == 1


keys = st.builds(
    "mf_{}_{}".format, st.sampled_from(["live", "test"]), st.from_regex(r"[A-Za-z0-9.\-/+=]{16,32}", fullmatch=True)
)
around = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(keys, around, around, st.integers(400, 599))
def test_a_key_the_server_quotes_is_never_shown(key: str, before: str, after: str, status: int):
    text = f"{before}{key}{after}"
    body = {"error": text, "message": text, "request_id": text, "detail": {text: [text, {"deep": text}]}}
    error = error_responses.error_from(GET, response(status, body, x_request_id=text))
    secret = key[-12:]
    shown = f"{error} {error!r} {error.args} {error.message} {error.code} {error.request_id}"
    assert secret not in shown
    assert secret not in json.dumps(error.detail, ensure_ascii=False)
    assert "***" in error.message


@pytest.mark.parametrize(
    ("status", "content_type", "opens"),
    [
        (200, "text/csv; charset=utf-8", True),
        (200, "application/json", True),
        (200, None, True),
        (200, "", True),
        (200, "text/html", False),
        (200, "Text/HTML; charset=utf-8", False),
        (202, "text/csv", False),
        (206, "text/csv", False),
        (302, "text/csv", False),
        (409, "application/json", False),
    ],
)
def test_opens_export(status: int, content_type: str | None, opens: bool):
    assert protocol.opens_export(status, content_type) is opens


# --- pages


@given(st.integers(0, 350), st.lists(st.integers(0, 30), max_size=4))
def test_every_list_is_given_out_once_although_more_are_bought_meanwhile(total: int, bought: list[int]):
    """The newest is first: what is bought between two pages moves all others back."""
    workspace = [LeadList(f"old{number}", "failed") for number in range(total)]
    before = list(workspace)
    pages, seen = protocol.ListPages(ID, "failed"), []
    purchases = iter(bought)
    while not pages.done:
        params = pages.call().request.params
        assert (params["campaign_id"], params["status"], params["limit"]) == (ID, "failed", "100")
        offset = int(params["offset"])
        seen += pages.take(workspace[offset : offset + 100])
        workspace[:0] = [LeadList(f"new{len(workspace)}.{number}", "failed") for number in range(next(purchases, 0))]
    assert seen == before


def test_a_server_that_ignores_the_offset_is_not_paged_for_ever():
    pages = protocol.ListPages()
    page = [LeadList(str(number), "pending") for number in range(protocol.PAGE_SIZE)]
    assert pages.take(page) == page
    with pytest.raises(exceptions.ProtocolError, match="twice"):
        pages.take(page)


def test_an_entry_that_is_passed_over_keeps_its_place():
    """A page of a hundred with one such entry is no short page: more lists follow."""
    pages = protocol.ListPages()
    assert pages.take([None, *(LeadList(str(number), "pending") for number in range(99))])[0].id == "0"
    assert not pages.done
    assert pages.call().request.params["offset"] == "100"
    assert pages.take([None]) == []
    assert pages.done

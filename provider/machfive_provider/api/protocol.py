"""Each call of the API, described once: the request to build and how to decipher its answer.

Pure functions over bytes: no network, no clock but the one passed in. Both clients carry these
calls; neither knows an endpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pendulum

from machfive_provider import errors
from machfive_provider.api.models import (
    AcceptedBatch,
    Campaign,
    GeneratedSequence,
    GenerationOptions,
    Lead,
    LeadList,
    ShapeError,
    array,
)
from machfive_provider.api.retries import retry_after_seconds
from machfive_provider.texts import kind_of, one_line

__all__ = [
    "EXPORT_FORMATS",
    "PAGE_SIZE",
    "Call",
    "ListPages",
    "Request",
    "Response",
    "check_uuid",
    "error_from",
    "export",
    "generate",
    "generate_batch",
    "get_list",
    "list_campaigns",
    "list_lists",
    "opens_export",
]

T = TypeVar("T")

PAGE_SIZE = 100  # the most GET /lists gives at once (API.md)
EXPORT_FORMATS = ("csv", "json")

# Seconds without a byte. generate writes the emails before it answers: 3-10 minutes (API.md).
_READ, _BATCH, _EXPORT, _GENERATE = 30.0, 60.0, 120.0, 660.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_KEY = re.compile(r"mf_(live|test)_[^\s\"'\\,;<>]+")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, without host and key.

    :param endpoint: method and path template, for messages; never holds a value
    :param read_timeout: seconds to wait between two bytes of the answer
    :param repeatable: True if sending it twice costs nothing
    """

    method: str
    path: str
    endpoint: str
    read_timeout: float = _READ
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    accept: str = "application/json"

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice costs nothing: reads do not, both POSTs spend credits."""
        return self.method == "GET"


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request together with the one way to read its answer; deciphering raises a ``MachFiveError``."""

    request: Request
    decipher: Callable[[Response], T]


def list_campaigns(query: str | None = None) -> Call[list[Campaign]]:
    """Campaigns of the workspace; ``query`` is a case-insensitive substring of the name."""
    request = Request("GET", "/api/v1/campaigns", "GET /api/v1/campaigns", params={"q": query} if query else {})
    return _call(request, lambda data: [Campaign.from_json(item) for item in array(data, "campaigns")])


def generate(
    campaign_id: str, lead: Lead | Mapping[str, Any], options: GenerationOptions | None = None
) -> Call[GeneratedSequence]:
    """Write one lead's emails synchronously. Spends a credit; the answer takes minutes."""
    return _call(
        _post("generate", campaign_id, {"lead": _lead_json("lead", lead)}, options, _GENERATE),
        GeneratedSequence.from_json,
    )


def generate_batch(
    campaign_id: str, leads: Sequence[Lead | Mapping[str, Any]], options: GenerationOptions | None = None
) -> Call[AcceptedBatch]:
    """Submit leads as one list. Spends a credit a lead; answers 200 or 202 at once."""
    if isinstance(leads, (str, bytes, Mapping)) or not leads:
        raise errors.InvalidLeadsError(f"leads must be a list with at least one lead, not {kind_of(leads)}.")
    body = {"leads": [_lead_json(f"leads[{index}]", lead) for index, lead in enumerate(leads)]}
    return _call(_post("generate-batch", campaign_id, body, options, _BATCH), AcceptedBatch.from_json)


def list_lists(campaign_id: str | None = None, status: str | None = None, offset: int = 0) -> Call[list[LeadList]]:
    """One page of the workspace's lists, newest first."""
    params = {"limit": str(PAGE_SIZE), "offset": str(offset)}
    if campaign_id is not None:
        params["campaign_id"] = check_uuid("campaign_id", campaign_id)
    if status is not None:
        params["status"] = status
    request = Request("GET", "/api/v1/lists", "GET /api/v1/lists", params=params)
    return _call(request, lambda data: [LeadList.from_json(item) for item in array(data, "lists")])


def get_list(list_id: str) -> Call[LeadList]:
    """One list: the call to poll."""
    path = f"/api/v1/lists/{check_uuid('list_id', list_id)}"
    return _call(Request("GET", path, "GET /api/v1/lists/{list_id}"), LeadList.from_json)


def export(list_id: str, export_format: str = "csv") -> Request:
    """Build the request for the written emails; its answer is streamed, so there is nothing to decipher."""
    if export_format not in EXPORT_FORMATS:
        raise errors.ConfigurationError(f"format is {export_format!r}: the API exports {' or '.join(EXPORT_FORMATS)}.")
    return Request(
        "GET",
        f"/api/v1/lists/{check_uuid('list_id', list_id)}/export",
        "GET /api/v1/lists/{list_id}/export",
        read_timeout=_EXPORT,
        params={"format": export_format},
        accept="text/csv" if export_format == "csv" else "application/json",
    )


def opens_export(status: int, content_type: str | None) -> bool:
    """Whether an answer to :func:`export` is one: a proxy's or portal's page may come with status 200 as well."""
    return status == 200 and not (content_type or "").lower().startswith("text/html")


class ListPages:
    """Paging through ``GET /lists``, as a conversation that either client can hold.

    Lists submitted meanwhile push older ones onto the next page, so a list may be seen twice: it is
    given out once.
    """

    def __init__(self, campaign_id: str | None = None, status: str | None = None) -> None:
        self._filters = (campaign_id, status)
        self._offset = 0
        self._seen: set[str] = set()
        self.done = False

    def call(self) -> Call[list[LeadList]]:
        """Return the call for the next page."""
        return list_lists(*self._filters, offset=self._offset)

    def take(self, page: list[LeadList]) -> list[LeadList]:
        """Note a page's arrival and return what is new on it."""
        new = [item for item in page if item.id not in self._seen]
        if len(page) >= PAGE_SIZE and not new:
            raise errors.ProtocolError("a whole page of lists was sent twice", endpoint="GET /api/v1/lists")
        self._offset += len(page)
        self.done = len(page) < PAGE_SIZE
        self._seen.update(item.id for item in new)
        return new


def check_uuid(parameter: str, value: Any) -> str:
    """Return ``value`` if it is a UUID, the form of every id of the API; raise ``ConfigurationError`` otherwise."""
    if isinstance(value, str) and _UUID.fullmatch(value.strip()):
        return value.strip().lower()
    kind = "empty" if value in (None, "") else f"a {type(value).__name__} that is no UUID"
    raise errors.ConfigurationError(
        f"{parameter} is {kind}: give the id as the MachFive app or API shows it (8-4-4-4-12 hexadecimal digits)."
    )


def _lead_json(position: str, lead: Lead | Mapping[str, Any]) -> dict[str, Any]:
    plain = lead.to_json() if isinstance(lead, Lead) else lead
    if not isinstance(plain, Mapping) or not isinstance(plain.get("email"), str):
        raise errors.InvalidLeadsError(f"{position} must be a Lead or a mapping with an 'email', not {kind_of(lead)}.")
    return dict(plain)


def _post(
    verb: str, campaign_id: str, body: dict[str, Any], options: GenerationOptions | None, read_timeout: float
) -> Request:
    if options:
        body = {**body, "options": options}
    try:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise errors.InvalidLeadsError(f"leads or options cannot be written as JSON: {error}.") from None
    return Request(
        "POST",
        f"/api/v1/campaigns/{check_uuid('campaign_id', campaign_id)}/{verb}",
        f"POST /api/v1/campaigns/{{campaign_id}}/{verb}",
        read_timeout=read_timeout,
        content=content,
    )


def _call(request: Request, read: Callable[[Any], T]) -> Call[T]:
    expected = (200,) if request.repeatable else (200, 202)

    def decipher(response: Response) -> T:
        if response.status not in expected:
            raise error_from(request, response)
        try:
            return read(_parse(response.body))
        except ShapeError as error:
            raise _protocol_error(request, response, f"the answer is not what the contract says: {error}") from None

    return Call(request, decipher)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ShapeError(f"{_describe(body)} where JSON belongs") from None


def _describe(body: bytes) -> str:
    if not body.strip():
        return "an empty body"
    kind = "an HTML page" if body.lstrip()[:1] == b"<" else "a text"
    return f"{kind} of {len(body)} bytes"


def error_from(request: Request, response: Response) -> errors.MachFiveError:
    """Return the exception for an answer that is not the expected one: never raises."""
    if response.status < 400 or response.status > 599:
        return _unexpected_status(request, response)
    try:
        data = json.loads(response.body)
    except (ValueError, RecursionError):
        data = None
    body = data if isinstance(data, dict) else {}
    code, message = body.get("error"), body.get("message")
    code = _clean(code) if isinstance(code, str) else None
    if not isinstance(message, str) or not message.strip():
        message = f"no reason given ({_describe(response.body)})"
    return _error_class(response.status, code)(
        _clean(message),
        code=code,
        detail=json.loads(_clean(json.dumps(body["detail"]))) if body.get("detail") is not None else None,
        retry_after=retry_after_seconds(response.headers.get("retry-after"), pendulum.now("UTC")),
        **_context(request, response, body),
    )


def _unexpected_status(request: Request, response: Response) -> errors.ProtocolError:
    if 300 <= response.status < 400:
        return _protocol_error(
            request,
            response,
            "a redirect, which is not followed; put the final address into the connection's host",
        )
    return _protocol_error(request, response, f"{_describe(response.body)}, which is not what the contract says")


def _protocol_error(request: Request, response: Response, why: str) -> errors.ProtocolError:
    return errors.ProtocolError(why, **_context(request, response, {}))


def _context(request: Request, response: Response, body: Mapping[str, Any]) -> dict[str, Any]:
    ids: Iterable[Any] = (body.get("request_id"), *map(response.headers.get, ("x-request-id", "request-id")))
    request_id = next((str(each) for each in ids if isinstance(each, str) and each.strip()), None)
    return {
        "status_code": response.status,
        "request_id": _clean(one_line(request_id)) if request_id else None,
        "endpoint": request.endpoint,
    }


def _error_class(status: int, code: str | None) -> type[errors.MachFiveError]:
    if status >= 500 or status == 408:
        return errors.ServerError
    if status == 409 and code in ("NOT_READY", None):
        return errors.NotReadyError
    if status == 429:
        return errors.WorkspaceLimitError if code == "WORKSPACE_LIMIT" else errors.RateLimitedError
    return {
        400: errors.BadRequestError,
        401: errors.UnauthorizedError,
        402: errors.InsufficientCreditsError,
        403: errors.ForbiddenError,
        404: errors.NotFoundError,
    }.get(status, errors.MachFivePermanentError)


def _clean(text: str) -> str:
    """Blank out anything that looks like a key: a server may quote the one it refused."""
    return _KEY.sub("***", text)

"""Each call of the API, described once: the request to send and how to parse its response.

Pure functions over bytes: no network and no clock. Both clients carry these calls; neither knows an
endpoint. The endpoints are those of ``docs/api.md``, "Endpoints".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from machfive_provider import exceptions
from machfive_provider.api.call import Call, Request, Response
from machfive_provider.api.error_responses import describe, error_from, protocol_error
from machfive_provider.api.models import (
    AcceptedBatch,
    Campaign,
    GeneratedSequence,
    GenerationOptions,
    Lead,
    LeadList,
    ShapeError,
    array,
    id_and_status,
)
from machfive_provider.formatting import kind_of

__all__ = [
    "EXPORT_FORMATS",
    "PAGE_SIZE",
    "ListPages",
    "check_uuid",
    "check_uuids",
    "export",
    "generate",
    "generate_batch",
    "get_list",
    "list_campaigns",
    "list_lists",
    "list_statuses",
    "opens_export",
]

T = TypeVar("T")

PAGE_SIZE = 100  # the largest page of GET /lists (docs/api.md, "Endpoints")
EXPORT_FORMATS = ("csv", "json")

# Seconds without a byte. generate responds when the emails are written: 3-10 minutes (docs/api.md, "Endpoints").
_BATCH, _EXPORT, _GENERATE = 60.0, 120.0, 660.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def list_campaigns(query: str | None = None) -> Call[list[Campaign]]:
    """Campaigns of the workspace; ``query`` is a case-insensitive substring of the name."""
    request = Request("GET", "/api/v1/campaigns", "GET /api/v1/campaigns", params={"q": query} if query else {})
    return _call(request, lambda data: [Campaign.from_json(item) for item in array(data, "campaigns")])


def generate(
    campaign_id: str, lead: Lead | Mapping[str, Any], options: GenerationOptions | None = None
) -> Call[GeneratedSequence]:
    """Write one lead's emails synchronously. Spends a credit; the response takes 3-10 minutes."""
    return _call(
        _post("generate", campaign_id, {"lead": _lead_json("lead", lead)}, options, _GENERATE),
        GeneratedSequence.from_json,
    )


def generate_batch(
    campaign_id: str, leads: Sequence[Lead | Mapping[str, Any]], options: GenerationOptions | None = None
) -> Call[AcceptedBatch]:
    """Submit leads as one list. Spends a credit a lead; responds at once, with 202 or 200."""
    if isinstance(leads, (str, bytes, Mapping)) or not leads:
        raise exceptions.InvalidLeadsError(f"leads must be a list with at least one lead, not {kind_of(leads)}.")
    body = {"leads": [_lead_json(f"leads[{index}]", lead) for index, lead in enumerate(leads)]}
    return _call(_post("generate-batch", campaign_id, body, options, _BATCH), AcceptedBatch.from_json)


def list_lists(
    campaign_id: str | None = None, status: str | None = None, offset: int = 0
) -> Call[list[LeadList | None]]:
    """One page of the workspace's lists, newest first; None stands for an entry that is passed over."""
    request = _page(campaign_id, status, offset)
    return _call(request, lambda data: [LeadList.from_page(item) for item in array(data, "lists")])


def list_statuses(status: str, offset: int = 0) -> Call[list[tuple[str, str] | None]]:
    """One page of the lists in a status, as ids and the statuses shown; None stands for an entry that is passed over.

    Nothing else is parsed: a triggerer that waits for thousands of lists reads such pages all the time.
    """
    return _call(_page(None, status, offset), lambda data: [id_and_status(item) for item in array(data, "lists")])


def get_list(list_id: str) -> Call[LeadList]:
    """One list: the call to poll."""
    path = f"/api/v1/lists/{check_uuid('list_id', list_id)}"
    return _call(Request("GET", path, "GET /api/v1/lists/{list_id}"), LeadList.from_json)


def export(list_id: str, export_format: str = "csv") -> Request:
    """Build the request for the written emails. Its response is streamed, so there is nothing to parse."""
    if export_format not in EXPORT_FORMATS:
        raise exceptions.ConfigurationError(
            f"format is {export_format!r}: the API exports {' or '.join(EXPORT_FORMATS)}."
        )
    return Request(
        "GET",
        f"/api/v1/lists/{check_uuid('list_id', list_id)}/export",
        "GET /api/v1/lists/{list_id}/export",
        read_timeout=_EXPORT,
        params={"format": export_format},
        accept="text/csv" if export_format == "csv" else "application/json",
    )


def opens_export(status: int, content_type: str | None) -> bool:
    """Whether the response to :func:`export` is an export: a proxy's HTML page may have status 200 as well."""
    return status == 200 and not (content_type or "").lower().startswith("text/html")


class ListPages:
    """Pages through ``GET /lists``, newest list first; works with either client. Unreadable entries are passed over.

    A list that is bought meanwhile moves all older ones back by one place, so that a list may be on two
    pages. It is given out once.
    """

    def __init__(self, campaign_id: str | None = None, status: str | None = None) -> None:
        self._filters = (campaign_id, status)
        self._offset = 0
        self._seen: set[str] = set()
        self.done = False

    def call(self) -> Call[list[LeadList | None]]:
        """Return the call for the next page."""
        return list_lists(*self._filters, offset=self._offset)

    def take(self, page: list[LeadList | None]) -> list[LeadList]:
        """Take in a page and return the lists that no earlier page had."""
        new = [item for item in page if item and item.id not in self._seen]
        if len(page) >= PAGE_SIZE and not new:
            raise exceptions.ProtocolError(
                "a whole page of lists was sent twice, or none of it can be read", endpoint="GET /api/v1/lists"
            )
        self._offset += len(page)
        self.done = len(page) < PAGE_SIZE
        self._seen.update(item.id for item in new)
        return new


def check_uuid(parameter: str, value: Any) -> str:
    """Return ``value`` if it is a UUID, the form of every id of the API; raise ``ConfigurationError`` otherwise."""
    if isinstance(value, str) and _UUID.fullmatch(value.strip()):
        return value.strip().lower()
    kind = "empty" if value in (None, "") else f"a {type(value).__name__} that is no UUID"
    raise exceptions.ConfigurationError(
        f"{parameter} is {kind}: give the id as the MachFive app or API shows it (8-4-4-4-12 hexadecimal digits)."
    )


def check_uuids(parameter: str, value: Any) -> list[str]:
    """Return the UUIDs in ``value``, one or several, each once; raise ``ConfigurationError`` for anything else."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not given:
        raise exceptions.ConfigurationError(f"{parameter} must be a list's id or several, not {kind_of(value)}.")
    return list(dict.fromkeys(check_uuid(parameter, each) for each in given))


def _page(campaign_id: str | None, status: str | None, offset: int) -> Request:
    params = {"limit": str(PAGE_SIZE), "offset": str(offset)}
    if campaign_id is not None:
        params["campaign_id"] = check_uuid("campaign_id", campaign_id)
    if status is not None:
        params["status"] = status
    return Request("GET", "/api/v1/lists", "GET /api/v1/lists", params=params)


def _lead_json(position: str, lead: Lead | Mapping[str, Any]) -> dict[str, Any]:
    plain = lead.to_json() if isinstance(lead, Lead) else lead
    if not isinstance(plain, Mapping) or not isinstance(plain.get("email"), str):
        raise exceptions.InvalidLeadsError(
            f"{position} must be a Lead or a mapping with an 'email', not {kind_of(lead)}."
        )
    return dict(plain)


def _post(
    verb: str, campaign_id: str, body: dict[str, Any], options: GenerationOptions | None, read_timeout: float
) -> Request:
    if options:
        body = {**body, "options": options}
    try:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise exceptions.InvalidLeadsError(f"leads or options cannot be written as JSON: {error}.") from None
    return Request(
        "POST",
        f"/api/v1/campaigns/{check_uuid('campaign_id', campaign_id)}/{verb}",
        f"POST /api/v1/campaigns/{{campaign_id}}/{verb}",
        read_timeout=read_timeout,
        content=content,
    )


def _call(request: Request, read: Callable[[Any], T]) -> Call[T]:
    # generate-batch may respond 200 or 202 (docs/api.md, "Two generations").
    expected = (200,) if request.repeatable else (200, 202)

    def parse(response: Response) -> T:
        if response.status not in expected:
            raise error_from(request, response)
        try:
            return read(_json(response.body))
        except ShapeError as error:
            raise protocol_error(
                request, response, f"The response does not follow the API's contract: {error}."
            ) from None

    return Call(request, parse)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ShapeError(f"{describe(body)} where JSON belongs") from None

"""What the API accepts, per edition, and the error responses it gives to everything else.

All functions raise `ApiError`, whose message names the place of the mistake, such as "leads[3].email".
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from machfive_provider.sandbox.model import Generation

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    402: "INSUFFICIENT_CREDITS",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "NOT_READY",
    429: "WORKSPACE_LIMIT",
    500: "INTERNAL_ERROR",
}
LEAD_FIELDS = ("email", "name", "title", "company", "company_website", "linkedin_url")
_OPTIONS_2025: Mapping[str, type] = {
    "list_name": str,
    "email_count": int,
    "email_signature": str,
    "campaign_angle": str,
    "approved_ctas": object,
}
_OPTIONS_2026: Mapping[str, type] = {
    **_OPTIONS_2025,
    "sequence_name": str,
    "signature_id": str,
    "additional_details": str,
    "enrichment_enabled": bool,
    "notification_email": str,
}
_CTA_KINDS = "Question, Lead Magnet, Direct Meeting, Loom Video, Consultation, Educational, Demo, Trial"
CTAS_2026 = tuple(f"{kind} CTA" for kind in _CTA_KINDS.split(", "))
_MOST_EMAILS: Mapping[str, int] = {"2025": 5, "2026": 4}
_DEFAULT_EMAILS = 3
# What counts as a space differs between languages, so control characters and U+FEFF are named too.
_NOT_IN_EMAIL = r"@\s\x00-\x1f\x7f-\x9f\ufeff"
_EMAIL = re.compile(rf"[^{_NOT_IN_EMAIL}]+@[^{_NOT_IN_EMAIL}.]+(\.[^{_NOT_IN_EMAIL}.]+)+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Bounded, because int() refuses numbers of more than 4300 digits with an error of its own.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,1000}")
_TYPE_NAMES: Mapping[type, str] = {str: "a string", int: "an integer", bool: "true or false"}


class ApiError(Exception):
    """An error response. `detail` is left out of the body when it is None."""

    def __init__(self, status: int, message: str, *, detail: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.detail = detail


def error_body(
    code: str, message: str, *, detail: Any = None, request_id: str | None = None, generation: str = "2025"
) -> dict[str, Any]:
    """Build the JSON of an error response; only the 2026 edition has the request id in it."""
    body: dict[str, Any] = {"error": code, "message": message}
    if detail is not None:
        body["detail"] = detail
    if generation != "2025" and request_id is not None:
        body["request_id"] = request_id
    return body


@dataclass(frozen=True)
class GenerateRequest:
    """A checked request to write emails; `email_count` has its default, credits follow from the rest."""

    leads: tuple[dict[str, str], ...]
    list_name: str | None
    email_count: int
    signature: str
    signature_id: str | None
    enriched: bool

    @property
    def credits(self) -> int:
        """Count what the request costs."""
        return len(self.leads) * (2 if self.enriched else 1)


def is_uuid(text: str) -> bool:
    """Whether the text has the form of a UUID."""
    return _UUID.fullmatch(text) is not None


def query_parameters(query: bytes, allowed: Collection[str]) -> dict[str, str]:
    """Decode the query string strictly."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ApiError(400, "The query is not valid UTF-8.") from None
    _refuse_unknown("query parameter", (name for name, _ in pairs), allowed)
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise ApiError(400, "A query parameter is given more than once.")
    return parameters


def whole_number(parameters: Mapping[str, str], name: str, *, default: int, least: int, most: int | None) -> int:
    """Read a number from the query within its bounds (`most` None: no upper bound)."""
    text = parameters.get(name)
    if text is None:
        return default
    value = int(text) if _WHOLE_NUMBER.fullmatch(text) else None
    if value is None or value < least or (most is not None and value > most):
        bounds = f"from {least}" + (f" to {most}" if most is not None else "")
        raise ApiError(400, f"{name} must be a whole number {bounds}.")
    return value


def json_object(body: bytes, content_type: str) -> dict[str, Any]:
    """Decode a request's body."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(400, "Content-Type must be application/json.")
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        # A lone surrogate can be written as an escape, but no UTF-8 response can repeat it.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise ApiError(400, "The body is not valid UTF-8.") from None
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def generate_request(body: Mapping[str, Any], *, generation: Generation, batch: bool) -> GenerateRequest:
    """Check the body of `generate` or `generate-batch`."""
    what = "leads" if batch else "lead"
    _refuse_unknown("body field", body, (what, "options"))
    if what not in body:
        raise ApiError(400, f"Missing required field: {what}.")
    options = body.get("options", {})
    if not isinstance(options, dict):
        raise ApiError(400, "options must be an object.")
    leads = _leads(body["leads"]) if batch else (_lead(body["lead"], "lead"),)
    if generation == "2025":
        _check_option_types(options, _OPTIONS_2025)
        _check_ctas(options, None)
    else:
        _check_options_2026(options, batch=batch)
    email_count = int(options.get("email_count", _DEFAULT_EMAILS))
    most = _MOST_EMAILS[generation]
    if not 1 <= email_count <= most:
        raise ApiError(400, f"options.email_count must be from 1 to {most}.")
    request = GenerateRequest(
        leads=leads,
        list_name=options.get("list_name", options.get("sequence_name")) or None,
        email_count=email_count,
        signature=options.get("email_signature", ""),
        signature_id=options.get("signature_id"),
        enriched=options.get("enrichment_enabled", False),
    )
    if request.enriched:
        _check_enrichable(leads, batch=batch)
    return request


def signature_request(body: Mapping[str, Any]) -> tuple[str, str]:
    """Check the body that saves a signature: its name and its text."""
    _refuse_unknown("body field", body, ("name", "signature"))
    for name in ("name", "signature"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise ApiError(400, f"{name} must be a string that is not empty.")
    return body["name"], body["signature"]


def _leads(value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise ApiError(400, "leads must be an array with at least one lead.")
    return tuple(_lead(lead, f"leads[{index}]") for index, lead in enumerate(value))


def _lead(value: Any, position: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ApiError(400, f"{position} must be an object.")
    for name, text in value.items():
        if name not in LEAD_FIELDS:
            raise ApiError(400, f"Unknown lead field: {position}.{name}.")
        if not isinstance(text, str):
            raise ApiError(400, f"{position}.{name} must be a string.")
    if not value.get("email"):
        raise ApiError(400, f"{position}.email is required.")
    if not _EMAIL.fullmatch(value["email"]):
        raise ApiError(400, f"{position}.email is not a valid email address.")
    return dict(value)


def _check_option_types(options: Mapping[str, Any], known: Mapping[str, type]) -> None:
    _refuse_unknown("option", options, known)
    for name, value in options.items():
        expected = known[name]
        if not (_is_integer(value) if expected is int else isinstance(value, expected)):
            raise ApiError(400, f"options.{name} must be {_TYPE_NAMES[expected]}.")


def _is_integer(value: Any) -> bool:
    """Judge as JSON does: 5.0 is an integer, and true, an int in Python, is none."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _check_ctas(options: Mapping[str, Any], known: Collection[str] | None) -> None:
    if "approved_ctas" not in options:
        return
    value = options["approved_ctas"]
    ctas = [cta.strip(" ") for cta in value.split(",")] if isinstance(value, str) else value
    if not isinstance(ctas, list):
        raise ApiError(400, "options.approved_ctas must be an array of strings or one comma-separated string.")
    for index, cta in enumerate(ctas):
        if not isinstance(cta, str):
            raise ApiError(400, f"options.approved_ctas[{index}] must be a string.")
        if known is not None and cta not in known:
            raise ApiError(400, f"options.approved_ctas[{index}] must be one of: {', '.join(known)}.")


def _check_options_2026(options: Mapping[str, Any], *, batch: bool) -> None:
    known = dict(_OPTIONS_2026)
    if not batch:
        del known["notification_email"]
    _check_option_types(options, known)
    _check_ctas(options, CTAS_2026)
    if "email_count" not in options:
        raise ApiError(400, "Missing required option: email_count.")
    if ("email_signature" in options) == ("signature_id" in options):
        raise ApiError(400, "Exactly one of options.email_signature and options.signature_id is required.")
    if "signature_id" in options and not is_uuid(options["signature_id"]):
        raise ApiError(400, "options.signature_id must be a UUID.")
    if "notification_email" in options and not _EMAIL.fullmatch(options["notification_email"]):
        raise ApiError(400, "options.notification_email is not a valid email address.")


def _check_enrichable(leads: tuple[dict[str, str], ...], *, batch: bool) -> None:
    for index, lead in enumerate(leads):
        if not any(lead.get(name) for name in ("company", "linkedin_url", "company_website")):
            position = f"leads[{index}]" if batch else "lead"
            raise ApiError(400, f"{position} needs company, linkedin_url or company_website for enrichment.")


def _refuse_unknown(what: str, given: Any, known: Collection[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ApiError(400, f"Unknown {what}: {', '.join(unknown)}.")

"""Turns a response that is not the expected one into an exception: which class, and what its text says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.call import Request, Response
from machfive_provider.api.masking import texts_changed
from machfive_provider.api.retries import retry_after_seconds
from machfive_provider.formatting import one_line

__all__ = ["describe", "error_from", "protocol_error"]

_KEY = re.compile(r"mf_(live|test)_[^\s\"'\\,;<>]+")


def error_from(request: Request, response: Response) -> exceptions.MachFiveError:
    """Return the exception for a response that is not the expected one. Never raises."""
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
        message = f"MachFive responded {response.status} and gave no reason ({describe(response.body)})."
    return _error_class(response.status, code)(
        _clean(message),
        code=code,
        detail=texts_changed(body.get("detail"), _clean),
        retry_after=retry_after_seconds(response.headers.get("retry-after"), pendulum.now("UTC")),
        **_context(request, response, body),
    )


def _unexpected_status(request: Request, response: Response) -> exceptions.ProtocolError:
    if 300 <= response.status < 400:
        return protocol_error(
            request,
            response,
            "The response is a redirect, which is not followed; put the final address into the connection's host.",
        )
    what = describe(response.body)
    return protocol_error(request, response, f"The response, {what}, does not follow the API's contract.")


def protocol_error(request: Request, response: Response, why: str) -> exceptions.ProtocolError:
    """Return the error for a response that does not follow the contract (docs/api.md)."""
    return exceptions.ProtocolError(why, **_context(request, response, {}))


def _context(request: Request, response: Response, body: Mapping[str, Any]) -> dict[str, Any]:
    # The vendor's errors page asks for a request id but names no field; the newer generation has it in the body.
    ids: Iterable[Any] = (body.get("request_id"), *map(response.headers.get, ("x-request-id", "request-id")))
    request_id = next((str(each) for each in ids if isinstance(each, str) and each.strip()), None)
    return {
        "status_code": response.status,
        "request_id": _clean(one_line(request_id)) if request_id else None,
        "endpoint": request.endpoint,
    }


def _error_class(status: int, code: str | None) -> type[exceptions.MachFiveError]:
    """Return the class for a status and code: docs/api.md, "Errors" and "Met in practice"."""
    if status >= 500 or status == 408:
        return exceptions.ServerError
    if status == 409 and code in ("NOT_READY", None):
        return exceptions.NotReadyError
    if status == 429:
        return exceptions.WorkspaceLimitError if code == "WORKSPACE_LIMIT" else exceptions.RateLimitedError
    return {
        400: exceptions.BadRequestError,
        401: exceptions.UnauthorizedError,
        402: exceptions.InsufficientCreditsError,
        403: exceptions.ForbiddenError,
        404: exceptions.NotFoundError,
    }.get(status, exceptions.MachFivePermanentError)


def _clean(text: str) -> str:
    """Replace anything that looks like a key by ``***``: a server may quote the key it refused."""
    return _KEY.sub("***", text)


def describe(body: bytes) -> str:
    """Say what kind of thing a body is, without quoting it."""
    if not body.strip():
        return "an empty body"
    kind = "an HTML page" if body.lstrip()[:1] == b"<" else "a text"
    return f"{kind} of {len(body)} bytes"

"""How a trigger's outcome travels back to the task: plain JSON there, the same objects and errors here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList

__all__ = ["ended", "error_from_json", "error_to_json", "failed", "read", "submit"]

_PLAIN = ("message", "status_code", "code", "detail", "request_id", "endpoint", "retry_after")


def ended(lists: Iterable[LeadList], started_at: float, deadline: float) -> dict[str, Any]:
    """Return the event for lists that have ended, completed or failed.

    :param started_at: epoch seconds at which the wait began; with ``deadline``, for a wait that has to go on
    """
    plain = [each.to_json() for each in lists]
    return {"status": "ended", "lists": plain, "started_at": started_at, "deadline": deadline}


def submit(
    asked_at: float, try_number: int = 1, absent_since: float | None = None, *, granted: bool = True
) -> dict[str, Any]:
    """Return the event for a task that may submit now.

    :param asked_at: epoch seconds at which the task first asked for room
    :param try_number: the try that asked
    :param absent_since: epoch seconds since which its list has been absent from every look, None if not looked for
    :param granted: whether it comes from the queue for room, with a place kept for it
    """
    return {
        "status": "submit",
        "asked_at": asked_at,
        "try_number": try_number,
        "absent_since": absent_since,
        "granted": granted,
    }


def failed(error: exceptions.MachFiveError) -> dict[str, Any]:
    """Return the event for a wait that ended badly: the resume method raises it on the worker."""
    return {"status": "error", "error": error_to_json(error)}


def read(event: Any, expected: str) -> Mapping[str, Any]:
    """Return an event of the expected status.

    :raises MachFiveError: the error it carries, of the same class as in worker mode; or ``PollingError`` for
        an event that is not known, because only a known success is one
    """
    if isinstance(event, Mapping):
        if event.get("status") == "error" and isinstance(event.get("error"), Mapping):
            raise error_from_json(event["error"])
        if event.get("status") == expected:
            return event
    raise exceptions.PollingError("the task was resumed without a usable event; its list may be fine")


def error_to_json(error: exceptions.MachFiveError) -> dict[str, Any]:
    """Return an error as plain JSON."""
    return {
        "class": type(error).__name__,
        "occurred_at": error.occurred_at.to_iso8601_string(),
        **{name: getattr(error, name) for name in _PLAIN},
    }


def _moment(text: Any) -> pendulum.DateTime | None:
    try:
        moment = pendulum.parse(text)
    except (TypeError, ValueError):
        return None
    return moment if isinstance(moment, pendulum.DateTime) else None


def error_from_json(data: Mapping[str, Any]) -> exceptions.MachFiveError:
    """Return the error that :func:`error_to_json` wrote; one of an unknown class is a transient one."""
    name = data.get("class")
    known = getattr(exceptions, name) if name in exceptions.__all__ else exceptions.MachFiveTransientError
    context = {field: data.get(field) for field in _PLAIN if field != "message"}
    error: exceptions.MachFiveError = known(
        str(data.get("message")), occurred_at=_moment(data.get("occurred_at")), **context
    )
    return error

"""The events with which triggers end: written as plain JSON in the triggerer, read again by the task on a worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList

__all__ = ["ended", "error_from_json", "error_to_json", "failed", "read", "submit"]

_CONTEXT: Mapping[str, Any] = {
    "status_code": int,
    "code": str,
    "detail": object,
    "request_id": str,
    "endpoint": str,
    "retry_after": (int, float),
    "remedy": str,
    "attempts": int,
    "tried_for": (int, float),
}


def ended(lists: Iterable[LeadList], started_at: float, deadline: float) -> dict[str, Any]:
    """Return the event for lists that have completed or failed.

    :param started_at: epoch seconds at which the wait began
    :param deadline: epoch seconds at which it ends; the task needs both if other lists are still running
    """
    plain = [each.to_json() for each in lists]
    return {"status": "ended", "lists": plain, "started_at": started_at, "deadline": deadline}


def submit(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event for a task that is to search for its list again, and to submit if there is none.

    :param attempt: how far the task is with its purchase, as it gave it to the trigger
    """
    return {"status": "submit", "attempt": dict(attempt)}


def failed(error: exceptions.MachFiveError) -> dict[str, Any]:
    """Return the event for a wait that failed: :func:`read` raises the error on the worker."""
    return {"status": "error", "error": error_to_json(error)}


def read(event: Any, expected: str) -> Mapping[str, Any]:
    """Return an event of the expected status.

    :raises MachFiveError: the error in the event, of the same class as in worker mode
    :raises PollingError: for any other event; only the expected one counts as success
    """
    if isinstance(event, Mapping):
        if event.get("status") == "error" and isinstance(event.get("error"), Mapping):
            raise error_from_json(event["error"])
        if event.get("status") == expected:
            return event
    raise exceptions.PollingError(
        "the task was resumed without a usable event; its list may be fine, and the next try picks it up"
    )


def error_to_json(error: exceptions.MachFiveError) -> dict[str, Any]:
    """Return an error as plain JSON."""
    return {
        "class": type(error).__name__,
        "message": error.message,
        "occurred_at": error.occurred_at.to_iso8601_string(),
        **{name: getattr(error, name) for name in _CONTEXT},
    }


def _moment(text: Any) -> pendulum.DateTime | None:
    try:
        moment = pendulum.parse(text)
    except (TypeError, ValueError):
        return None
    return moment if isinstance(moment, pendulum.DateTime) else None


def error_from_json(data: Mapping[str, Any]) -> exceptions.MachFiveError:
    """Return the error that :func:`error_to_json` wrote; a ``MachFiveTransientError`` if its class is not known.

    The triggerer may run another release of this provider than the worker.
    """
    name = data.get("class")
    known = getattr(exceptions, name) if name in exceptions.__all__ else exceptions.MachFiveTransientError
    known_fields = _CONTEXT.keys() & data.keys()
    context = {field: data[field] for field in known_fields if _can_be_shown(data[field], _CONTEXT[field])}
    error: exceptions.MachFiveError = known(
        str(data.get("message")), occurred_at=_moment(data.get("occurred_at")), **context
    )
    return error


def _can_be_shown(value: Any, kind: Any) -> bool:
    """Tell whether ``str(error)`` works with this value: it formats numbers, which fails for infinite and huge ones."""
    return isinstance(value, kind) and (not isinstance(value, (int, float)) or abs(value) < 1e18)

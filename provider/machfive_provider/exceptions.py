"""All exceptions of this provider: one class for each thing that a reader may have to do.

The base class says whether a retry can help. A permanent error is also an ``AirflowFailException``: Airflow fails
the task at once, whatever its ``retries``. Statuses and codes are those of the vendor's errors page
(docs/api.md, "Errors").

::

    MachFiveError
     ├── MachFivePermanentError (AirflowFailException)   a retry cannot help
     │    ├── ConfigurationError        connection or parameter wrong; nothing was sent
     │    ├── InvalidLeadsError         leads or options wrong; nothing was sent
     │    ├── BadRequestError           400
     │    ├── UnauthorizedError         401
     │    ├── InsufficientCreditsError  402
     │    ├── ForbiddenError            403
     │    ├── NotFoundError             404
     │    ├── ListFailedError           the list ended failed and nothing will buy it again
     │    └── IncompleteExportError     fewer leads came back than were submitted
     └── MachFiveTransientError                          a retry may help: the task's own retries
          ├── RateLimitedError          429
          │    └── WorkspaceLimitError  429 WORKSPACE_LIMIT: too many batches at once
          ├── ServerError               5xx, 408
          ├── TransportError            no complete response: connect, read, write, timeout, cut short
          ├── ProtocolError             a response that does not follow docs/api.md
          ├── NotReadyError             409 NOT_READY
          ├── AmbiguousSubmissionError  a paid request that may have been accepted
          ├── BatchFailedError          the batch this task bought failed; it may be bought again
          ├── CapacityTimeoutError      no capacity in the workspace in time; nothing was bought
          ├── WaitTimeoutError          the deadline passed
          │    └── SensorTimeoutError (AirflowSensorTimeout)   the sensor's; final, as sensors are
          └── PollingError              gave up after repeated failed polls
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

import pendulum
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from machfive_provider.formatting import duration, one_line

__all__ = [
    "AmbiguousSubmissionError",
    "BadRequestError",
    "BatchFailedError",
    "CapacityTimeoutError",
    "ConfigurationError",
    "ForbiddenError",
    "IncompleteExportError",
    "InsufficientCreditsError",
    "InvalidLeadsError",
    "ListFailedError",
    "MachFiveError",
    "MachFivePermanentError",
    "MachFiveTransientError",
    "NotFoundError",
    "NotReadyError",
    "PollingError",
    "ProtocolError",
    "RateLimitedError",
    "SensorTimeoutError",
    "ServerError",
    "TransportError",
    "UnauthorizedError",
    "WaitTimeoutError",
    "WorkspaceLimitError",
]


class MachFiveError(Exception):
    """Base of all errors of this provider.

    Its text is one line, what happened and what to do before all else: Airflow's UI cuts lines at about 130 characters.

    :param message: what went wrong, in the API's words where it gave any
    :param status_code: HTTP status of the response, None if there was none
    :param code: the API's error code, e.g. ``INSUFFICIENT_CREDITS``
    :param detail: the API's optional ``detail``, of any JSON type
    :param request_id: MachFive's support asks for it; None if the API sent none
    :param occurred_at: UTC time of the failure; now, unless given
    :param endpoint: method and path template, e.g. ``GET /api/v1/lists/{list_id}``
    :param retry_after: seconds the server asked to wait (``Retry-After``), None if it did not ask
    :param remedy: what to do; by default that of the class, which may be empty where the message says it
    :param attempts: how often the request was sent
    :param tried_for: seconds from the first attempt to the failure of the last
    """

    retryable: ClassVar[bool] = False
    remedy: str = ""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        detail: Any = None,
        request_id: str | None = None,
        occurred_at: pendulum.DateTime | None = None,
        endpoint: str | None = None,
        retry_after: float | None = None,
        remedy: str | None = None,
        attempts: int = 1,
        tried_for: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.occurred_at = occurred_at or pendulum.now("UTC")
        self.endpoint = endpoint
        self.retry_after = retry_after
        self.remedy = type(self).remedy if remedy is None else remedy
        self.attempts = attempts
        self.tried_for = tried_for

    def add(self, sentence: str) -> Self:
        """Add a sentence to the message, unless the error says it already; return the error itself."""
        if sentence.strip() not in f"{self.message} {self.remedy}":
            self._say(f"{_closed(self.message)} {sentence.strip()}")
        return self

    def about(self, what: str) -> Self:
        """Begin the message with what it is about, e.g. ``List …``, unless it is named there; return the error itself.

        The API's own messages name no id.
        """
        if what.lower() not in self.message.lower():
            self._say(f"{what}: {self.message}")
        return self

    def _say(self, message: str) -> None:
        self.message = message
        self.args = (message,)

    def __str__(self) -> str:
        said = [_closed(one_line(self.message))] if self.message else []
        if self.retry_after is not None:
            said.append(f"The server asks to wait {self.retry_after:g} s.")
        if self.remedy:
            said.append(self.remedy)
        if self.attempts > 1:
            said.append(f"Tried {self.attempts} times in {duration(self.tried_for)}.")
        if self.detail not in (None, "", {}, []):
            said.append(f"Detail: {one_line(_compact(self.detail))}")
        status = " ".join(str(part) for part in (self.status_code, self.code) if part is not None)
        request = f"request id {self.request_id}" if self.request_id else ""
        source = (status, self.endpoint or "", request, self.occurred_at.to_iso8601_string())
        return " ".join((*said, f"[{', '.join(one_line(part) for part in source if part)}]"))


def _closed(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _compact(detail: Any) -> str:
    return detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False, default=str)


class MachFivePermanentError(MachFiveError, AirflowFailException):  # type: ignore[misc]  # its status_code is another
    """A retry cannot help: the task fails at once, whatever its ``retries``."""


class ConfigurationError(MachFivePermanentError):
    """The connection or a parameter is wrong; nothing was sent."""


class InvalidLeadsError(MachFivePermanentError):
    """Leads or options are wrong by this provider's own checks; nothing was sent or spent."""


class BadRequestError(MachFivePermanentError):
    """400: the API refused the request as invalid."""

    remedy = "Nothing was spent. Correct what the message says, then clear the task."


class UnauthorizedError(MachFivePermanentError):
    """401: no key, a wrong key, or a revoked one."""

    remedy = "Put a valid API key into the password field of the Airflow connection."


class InsufficientCreditsError(MachFivePermanentError):
    """402: the workspace has no credits left for this request."""

    remedy = "Nothing was spent. Upgrade or wait for the reset, then clear the task."


class ForbiddenError(MachFivePermanentError):
    """403: the campaign or list belongs to another workspace, or the key lacks a scope."""

    remedy = "Use an API key of the workspace that owns the campaign or list."


class NotFoundError(MachFivePermanentError):
    """404: no such campaign, list or saved signature in this workspace."""

    remedy = "Check the id, and that the API key is of its workspace."


class ListFailedError(MachFivePermanentError):
    """The list failed, and this task cannot buy it again: it only waits, or has bought as often as it may."""

    remedy = "It can never be exported: submit its leads again."


class IncompleteExportError(MachFivePermanentError):
    """Fewer leads came back than were submitted, and ``on_missing_leads`` is ``fail``."""


class MachFiveTransientError(MachFiveError):
    """A retry may help: Airflow's own ``retries`` apply."""

    retryable = True


class RateLimitedError(MachFiveTransientError):
    """429 of any code: the API asks for fewer requests."""

    remedy = "Nothing was spent. Wait, then try again; spread the load if it keeps happening."


class WorkspaceLimitError(RateLimitedError):
    """429 WORKSPACE_LIMIT: as many batches as the workspace may have are being processed already."""

    remedy = "Nothing was spent. Wait until a running batch completes."


class ServerError(MachFiveTransientError):
    """5xx or 408: a failure on the server's side."""

    remedy = "Try again later; if it lasts, send MachFive support the request id and the time."


class TransportError(MachFiveTransientError):
    """No complete response arrived: connecting, writing, reading, a timeout, or a body cut short.

    :param may_have_arrived: False only if the request certainly never reached the API, so that even a paid
        request can be sent again at once
    """

    remedy = "Check the connection's host, proxy and firewall."

    def __init__(self, message: str, *, may_have_arrived: bool = True, **context: Any) -> None:
        super().__init__(message, **context)
        self.may_have_arrived = may_have_arrived


class ProtocolError(MachFiveTransientError):
    """The response does not follow the API's contract: another shape, not JSON, an unexpected status."""

    remedy = "Check the connection's host; a proxy may have responded in place of MachFive."


class NotReadyError(MachFiveTransientError):
    """409 NOT_READY: the list has not completed yet. A task that waits for the list polls on."""

    remedy = "Wait until the list has completed."


class AmbiguousSubmissionError(MachFiveTransientError):
    """A paid request may have been accepted, but its list has not shown up."""

    remedy = "The next attempt searches for the list before it sends anything."


class BatchFailedError(MachFiveTransientError):
    """The batch this task bought ended failed on MachFive's side; a retry buys it again."""


class CapacityTimeoutError(MachFiveTransientError):
    """No capacity in the workspace within ``capacity_timeout``; nothing was bought."""


class WaitTimeoutError(MachFiveTransientError):
    """The deadline passed before the list had completed; the text says whether it is still running."""

    remedy = (
        "A retry waits for the same list, at no cost; MachFive keeps working on it. "
        "If lists take this long, raise timeout."
    )


class SensorTimeoutError(WaitTimeoutError, AirflowSensorTimeout):  # type: ignore[misc]  # as above
    """The sensor's ``timeout`` passed: final, as it is for every Airflow sensor."""

    retryable = False
    remedy = "Clear the task to wait on; MachFive keeps working on it. If lists take this long, raise timeout."


class PollingError(MachFiveTransientError):
    """The task gave up after repeated failed polls; the list itself may be fine."""

    remedy = "The next attempt waits for the same list again."

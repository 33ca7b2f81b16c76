"""Whether to send a request again, and after how many seconds: pure functions over plain numbers.

The vendor's errors page asks for exponential backoff on 500; ``Retry-After`` is of the newer generation
(docs/api.md, "Errors" and "Two generations").
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from machfive_provider.exceptions import MachFiveError, MachFiveTransientError, NotReadyError, TransportError

__all__ = ["ONCE", "QUICK", "RequestRetries", "RetryPolicy", "backoff", "may_repeat", "retry_after_seconds"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a request that may be repeated is repeated.

    :param within: seconds; an outage of this length is survived: after a failure the request is sent again until one
        attempt has begun so long after the first
    :param attempts: requests in all, the first included, if that ends it sooner; 1 never repeats, None is no limit
    :param base: seconds; the longest first pause
    :param cap: seconds; the longest pause where the server asks for none
    :param retry_after_cap: seconds; the longest pause that the server may ask for
    :param request_timeout: seconds for which a read waits for a connection, and for the next byte, if shorter than
        usual; paid requests keep their own
    """

    within: float = 30.0
    attempts: int | None = None
    base: float = 0.5
    cap: float = 8.0
    retry_after_cap: float = 60.0
    request_timeout: float = math.inf


ONCE = RetryPolicy(attempts=1)  # for polls: whoever polls waits and counts failures by itself
QUICK = RetryPolicy(attempts=1, request_timeout=3.0)  # for a person who waits for the result


@dataclass(slots=True)
class RequestRetries:
    """Counts the attempts of one call and decides whether there is another.

    :param repeatable: as for :func:`may_repeat`
    :param number: attempts that have failed
    :param began_after: seconds from the first attempt to the beginning of the present one
    """

    policy: RetryPolicy
    repeatable: bool
    number: int = 0
    began_after: float = 0.0

    def pause_after(self, error: MachFiveError, took: float, jitter: Callable[[], float]) -> float | None:
        """Return the seconds to pause before the next attempt, None to give up; notes on the error what was tried.

        The pauses are added up instead of asking a clock, so that a process that was stopped loses no attempt.

        :param took: seconds from the beginning of the failed attempt to its end
        """
        self.number += 1
        error.attempts, error.tried_for = self.number, self.began_after + took
        if (
            self.number == self.policy.attempts
            or self.began_after >= self.policy.within
            or not may_repeat(error, repeatable=self.repeatable)
        ):
            return None
        pause = backoff(self.policy, self.number, error, jitter)
        self.began_after += took + pause
        return pause


def may_repeat(error: MachFiveError, *, repeatable: bool) -> bool:
    """Whether the client may send a request again that ended in ``error``.

    :param repeatable: True for reads. A paid request is repeated only if it never left this machine: the API
        has no idempotency key (docs/api.md, "Endpoints"), so a second one may be a second purchase.
    """
    if not repeatable:
        return isinstance(error, TransportError) and not error.may_have_arrived
    return isinstance(error, MachFiveTransientError) and not isinstance(error, NotReadyError)


def backoff(policy: RetryPolicy, attempt: int, error: MachFiveError, jitter: Callable[[], float]) -> float:
    """Seconds to pause after the given attempt (counted from 1).

    Exponential with full jitter, so that many tasks that failed together do not come back together; at least as long as
    the server asks for (``Retry-After``), up to ``retry_after_cap``.

    :param jitter: returns a number in [0, 1)
    """
    own = jitter() * min(policy.cap, policy.base * float(2 ** min(attempt - 1, 32)))
    return max(own, min(error.retry_after or 0.0, policy.retry_after_cap))


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait, never negative; None if it says nothing usable.

    :param value: the header: seconds, or an HTTP date (RFC 9110, section 10.2.3)
    :param now: the time to which a date is compared
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII):
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None

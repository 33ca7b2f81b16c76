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

from machfive_provider.exceptions import MachFiveTransientError, NotReadyError, TransportError

__all__ = ["RetryPolicy", "backoff", "may_repeat", "retry_after_seconds", "should_stop"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a request that may be repeated is repeated.

    :param attempts: requests in all, the first included; 1 never repeats
    :param within: seconds from the first request after which no further one is made
    :param base: seconds; the longest first pause
    :param cap: seconds; the longest pause where the server asks for none
    :param retry_after_cap: seconds; the longest pause that the server may ask for
    """

    attempts: int = 5
    within: float = 60.0
    base: float = 0.5
    cap: float = 8.0
    retry_after_cap: float = 60.0


ONCE = RetryPolicy(attempts=1)


def may_repeat(error: BaseException, *, repeatable: bool) -> bool:
    """Whether the client may send a request again that ended in ``error``.

    :param repeatable: True for reads. A paid request is repeated only if it never left this machine: the API
        has no idempotency key (docs/api.md, "Endpoints"), so a second one may be a second purchase.
    """
    if not repeatable:
        return isinstance(error, TransportError) and not error.may_have_arrived
    return isinstance(error, MachFiveTransientError) and not isinstance(error, NotReadyError)


def backoff(policy: RetryPolicy, attempt: int, error: BaseException | None, jitter: Callable[[], float]) -> float:
    """Seconds to pause after the given attempt (counted from 1).

    The server's ``Retry-After`` is honoured up to ``retry_after_cap``. Otherwise the pause is exponential with
    full jitter, so that many tasks that failed together do not come back together.

    :param jitter: returns a number in [0, 1)
    """
    if isinstance(error, MachFiveTransientError) and error.retry_after is not None:
        return min(error.retry_after, policy.retry_after_cap)
    longest = min(policy.cap, policy.base * float(2 ** min(attempt - 1, 32)))
    return jitter() * longest


def should_stop(policy: RetryPolicy, attempt: int, elapsed: float, error: BaseException | None, pause: float) -> bool:
    """Whether to give up after the given attempt instead of pausing for ``pause`` seconds.

    A pause that the server asked for may end after ``within``: a request before its end would surely be refused.
    """
    if attempt >= policy.attempts or elapsed >= policy.within:
        return True
    asked = isinstance(error, MachFiveTransientError) and error.retry_after is not None
    return not asked and elapsed + pause > policy.within


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

"""What one poll of a list means: one pure decision, and the loop of a worker that waits by itself.

``decide_poll`` uses no clock and no network: ``now`` is an argument, and the caller has sent the poll. The loop of a
worker (here) and that of a trigger (``triggers.lead_list``) both call it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import RUNNING, LeadList
from machfive_provider.formatting import duration

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = [
    "Done",
    "GiveUp",
    "Progress",
    "Wait",
    "Watch",
    "decide_poll",
    "effective_deadline",
    "jittered",
    "next_news",
    "poll_list",
    "read_with_changed_key",
    "wait_for_list",
]

T = TypeVar("T")

SHORTEST_INTERVAL = 1.0  # seconds; MachFive asks for 10-30 (docs/api.md); a typing error must not flood it
_NOT_VISIBLE_YET = 120.0  # seconds after submission in which a 404 is expected
_INVISIBLE = "invisible"  # in place of a status
_FAILED_POLLS = 10  # in a row before giving up, and then only if ...
_OUTAGE = 600.0  # ... they have failed for so many seconds: a short outage must not fail a task
_LONGEST_BACKOFF = 60.0  # seconds between polls that fail, if the interval is not longer
_FIRST_REPORT = 300.0  # seconds without news after which the log says that it still waits; then doubled
_LAST_REPORT = 3600.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What is waited for, and how long.

    :param interval: seconds between polls
    :param started_at: epoch seconds at which this attempt began to wait
    :param deadline: epoch seconds after which the wait is given up; there is at least one poll
    :param submitted_at: epoch seconds of our own submission, None for somebody else's list
    """

    list_id: str
    interval: float
    started_at: float
    deadline: float
    submitted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What is kept from poll to poll.

    :param status: the status last seen, None before the first
    :param failures: how many polls in a row have failed
    :param failing_since: epoch seconds of the first of them
    :param report_after: seconds of waiting after which the log says that it still waits
    """

    status: str | None = None
    failures: int = 0
    failing_since: float | None = None
    report_after: float = _FIRST_REPORT


@dataclass(frozen=True, slots=True)
class Wait:
    """Poll again ``after`` so many seconds; ``notice`` is for the task's log, None if there is nothing to tell."""

    after: float
    progress: Progress
    notice: str | None = None
    is_trouble: bool = False

    def tell(self, log: Any) -> None:
        """Log the notice, if there is one: polls that fail as a warning."""
        if self.notice:
            (log.warning if self.is_trouble else log.info)("%s", self.notice)


@dataclass(frozen=True, slots=True)
class Done:
    """The list has ended: completed, or failed."""

    lead_list: LeadList


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The wait is over without an end of the list; ``error`` says why and whether a retry can help."""

    error: exceptions.MachFiveError


def decide_poll(
    watch: Watch, progress: Progress, polled: LeadList | exceptions.MachFiveError, now: float
) -> Wait | Done | GiveUp:
    """Decide what a poll means.

    :param polled: the list as seen, or why it could not be seen
    :param now: epoch seconds
    """
    if isinstance(polled, LeadList):
        if polled.is_completed or polled.is_failed:
            return Done(polled)
        if now >= watch.deadline:
            return GiveUp(_timed_out(watch, f"is still {polled.processing_status}", now))
        return _still_running(watch, progress, polled.processing_status, now)
    if _not_visible_yet(watch, polled, now):
        if now >= watch.deadline:
            return GiveUp(_timed_out(watch, "is not visible yet", now))
        notice = f"List {watch.list_id} is not visible yet." if progress.status != _INVISIBLE else None
        return Wait(_pause(watch, now), replace(progress, status=_INVISIBLE), notice)
    if not polled.retryable:
        return GiveUp(copy(polled).about(f"List {watch.list_id}"))  # others may be told the same error
    return _failed_poll(watch, progress, polled, now)


def next_news(watch: Watch, progress: Progress) -> tuple[str | None, float]:
    """Return which polls :func:`decide_poll` would only wait on without a notice, so that it need not be asked.

    :return: the status last seen, and the epoch second before which seeing it again is no news; None if every poll is
    """
    known = None if progress.failures or progress.status == _INVISIBLE else progress.status
    return known, min(watch.deadline, watch.started_at + progress.report_after)


def _still_running(watch: Watch, progress: Progress, status: str, now: float) -> Wait:
    pause, waited = _pause(watch, now), now - watch.started_at
    seen = replace(progress, status=status, failures=0, failing_since=None)
    if status != progress.status:
        before = f" (was {progress.status})" if progress.status else ""
        unknown = "" if status in RUNNING else " That status is not one this provider knows: it waits on."
        notice = (
            f"List {watch.list_id} is {status}{before} after {duration(waited)}; polling every "
            f"{duration(watch.interval)}, until {_clock(watch.deadline)} at the latest.{unknown}"
        )
        return Wait(pause, seen, notice)
    if progress.failures:
        return Wait(pause, seen, f"List {watch.list_id} can be seen again: {status} after {duration(waited)}.")
    if waited >= progress.report_after:
        later = waited + min(_LAST_REPORT, progress.report_after)
        notice = (
            f"List {watch.list_id} is still {status} after {duration(waited)}; next poll in {duration(pause)}, "
            f"the last at {_clock(watch.deadline)}."
        )
        return Wait(pause, replace(seen, report_after=later), notice)
    return Wait(pause, seen)


def _failed_poll(watch: Watch, progress: Progress, error: exceptions.MachFiveError, now: float) -> Wait | GiveUp:
    failures, since = progress.failures + 1, progress.failing_since or now
    if now >= watch.deadline:
        return GiveUp(_timed_out(watch, "could not be polled at the end", now, error))
    if failures >= _FAILED_POLLS and now - since >= _OUTAGE:
        return GiveUp(
            exceptions.PollingError(
                f"List {watch.list_id}: {failures} polls in a row failed, over {duration(now - since)}; the list "
                f"itself may be fine. The last failure: {error.message}",
                **_origin(error),
            )
        )
    longer = min(_LONGEST_BACKOFF, watch.interval * 2 ** min(failures - 1, 6))
    pause = min(max(watch.interval, longer, error.retry_after or 0.0), max(0.0, watch.deadline - now))
    notice = None
    if failures in (1, 3) or failures % 10 == 0:
        notice = f"Poll {failures} in a row of list {watch.list_id} failed; next in {duration(pause)}. {error}"
    return Wait(pause, replace(progress, failures=failures, failing_since=since), notice, is_trouble=True)


def _not_visible_yet(watch: Watch, error: exceptions.MachFiveError, now: float) -> bool:
    return (
        isinstance(error, exceptions.NotFoundError)
        and watch.submitted_at is not None
        and now - watch.submitted_at < _NOT_VISIBLE_YET
    )


def _timed_out(
    watch: Watch, state: str, now: float, error: exceptions.MachFiveError | None = None
) -> exceptions.WaitTimeoutError:
    last = f" The last failure: {error.message}" if error else ""
    waited = duration(now - watch.started_at)
    return exceptions.WaitTimeoutError(
        f"List {watch.list_id} {state} after {waited} (timeout).{last}", **(_origin(error) if error else {})
    )


def _origin(error: exceptions.MachFiveError) -> dict[str, Any]:
    """Return what MachFive's support asks for."""
    return {name: getattr(error, name) for name in ("status_code", "code", "endpoint", "request_id")}


def _pause(watch: Watch, now: float) -> float:
    return max(0.0, min(watch.interval, watch.deadline - now))


def effective_deadline(started_at: float, timeout: float, execution_timeout: float | None) -> float:
    """Return the epoch second at which waiting ends, so that our own message comes before Airflow's.

    :param started_at: epoch seconds at which this attempt began
    :param timeout: the operator's own, in seconds
    :param execution_timeout: the task's ``execution_timeout`` in seconds, None if it has none
    """
    if execution_timeout is None:
        return started_at + timeout
    return started_at + min(timeout, execution_timeout - min(10.0, execution_timeout / 20))


def jittered(seconds: float) -> float:
    """Spread a pause by a tenth either way, so that tasks that began together do not stay together."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - not for secrets


def read_with_changed_key(hook: MachFiveHook, read: Callable[[], T]) -> T:
    """Send a read; on a 401 the connection is looked up once more, because keys are rotated during long waits."""
    with suppress(exceptions.UnauthorizedError):
        return read()
    hook.forget_connection()
    return read()


def poll_list(hook: MachFiveHook, list_id: str) -> LeadList:
    """Poll a list, by way of :func:`read_with_changed_key`."""
    return read_with_changed_key(hook, lambda: hook.get_list(list_id))


def wait_for_list(
    watch: Watch,
    poll: Callable[[str], LeadList],
    log: Any,
    sleep: Callable[[float], None],
    now: Callable[[], float],
) -> LeadList:
    """Wait on this worker until the list has ended; return it, completed or failed.

    :param poll: polls a list; raises a ``MachFiveError``
    :param sleep: pauses for so many seconds
    :param now: tells the epoch second
    :raises MachFiveError: whatever :func:`decide_poll` gives up with
    """
    progress = Progress()
    while True:
        try:
            polled: LeadList | exceptions.MachFiveError = poll(watch.list_id)
        except exceptions.MachFiveError as error:
            polled = error
        match decide_poll(watch, progress, polled, now()):
            case Done(lead_list):
                return lead_list
            case GiveUp(reason):
                raise reason
            case Wait(after, progress) as wait:
                wait.tell(log)
                sleep(jittered(after))


def _clock(epoch: float) -> str:
    return pendulum.from_timestamp(epoch).format("YYYY-MM-DD HH:mm:ss [UTC]")

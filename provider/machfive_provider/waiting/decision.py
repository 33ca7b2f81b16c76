"""What one look at a list means: one pure decision, and the loop of a worker that waits by itself.

The decision knows no clock and no network: ``now`` is an argument, the look was taken by the caller.
The trigger's loop (``triggers.lead_list``) feeds the same function.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
    "wait_for_list",
]

SHORTEST_INTERVAL = 1.0  # seconds; MachFive asks for 10-30, and a typing error must not become a flood
_NOT_VISIBLE_YET = 120.0  # seconds after submission in which a 404 is no news
_FAILED_LOOKS = 10  # consecutive ones before giving up, and then only if ...
_TROUBLE = 600.0  # ... the trouble has lasted so many seconds: a short outage must not fail a healthy list
_LONGEST_BACKOFF = 60.0  # seconds between polls that fail, if the interval is not longer
_FIRST_REPORT = 300.0  # seconds without news after which the log says that it still waits; then doubled
_LAST_REPORT = 3600.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What is waited for, and how long.

    :param interval: seconds between looks
    :param started_at: epoch seconds at which this attempt began to wait
    :param deadline: epoch seconds after which the wait is given up; at least one look is always taken
    :param submitted_at: epoch seconds of our own submission, None for somebody else's list
    """

    list_id: str
    interval: float
    started_at: float
    deadline: float
    submitted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What is remembered from look to look."""

    status: str | None = None
    failures: int = 0
    failing_since: float | None = None
    report_after: float = _FIRST_REPORT


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again ``after`` so many seconds; ``notice`` is for the task's log, None when there is no news."""

    after: float
    progress: Progress
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The list has ended: completed, or failed."""

    lead_list: LeadList


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Waiting on makes no sense; ``error`` says why and whether a retry can help."""

    error: exceptions.MachFiveError


def decide_poll(
    watch: Watch, progress: Progress, look: LeadList | exceptions.MachFiveError, now: float
) -> Wait | Done | GiveUp:
    """Decide what a look means.

    :param look: the list as seen, or why it could not be seen
    :param now: epoch seconds
    """
    if isinstance(look, LeadList):
        if look.is_completed or look.is_failed:
            return Done(look)
        if now >= watch.deadline:
            return GiveUp(_timed_out(watch, f"is still {look.processing_status} on MachFive's side", now))
        return _still_running(watch, progress, look.processing_status, now)
    if _not_visible_yet(watch, look, now):
        if now >= watch.deadline:
            return GiveUp(_timed_out(watch, "was not visible yet", now))
        notice = f"List {watch.list_id} is not visible yet." if progress.status != "invisible" else None
        return Wait(_pause(watch, now), replace(progress, status="invisible"), notice)
    if not look.retryable:
        return GiveUp(look)
    return _failed_look(watch, progress, look, now)


def next_news(watch: Watch, progress: Progress) -> tuple[str | None, float]:
    """Return when :func:`decide_poll` has nothing to say to another look, so that it need not be asked.

    :return: a status, and the epoch second until which seeing it again is no news; None if every look is
    """
    known = None if progress.failures else progress.status
    return known, min(watch.deadline, watch.started_at + progress.report_after)


def _still_running(watch: Watch, progress: Progress, status: str, now: float) -> Wait:
    pause, waited = _pause(watch, now), now - watch.started_at
    seen = replace(progress, status=status, failures=0, failing_since=None)
    if status != progress.status:
        before = f" (was {progress.status})" if progress.status else ""
        strange = "" if status in RUNNING else " That status is not one this provider knows: it waits on."
        notice = (
            f"List {watch.list_id} is {status}{before} after {duration(waited)}; looking every "
            f"{duration(watch.interval)}, until {_clock(watch.deadline)} at the latest.{strange}"
        )
        return Wait(pause, seen, notice)
    if progress.failures:
        return Wait(pause, seen, f"List {watch.list_id} can be seen again: {status} after {duration(waited)}.")
    if waited >= progress.report_after:
        later = waited + min(_LAST_REPORT, progress.report_after)
        notice = (
            f"List {watch.list_id} is still {status} after {duration(waited)}; next look in {duration(pause)}, "
            f"the last at {_clock(watch.deadline)}."
        )
        return Wait(pause, replace(seen, report_after=later), notice)
    return Wait(pause, seen)


def _failed_look(watch: Watch, progress: Progress, error: exceptions.MachFiveError, now: float) -> Wait | GiveUp:
    failures, since = progress.failures + 1, progress.failing_since or now
    if now >= watch.deadline:
        return GiveUp(_timed_out(watch, f"could not be seen at the end ({error.message})", now))
    if failures >= _FAILED_LOOKS and now - since >= _TROUBLE:
        return GiveUp(
            exceptions.PollingError(
                f"gave up looking at list {watch.list_id} after {failures} failures in a row over "
                f"{duration(now - since)}; the list itself may be fine. The last failure: {error}",
                request_id=error.request_id,
            )
        )
    longer = min(_LONGEST_BACKOFF, watch.interval * 2 ** min(failures - 1, 6))
    pause = min(max(watch.interval, longer, error.retry_after or 0.0), max(0.0, watch.deadline - now))
    notice = None
    if failures in (1, 3) or failures % 10 == 0:
        notice = f"Look {failures} in a row at list {watch.list_id} failed; next in {duration(pause)}. {error}"
    return Wait(pause, replace(progress, failures=failures, failing_since=since), notice)


def _not_visible_yet(watch: Watch, error: exceptions.MachFiveError, now: float) -> bool:
    return (
        isinstance(error, exceptions.NotFoundError)
        and watch.submitted_at is not None
        and now - watch.submitted_at < _NOT_VISIBLE_YET
    )


def _timed_out(watch: Watch, state: str, now: float) -> exceptions.WaitTimeoutError:
    return exceptions.WaitTimeoutError(
        f"list {watch.list_id} {state}, {duration(now - watch.started_at)} after the wait began: the timeout passed. "
        "MachFive keeps working on it (there is no cancel) and nothing is lost: a retry, or clearing the task, "
        "picks the same list up again. Raise timeout if lists take this long."
    )


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


def poll_list(hook: MachFiveHook, list_id: str) -> LeadList:
    """Take one look; on a 401 the connection is read once more, because keys are rotated during long waits."""
    try:
        return hook.get_list(list_id)
    except exceptions.UnauthorizedError:
        hook.forget_connection()
        return hook.get_list(list_id)


def wait_for_list(
    watch: Watch,
    look: Callable[[str], LeadList],
    log: Any,
    sleep: Callable[[float], None],
    now: Callable[[], float],
) -> LeadList:
    """Wait on this worker until the list has ended; return it, completed or failed.

    :param look: takes one look; raises a ``MachFiveError``
    :param sleep: pauses for so many seconds
    :param now: tells the epoch second
    :raises MachFiveError: whatever :func:`decide_poll` gives up with
    """
    progress = Progress()
    while True:
        try:
            seen: LeadList | exceptions.MachFiveError = look(watch.list_id)
        except exceptions.MachFiveError as error:
            seen = error
        match decide_poll(watch, progress, seen, now()):
            case Done(lead_list):
                return lead_list
            case GiveUp(reason):
                raise reason
            case Wait(after, progress, notice):
                if notice:
                    log.info("%s", notice)
                sleep(jittered(after))


def _clock(epoch: float) -> str:
    return pendulum.from_timestamp(epoch).format("YYYY-MM-DD HH:mm:ss [UTC]")

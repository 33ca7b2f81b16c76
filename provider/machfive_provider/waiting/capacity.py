"""Waiting for capacity: which of the waiting tasks may submit next, and the loop of a worker that waits by itself.

A workspace runs a limited number of batches at once (``docs/api.md``: WORKSPACE_LIMIT), each in a slot. The queue uses
no clock and no network: ``now`` is an argument, and the caller reads which lists are active. In the triggerer that is
``capacity_watcher``, one for all waiters of a connection.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.api.models import RUNNING
from machfive_provider.formatting import duration
from machfive_provider.waiting.decision import jittered, read_with_changed_key

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = [
    "CapacityQueue",
    "ProgressLog",
    "QueuePosition",
    "Waiter",
    "no_capacity",
    "running_batches",
    "wait_on_worker",
]

RESERVED_FOR = 60.0  # seconds that a task has to find a worker and submit when a slot was granted to it
REMEMBERED_FOR = 600.0  # seconds for which a limit holds; then one more is tried: MachFive may have raised it
_LONGEST_PAUSE = 3600.0  # seconds; an absurd Retry-After must not stop all later tasks for good
_BETWEEN_LINES = 60.0  # seconds between two lines of a task's log: in a long queue the position changes all the time
_FIRST_REPORT = 300.0  # seconds without news after which the log says that it still waits; then doubled
_LAST_REPORT = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A task in the queue, which is ordered by when each first asked (epoch seconds) and then by arrival."""

    asked_at: float
    arrival: int


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Where a waiter is in the queue of how many, how many batches run, and the limit if it is known."""

    position: int
    waiting: int
    running: int
    limit: int | None


@dataclass(slots=True)
class _Reservation:
    asked_at: float
    granted_at: float
    used: bool = False


class CapacityQueue:
    """The queue for the slots of one workspace. It outlives its waiters: reservations and the limit stay.

    All times are epoch seconds. The API does not tell the limit: it is learned from the error responses to
    submissions and from the number of batches seen to run. While it is unknown, one waiter tries, and then one more for
    each that got in, until one is refused.

    :param hint: the limit that the connection gives (``max_concurrent_batches``), used until one is learned
    """

    def __init__(self, hint: int | None = None) -> None:
        self.hint = hint
        self.updated_at: float | None = None
        self._queue: list[Waiter] = []
        self._arrivals = itertools.count()
        self._reservations: list[_Reservation] = []
        self._active: Set[str] = frozenset()
        self._learned: tuple[int, float] | None = None
        self._tries = 1  # slots that may be reserved at once while the limit is unknown: 1 more for each that was used
        self._most_run = (0, 0.0)  # the most batches seen to run in the last REMEMBERED_FOR seconds, and when
        self._paused_until = 0.0

    def join(
        self,
        asked_at: float,
        now: float,
        limit: int | None = None,
        not_before: float = 0.0,
        *,
        gives_back: int | None = None,
    ) -> Waiter:
        """Join the queue. A task that was told to submit and was refused is first again, by its ``asked_at``.

        :param limit: how many batches ran when it was refused just now, None if it was not or could not tell
        :param not_before: when the API may be asked again (Retry-After), 0 if it did not say
        :param gives_back: the limit known when it was granted a slot that was taken before it could submit, else None
        """
        if limit is not None:
            self._learn(limit, now)
        elif self._learned is None and gives_back is not None:
            self._learn(gives_back, now)  # another triggerer had learned it
        self.pause(not_before, now)
        # Refused although no batch is seen to run: the lists that fill the workspace may not be listed yet. The
        # reservation stays, so that the next attempt comes a minute later and not at once.
        if gives_back is not None or (limit is not None and limit >= 1) or not_before > now:
            self._give_back(asked_at)
        waiter = Waiter(asked_at, next(self._arrivals))
        insort(self._queue, waiter, key=lambda each: (each.asked_at, each.arrival))
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter that will not submit, and its reservation if it has one."""
        if waiter in self._queue:
            self._queue.remove(waiter)
        else:
            self._give_back(waiter.asked_at)

    def pause(self, until: float, now: float) -> None:
        """Grant no slot before ``until``, an hour at the most."""
        self._paused_until = max(self._paused_until, min(until, now + _LONGEST_PAUSE))

    def paused_for(self, now: float) -> float:
        """Return the seconds for which no slot will be granted."""
        return min(_LONGEST_PAUSE, max(0.0, self._paused_until - now))

    def limit(self, now: float) -> int | None:
        """Return how many batches may run at once, None if that is not known."""
        if self._learned is None:
            return self.hint
        limit, learned_at = self._learned
        if 0 <= now - learned_at < REMEMBERED_FOR:
            return limit
        # Forgetting the limit would let as many try as ever got in, and most would be refused.
        return limit + 1 if self.hint is None else self.hint

    def update(self, active: Set[str], now: float) -> list[Waiter]:
        """Take in what was read of the workspace; return who may submit now, in order.

        :param active: ids of the lists pending or processing. Writing takes minutes (``docs/api.md``), so each list is
            seen active at least once
        """
        self._tries += self._use_up(len(active - self._active))
        self._active, self.updated_at = active, now
        self._see(len(active), now)
        if self._learned and len(active) > self._learned[0]:
            # Since the same time: if one more than the limit was let in, one more is tried next.
            self._learned = (len(active), self._learned[1])
        free = self._free(now)
        granted, self._queue = self._queue[:free], self._queue[free:]
        self._reservations += [_Reservation(each.asked_at, now) for each in granted]
        return granted

    def positions(self, now: float) -> Iterator[tuple[Waiter, QueuePosition]]:
        """Yield all waiters in order, each with its position."""
        limit, waiting = self.limit(now), len(self._queue)
        for position, waiter in enumerate(self._queue, 1):
            yield waiter, QueuePosition(position, waiting, len(self._active), limit)

    def _free(self, now: float) -> int:
        if self.paused_for(now) > 0:
            return 0
        limit, reserved = self.limit(now), self._reserved(now)
        if limit is None:
            return max(0, self._tries - reserved)
        return max(0, limit - len(self._active) - reserved)

    def _see(self, running: int, now: float) -> None:
        most, seen_at = self._most_run
        if running >= most or not 0 <= now - seen_at < REMEMBERED_FOR:
            self._most_run = (running, now)

    def _learn(self, running: int, now: float) -> None:
        # Batches may have ended between the error response and the count, and new lists may not be listed yet, so the
        # limit is not lower than what ran in the last ten minutes. A count of none tells nothing.
        self._see(running, now)
        if self._most_run[0]:
            self._learned = (self._most_run[0], now)

    def _reserved(self, now: float) -> int:
        # A clock that was set back must not make a reservation last for hours.
        self._reservations = [each for each in self._reservations if 0 <= now - each.granted_at < RESERVED_FOR]
        return sum(not each.used for each in self._reservations)

    def _use_up(self, appeared: int) -> int:
        # The API does not say who submitted a list. Another client's fills a slot as well, so the sum is right.
        ended = [each for each in self._reservations if not each.used][:appeared]
        for each in ended:
            each.used = True
        return len(ended)

    def _give_back(self, asked_at: float) -> None:
        mine = next((each for each in self._reservations if each.asked_at == asked_at), None)
        if mine is None:
            return
        self._reservations.remove(mine)
        if mine.used:
            # The list that used it up belongs to another waiter, whose reservation is the one to end.
            self._use_up(1)


class ProgressLog:
    """What a task's log is told about its wait: changes, and else ever more rarely that it goes on.

    :param asked_at: epoch seconds at which the task first asked
    :param deadline: epoch seconds at which it gives up
    """

    def __init__(self, asked_at: float, deadline: float) -> None:
        self._asked_at, self._deadline = asked_at, deadline
        self._told: QueuePosition | None = None
        self._told_at = 0.0
        self._again_after = _FIRST_REPORT
        self._failures = 0

    def tell(self, log: Any, seen: QueuePosition | exceptions.MachFiveError, now: float) -> None:
        """Log the line, if there is one: reads that fail as a warning."""
        if line := self.line(seen, now):
            (log.warning if isinstance(seen, exceptions.MachFiveError) else log.info)("%s", line)

    def line(self, seen: QueuePosition | exceptions.MachFiveError, now: float) -> str | None:
        """Return the line to log after a read of the workspace, None for none.

        :param seen: the task's position, or why the workspace could not be read
        """
        if isinstance(seen, exceptions.MachFiveError):
            self._failures += 1
            if self._failures not in (1, 3) and self._failures % 10:
                return None
            return f"The workspace could not be read ({self._failures} in a row), which is tried again: {seen}"
        healed, self._failures = self._failures > 0, 0  # who was told of the failures is told of their end
        changed = self._told is None or (seen.position, seen.limit) != (self._told.position, self._told.limit)
        since = now - self._told_at
        if not healed and since < (_BETWEEN_LINES if changed else self._again_after):
            return None
        self._again_after = _FIRST_REPORT if changed else min(_LAST_REPORT, 2 * self._again_after)
        self._told, self._told_at = seen, now
        return self._text(seen, now)

    def _text(self, seen: QueuePosition, now: float) -> str:
        place = "first in the queue" if seen.position == 1 else f"number {seen.position} of {seen.waiting} in the queue"
        batches = "1 batch runs" if seen.running == 1 else f"{seen.running} batches run"
        limit = "its limit is not known" if seen.limit is None else f"its limit is taken to be {seen.limit}"
        return (
            f"Waiting for a free slot in the workspace, {place}: {batches}, {limit}. It has waited "
            f"{duration(now - self._asked_at)} and gives up in {duration(self._deadline - now)} (capacity_timeout)."
        )


def no_capacity(waited: float, trouble: exceptions.MachFiveError | None = None) -> exceptions.CapacityTimeoutError:
    """Return the error for a workspace that stayed full.

    :param waited: seconds since the task first asked
    :param trouble: why the last read of the workspace failed, None if it did not
    """
    error = exceptions.CapacityTimeoutError(
        f"The workspace had no free slot for another batch for {duration(waited)}. Nothing was bought.",
        remedy="Raise capacity_timeout (and execution_timeout, if that is shorter), submit fewer batches at a time (an "
        "Airflow pool helps), or ask MachFive for a higher limit.",
    )
    return error.add(f"The last read of it failed: {trouble.message}") if trouble else error


def running_batches(hook: MachFiveHook) -> frozenset[str]:
    """Return the ids of the lists that are pending or processing; raises a ``MachFiveError``."""
    return frozenset(each.id for status in RUNNING for each in hook.iter_lists(status=status))


def wait_on_worker(
    hook: MachFiveHook,
    *,
    asked_at: float,
    deadline: float,
    interval: float,
    limit: int | None,
    not_before: float,
    log: Any,
    sleep: Callable[[float], None],
    now: Callable[[], float],
) -> int | None:
    """Wait on this worker until the task may submit; return the workspace's limit, None if it is not known.

    All times are in seconds, points in time since the epoch.

    :param limit, not_before: as for :meth:`CapacityQueue.join`
    :raises CapacityTimeoutError: at the deadline
    :raises MachFivePermanentError: if the workspace may not be read
    """
    queue, progress = CapacityQueue(hook.settings.max_concurrent_batches), ProgressLog(asked_at, deadline)
    queue.join(asked_at, now(), limit, not_before)
    # At once only with a limit to compare with and no error response a moment ago.
    pause = 0.0 if limit is None and queue.hint else jittered(interval)
    trouble: exceptions.MachFiveError | None = None
    while (left := deadline - now()) > 0:
        if (pause := min(max(pause, queue.paused_for(now())), left)) > 0:
            sleep(pause)
        try:
            active = read_with_changed_key(hook, lambda: running_batches(hook))
        except exceptions.MachFiveTransientError as error:
            trouble = error
        else:
            trouble = None
            if queue.update(active, now()):
                return queue.limit(now())
        seen = trouble or next(position for _, position in queue.positions(now()))
        progress.tell(log, seen, now())
        pause = max(jittered(interval), (trouble and trouble.retry_after) or 0.0)
    raise no_capacity(now() - asked_at, trouble)

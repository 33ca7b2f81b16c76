"""Waiting for a free slot of the workspace: the loop of a worker, and what a task is told meanwhile.

In the triggerer ``capacity_watcher`` waits instead, once for all tasks of a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.api.models import RUNNING
from machfive_provider.formatting import duration
from machfive_provider.waiting.capacity_queue import CapacityQueue, QueuePosition
from machfive_provider.waiting.decision import jittered, read_with_changed_key

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["ProgressLog", "no_capacity", "running_batches", "wait_on_worker"]

_BETWEEN_LINES = 60.0  # seconds between two lines of a task's log: in a long queue the position changes all the time
_FIRST_REPORT = 300.0  # seconds without news after which the log says that it still waits; then doubled
_LAST_REPORT = 3600.0


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
        # A task on a worker has a queue for itself: it cannot tell its place among all that wait.
        place = f", number {seen.position} of {seen.waiting} in the queue" if seen.waiting > 1 else ""
        batches = "1 batch runs" if seen.running == 1 else f"{seen.running} batches run"
        limit = "its limit is not known" if seen.limit is None else f"its limit is taken to be {seen.limit}"
        return (
            f"Waiting for a free slot in the workspace{place}: {batches}, {limit}. It has waited "
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

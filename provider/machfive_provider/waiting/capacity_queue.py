"""A queue for the slots of a workspace: which of the waiting tasks may submit next.

A workspace runs a limited number of batches at once (``docs/api.md``: WORKSPACE_LIMIT), each in a slot. A triggerer has
one queue for each connection, with all tasks that wait in it; a task that waits on a worker has one for itself. Queues
know nothing of each other: what they share is the workspace that they read.

There is no clock and no network here: ``now`` is an argument, and the caller reads which lists are active.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Iterator, Set
from dataclasses import dataclass

__all__ = ["CapacityQueue", "QueuePosition", "Waiter"]

RESERVED_FOR = 60.0  # seconds that a task has to find a worker and submit when a slot was granted to it
# Seconds for which a learned limit holds, and the most batches seen to run. Then the hint holds again, or one more is
# tried: MachFive may have raised the limit.
REMEMBERED_FOR = 600.0
_LONGEST_PAUSE = 3600.0  # seconds; an absurd Retry-After must not stop all later tasks for good


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A task in the queue. The order is that of ``asked_at``, when it first asked (epoch seconds), then of arrival."""

    asked_at: float
    arrival: int


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """What a waiter is told of its wait.

    :param position: its place in the queue, from 1
    :param waiting: how many are in the queue
    :param running: how many batches run
    :param limit: how many may run at once, None if that is not known
    """

    position: int
    waiting: int
    running: int
    limit: int | None


@dataclass(slots=True)
class _Reservation:
    """A slot that was granted to a task.

    :param used: whether a new list was counted for it. It is kept all the same: the task may come back and say that the
        list is not its own
    """

    asked_at: float
    granted_at: float
    used: bool = False


class CapacityQueue:
    """A queue for the slots of one workspace. It outlives its waiters: reservations and the limit stay.

    All times are epoch seconds. The API does not tell the limit: it is learned from the error responses to
    submissions and from the number of batches seen to run. While it is unknown, one waiter tries, and for each that got
    in one more may try at once (1, 2, 4, …), until one is refused.

    :param hint: the limit that the connection gives (``max_concurrent_batches``), used while none is learned, and again
        when a learned one is old
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
        granted_limit: int | None = None,
    ) -> Waiter:
        """Join the queue. A task that was refused after its slot was granted gets its old place, by its ``asked_at``.

        :param limit: how many batches were counted right after it was refused; None if it was not refused just now, or
            if they could not be counted
        :param not_before: when the API may be asked again (Retry-After), 0 if it did not say
        :param granted_limit: for a task that comes back because others took its slot before it could submit: the limit
            by which the slot was granted, perhaps by another queue; else None
        """
        if limit == 0:
            # The lists that fill the workspace may not be listed yet. What was learned is forgotten: the hint holds;
            # without one, a single task tries.
            self._learned, self._tries = None, 1
        elif limit is not None:
            self._learn(limit, now)
        elif self._learned is None and granted_limit is not None:
            self._learn(granted_limit, now)
        self.pause(not_before, now)
        if limit is not None or granted_limit is not None or not_before > now:
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
        # With None as many might try at once as ever got in, and most would be refused.
        return limit + 1 if self.hint is None else self.hint

    def update(self, active: Set[str], now: float) -> list[Waiter]:
        """Note which lists are active; return who may submit now, in order.

        :param active: ids of the lists pending or processing. MachFive writes a list for minutes (``docs/api.md``), so
            each is seen active at least once, and no submission is missed
        """
        got_in = self._use_up(len(active - self._active))
        self._tries += got_in
        self._active, self.updated_at = active, now
        self._note_running(len(active), now)
        if self._learned and len(active) > self._learned[0]:
            # The time stays: if an old limit let one more try and it got in, the next may try one more at once.
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

    def _note_running(self, running: int, now: float) -> None:
        most, seen_at = self._most_run
        if running >= most or not 0 <= now - seen_at < REMEMBERED_FOR:
            self._most_run = (running, now)

    def _learn(self, running: int, now: float) -> None:
        # Batches may have ended between the error response and the count, and new lists may not be listed yet: so the
        # limit is taken to be the most that ran in the last ten minutes.
        self._note_running(running, now)
        self._learned = (self._most_run[0], now)

    def _reserved(self, now: float) -> int:
        # A clock that was set back must not make a reservation last for hours.
        self._reservations = [each for each in self._reservations if 0 <= now - each.granted_at < RESERVED_FOR]
        return sum(not each.used for each in self._reservations)

    def _use_up(self, appeared: int) -> int:
        # The API does not say who submitted a list. One of another client fills a slot too, so the sum is right.
        used_up = [each for each in self._reservations if not each.used][:appeared]
        for each in used_up:
            each.used = True
        return len(used_up)

    def _give_back(self, asked_at: float) -> None:
        mine = next((each for each in self._reservations if each.asked_at == asked_at), None)
        if mine is None:
            return
        self._reservations.remove(mine)
        if mine.used:
            # This task submitted nothing, so the list counted for it is another task's: it uses another reservation up.
            self._use_up(1)

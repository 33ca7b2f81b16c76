"""Who waits for a look at which list, and when it is due. Knows no network; all times are seconds on one clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from machfive_provider.api.models import LeadList
from machfive_provider.exceptions import MachFiveError

__all__ = ["NEVER", "Look", "Wish", "Wishes"]

NEVER = float("inf")

_EARLY = 0.25  # of an interval: lists due within it are looked at in the same round
_SOONEST = 0.25  # of an interval: no look at a list follows the last one sooner, whatever clocks say


class Look(NamedTuple):
    """What a waiter is told: the list, or why it could not be seen, and when the look was taken."""

    seen: LeadList | MachFiveError
    taken_at: float


@dataclass(slots=True, eq=False)
class Wish:
    """One waiter's wish for the next look at a list that is news to it.

    :param answer: given once
    :param interval: seconds between looks
    :param due: when the first is due
    :param deadline: when there is one whatever the interval
    :param known: a status that is no news, None if every look is
    :param quiet_until: from when on every look is news
    :param looked_at: when the list was last looked at for this waiter
    """

    answer: asyncio.Future[Look]
    interval: float
    due: float
    deadline: float
    known: str | None
    quiet_until: float
    looked_at: float

    def is_due(self, now: float) -> bool:
        """Whether it is time for a look, or soon enough to join the others'."""
        return self.due - _EARLY * min(self.interval, self.due - self.looked_at) <= now

    def put_off(self, taken_at: float, now: float) -> None:
        """Have the next look an interval after the last one, or at the deadline."""
        self.due = max(min(taken_at + self.interval, self.deadline), now + _SOONEST * self.interval)

    def tell(self, seen: LeadList | MachFiveError, taken_at: float) -> None:
        """Answer; the waiter wishes anew for another look."""
        self.due, self.looked_at = NEVER, taken_at
        if not self.answer.done():
            self.answer.set_result(Look(seen, taken_at))


class Wishes:
    """The wishes of all waiters, by list.

    ``next_due`` is when the next look is due and ``shortest`` the shortest interval of all, as far as is known: only
    :meth:`plan` finds out that they have become later and longer. ``sooner`` is set when either must be read anew.
    """

    def __init__(self) -> None:
        self._by_list: dict[str, list[Wish]] = {}
        self._statuses: dict[str, str] = {}
        self.next_due = self.shortest = NEVER
        self.sooner = asyncio.Event()

    def __contains__(self, list_id: str) -> bool:
        return list_id in self._by_list

    def lists(self) -> Iterable[str]:
        """Return the ids of all lists waited for, as a live view."""
        return self._by_list.keys()

    def status(self, list_id: str) -> str | None:
        """Return a list's status when it was last seen, None if it was not."""
        return self._statuses.get(list_id)

    def add(self, list_id: str, wish: Wish) -> None:
        """Take in a wish."""
        self._by_list.setdefault(list_id, []).append(wish)
        self.shortest = min(self.shortest, wish.interval)
        self._wake(wish.due)

    def remove(self, list_id: str, wish: Wish) -> None:
        """Forget a wish, answered or not."""
        self._by_list[list_id].remove(wish)
        if not self._by_list[list_id]:
            del self._by_list[list_id]

    def due(self, now: float) -> list[str]:
        """Return the lists that are due now or soon, first those that were not looked at for longest."""
        last_looks = {
            list_id: min(wish.looked_at for wish in wishes)
            for list_id, wishes in self._by_list.items()
            if any(wish.is_due(now) for wish in wishes)
        }
        return sorted(last_looks, key=last_looks.__getitem__)

    def plan(self) -> None:
        """Take stock after a round: when the next look is due, and of whom nothing need be remembered."""
        self._statuses = {each: status for each, status in self._statuses.items() if each in self._by_list}
        self.next_due = min((wish.due for wish in self._of(self._by_list)), default=NEVER)
        self.shortest = min((wish.interval for wish in self._of(self._by_list)), default=NEVER)

    def hold(self, list_ids: Iterable[str]) -> None:
        """Have no list due that is being asked for."""
        for wish in self._of(list_ids):
            wish.due = NEVER

    def put_off(self, list_id: str, taken_at: float, now: float) -> None:
        """Have a list due again that was not asked for after all."""
        for wish in self._by_list.get(list_id, ()):
            wish.put_off(taken_at, now)
            self._wake(wish.due)

    def saw(self, list_id: str, seen: LeadList, taken_at: float, now: float) -> None:
        """Tell those to whom a look is news, and have the next one for the others."""
        status = self._statuses[list_id] = seen.processing_status
        for wish in self._by_list.get(list_id, ()):
            if status == wish.known and now < wish.quiet_until:
                wish.looked_at = taken_at
                wish.put_off(taken_at, now)
                self._wake(wish.due)
            else:
                wish.tell(seen, taken_at)

    def tell(self, list_id: str, error: MachFiveError, taken_at: float) -> None:
        """Tell all who wait for a list why it could not be seen."""
        for wish in self._by_list.get(list_id, ()):
            wish.tell(error, taken_at)

    def break_off(self, list_ids: Iterable[str], error: Exception) -> None:
        """Raise in all who wait for the lists: better than to have them wait for what will not come."""
        for wish in self._of(list_ids):
            wish.due = NEVER
            if not wish.answer.done():
                wish.answer.set_exception(error)

    def _of(self, list_ids: Iterable[str]) -> Iterator[Wish]:
        for list_id in list_ids:
            yield from self._by_list.get(list_id, ())

    def _wake(self, due: float) -> None:
        if due < self.next_due:
            self.next_due = due
            self.sooner.set()

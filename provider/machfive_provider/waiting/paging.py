"""Whether to ask for lists one by one or for pages of what is running. Pure: figures in, a decision out.

The API tells the state of a hundred lists in one request (API.md), but of everybody's: in a workspace where others
run thousands, a page may hold none of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from machfive_provider.api.models import RUNNING, LeadList
from machfive_provider.api.protocol import PAGE_SIZE
from machfive_provider.exceptions import MachFiveError

__all__ = ["AT_ONCE", "Paging", "Reading", "Tally"]

AT_ONCE = 8  # requests under way at the same time

_FEWEST = 2  # requests; a page of each status
_REMEMBERED_FOR = 600.0  # seconds after which what pages cost, or that they cannot be trusted, is found out anew
_FAILURES = 2  # rounds in a row in which pages failed and single lists did not
_FRUITLESS = 50  # lists found running beyond those that had ended: more, and the pages do not show what is running
_HOPELESS = 8  # failures without any success: the API is in trouble, and the others need not find out by themselves


class Paging:
    """What earlier rounds have shown of the pages. All times are seconds on one clock."""

    def __init__(self) -> None:
        self._pages, self._counted_at = _FEWEST, float("-inf")
        self._failures = 0
        self._distrusted_until = float("-inf")

    def pays(self, due: int, now: float) -> bool:
        """Whether pages take fewer requests than so many lists asked for one by one."""
        pages = self._pages if now - self._counted_at < _REMEMBERED_FOR else _FEWEST
        return now >= self._distrusted_until and due > pages

    def paid(self, pages: int, now: float) -> None:
        """Learn that so many pages have shown more lists than that."""
        self._pages, self._counted_at, self._failures = max(pages, _FEWEST), now, 0

    def given_up(self, pages: int, now: float) -> None:
        """Learn that so many pages have not; doubled, so that finding out costs little as lists become more."""
        self._pages, self._counted_at = 2 * pages, now

    def failed(self, now: float) -> None:
        """Learn that a page could not be read in a round in which a single list could."""
        self._failures += 1
        if self._failures >= _FAILURES:
            self.distrust(now)

    def distrust(self, now: float) -> None:
        """Ask for lists one by one for a while: pages are refused, or do not show what is running."""
        self._distrusted_until, self._failures = now + _REMEMBERED_FOR, 0


@dataclass(slots=True)
class Tally:
    """What asking for lists one by one has brought in one round.

    :param confirming: whether complete pages have not shown these lists, so that most should have ended
    :param running: seen in a status that pages are read of
    :param strange: seen in a status that the contract does not know; no page is expected to show them
    """

    confirming: bool = False
    running: int = 0
    strange: int = 0
    ended: int = 0
    failures: int = 0
    trouble: MachFiveError | None = None

    @property
    def succeeded(self) -> bool:
        """Whether any list could be seen."""
        return self.running + self.strange + self.ended > 0

    @property
    def too_many(self) -> bool:
        """Whether to stop, because the pages cannot be right."""
        return self.confirming and self.running - self.ended >= _FRUITLESS

    @property
    def hopeless(self) -> MachFiveError | None:
        """The error that all others would meet as well, None if they may fare better."""
        return self.trouble if self.failures >= _HOPELESS and not self.succeeded else None

    def saw(self, lead_list: LeadList) -> None:
        """Count a list that could be seen."""
        if lead_list.is_completed or lead_list.is_failed:
            self.ended += 1
        elif lead_list.processing_status in RUNNING:
            self.running += 1
        else:
            self.strange += 1

    def failed(self, error: MachFiveError) -> None:
        """Count a list that could not be seen; what is final is that list's own and says nothing of others."""
        if error.retryable:
            self.failures += 1
            self.trouble = error


class Reading:
    """One reading of the pages, as a conversation: which are next, and when it is better to ask list by list.

    :param due: the lists that are looked for, each with its status when it was last seen, None if it was not
    """

    def __init__(self, due: Mapping[str, str | None]) -> None:
        self._due = due
        pending, processing = RUNNING
        # No list moves back to pending: where none of ours may be, others' pending ones are of no interest.
        may_be_pending = any(each in (None, pending) for each in due.values())
        self._statuses = [pending, processing] if may_be_pending else [processing]
        self._offset = self._in_vain = self.spent = 0
        self._ended = False
        self.unseen = set(due)

    def next(self) -> list[tuple[str, int]]:
        """Return status and offset of the pages to read now, at the same time; none if the reading is over."""
        if self._ended:
            self._statuses.pop(0)
            self._offset, self._ended = 0, False
        # As many pages for nothing as the lists would have cost: what is left of them may not come at all.
        if not self._statuses or self._in_vain >= len(self.unseen):
            return []
        status = self._statuses[0]
        here = sum(self._due[each] == status for each in self.unseen)
        count = min(AT_ONCE, max(1, -(-here // PAGE_SIZE)))
        pages = [(status, self._offset + number * PAGE_SIZE) for number in range(count)]
        self._offset, self.spent = self._offset + count * PAGE_SIZE, self.spent + count
        return pages

    def take(self, shown: Set[str], length: int) -> None:
        """Note what a page has shown, and how many lists were on it."""
        found = self.unseen & shown
        self._in_vain = 0 if found else self._in_vain + 1
        self.unseen -= found
        self._ended = self._ended or length < PAGE_SIZE

    @property
    def was_complete(self) -> bool:
        """Whether all pages were read, so that a list that was not shown must have ended or moved."""
        return not self._statuses

    @property
    def has_paid(self) -> bool:
        """Whether the pages have shown more lists than they were."""
        return len(self._due) - len(self.unseen) > self.spent

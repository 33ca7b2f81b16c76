"""Whether to ask for lists one by one or for pages of what is running. Pure: figures in, a decision out.

The API tells the state of a hundred lists in one request (API.md), but of everybody's: in a workspace where others
run thousands, a page may hold none of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from machfive_provider.api.models import RUNNING, LeadList
from machfive_provider.api.protocol import PAGE_SIZE
from machfive_provider.errors import MachFiveError

__all__ = ["Paging", "Tally", "pages_for", "statuses_to_page"]

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

    def ended(self, pages: int, now: float) -> None:
        """Learn that a reading found all it could in so many pages."""
        self._pages, self._counted_at, self._failures = max(pages, _FEWEST), now, 0

    def given_up(self, pages: int, now: float) -> None:
        """Learn that so many pages were not enough; doubled, so that finding out costs little as lists become more."""
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


def statuses_to_page(last_seen: Iterable[str | None]) -> tuple[str, ...]:
    """Return the statuses whose pages may show lists, in the order in which to read them.

    :param last_seen: the status of each list when it was last seen, None if it was not
    """
    pending, processing = RUNNING
    # No list moves back to pending: where none of ours may be, others' pending ones are of no interest.
    return RUNNING if any(each in (None, pending) for each in last_seen) else (processing,)


def pages_for(lists: int) -> int:
    """Return how many pages it takes at least to show so many lists, one if there are none."""
    return max(1, -(-lists // PAGE_SIZE))

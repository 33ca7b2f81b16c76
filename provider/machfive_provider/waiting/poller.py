"""One poller for all triggers of a connection in a triggerer: it polls all their lists together, in rounds.

A trigger asks for the next poll of a list and waits. The poller keeps polling until it has an answer for the trigger: a
poll that shows another status than the one it knows, an error, any poll once the trigger wants to log again that it
waits, or the poll at its deadline. A round takes the lists that are due:

1. One or two lists are asked for by id. For more, pages are read of the lists of each running status, a hundred lists a
   page (``docs/api.md``: ``GET /lists``): for n lists that are due, 2 + n/10 pages at most. So pages that show none of
   them add little to the n requests by id. What a page shows counts for all triggers, due or not.
2. Pages may not show a list that is due: it has ended, it moved between two pages, or the limit of pages was reached.
   It is asked for by id. So is a list that ended while the page was read: only the list itself has the counts of leads
   and emails.
3. After eight requests by id that failed and may be repeated (5xx, 429, no response), and none that succeeded, the API
   is taken to be down: the lists that are left in the round get the last error without a request.

Rounds may overlap: a response that is long in coming holds up no later round. Rounds keep nothing for later ones: what
was seen before, each trigger says itself. Only GETs are sent, so a trigger that runs twice, as after the loss of a
triggerer, does no harm.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from machfive_provider.api import protocol
from machfive_provider.api.models import RUNNING, LeadList
from machfive_provider.exceptions import ConfigurationError, MachFiveError, UnauthorizedError
from machfive_provider.waiting.per_loop import PerLoop
from machfive_provider.waiting.shared_client import AT_ONCE, NotWantedError, SharedClient, shared_client

__all__ = ["SharedPoller", "shared_poller"]

_SHORTEST_GAP = 1.0  # seconds between the beginnings of two rounds, at least
_GAPS_PER_INTERVAL = 10  # this many rounds within the shortest interval at most; with one of 20 s, a round every 2 s
_FEW = 2  # up to so many lists are asked for by id: pages, one of each running status, would be as many requests
_LISTS_PER_EXTRA_PAGE = 10  # beyond the first two pages, one more may be read for each so many lists that are due
_FAILURES_OF_AN_OUTAGE = 8  # in a round without a success
_NEVER = float("inf")


@dataclass(slots=True, eq=False)
class _Waiter:
    """A trigger that waits for the next poll of a list. Times are on the loop's clock.

    :param answer: what the poll has found; set once
    :param interval: seconds between polls
    :param due: when the next poll is due, the deadline at the latest; ``_NEVER`` while the list is being asked for, and
        after the answer
    :param deadline: when the last poll is due, whatever the interval
    :param known: the status last seen, None if none was
    :param quiet_until: until then, the deadline at the latest, a poll that shows ``known`` again is not an answer
    """

    answer: asyncio.Future[LeadList | MachFiveError]
    interval: float
    due: float
    deadline: float
    known: str | None
    quiet_until: float

    def answer_or_postpone(self, polled: LeadList | MachFiveError, now: float) -> bool:
        """Answer with what a poll has found, or, if it shows the known status too early, set when the next is due.

        :returns: whether there is to be a next poll
        """
        if isinstance(polled, LeadList) and polled.processing_status == self.known and now < self.quiet_until:
            self.due = min(now + self.interval, self.deadline)
            return True
        self.due = _NEVER
        if not self.answer.done():
            self.answer.set_result(polled)
        return False


class SharedPoller:
    """Polls lists for any number of triggers.

    :param client: sends the requests; at most eight at once, and none while the API asks for a pause
    """

    def __init__(self, client: SharedClient) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        # An empty context: what is logged in a round belongs to the triggerer, not to the task that came first.
        self._context = contextvars.Context()
        self._waiters: dict[str, list[_Waiter]] = {}
        self._round_tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next_round_at = self._gap = _NEVER
        self._last_round_at = -_NEVER

    async def next_poll(
        self,
        list_id: str,
        after: float,
        *,
        interval: float,
        deadline: float,
        known: str | None = None,
        quiet_until: float = 0.0,
    ) -> LeadList | MachFiveError:
        """Return the first poll of a list that shows another status than ``known``: the list, or why it was not read.

        :param after: seconds until the first poll; it comes sooner if it can join another trigger's
        :param interval: seconds between polls from then on
        :param deadline: epoch seconds at which the last poll is due, whatever the interval
        :param known: the status last seen, None if none was
        :param quiet_until: epoch seconds; until then a poll that shows ``known`` again is not returned; one at the
            deadline is
        :raises ConfigurationError: if the id is no UUID
        """
        list_id = protocol.check_uuid("list_id", list_id)
        now = self._loop.time()
        loop_minus_epoch = now - time.time()  # the triggers' times are of the epoch, a waiter's on the loop's clock
        last_at = deadline + loop_minus_epoch
        waiter = _Waiter(
            answer=self._loop.create_future(),
            interval=interval,
            due=min(now + after, max(now, last_at)),
            deadline=last_at,
            known=known,
            quiet_until=min(quiet_until + loop_minus_epoch, last_at),
        )
        self._waiters.setdefault(list_id, []).append(waiter)
        self._gap = min(self._gap, _gap_for(interval))
        self._plan(waiter)
        try:
            return await waiter.answer
        finally:
            self._waiters[list_id].remove(waiter)
            if not self._waiters[list_id]:
                del self._waiters[list_id]

    async def close(self) -> None:
        """Stop polling."""
        if self._timer:
            self._timer.cancel()
        for task in self._round_tasks:
            task.cancel()
        await asyncio.gather(*self._round_tasks, return_exceptions=True)

    # --- when there is a round

    def _plan(self, waiter: _Waiter) -> None:
        """Have a round when a poll is due. A sooner one is kept; if the poll is not part of it, it is planned anew."""
        # The gap to the last round does not delay a poll at the deadline, the last one.
        is_last = waiter.due >= waiter.deadline
        at = waiter.due if is_last else max(waiter.due, self._last_round_at + self._gap)
        if at < self._next_round_at:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._begin_round, context=self._context)
            self._next_round_at = at

    def _begin_round(self) -> None:
        # asyncio may call a timer slightly early.
        now = self._last_round_at = max(self._loop.time(), self._next_round_at)
        waiters = [waiter for each in self._waiters.values() for waiter in each]
        self._gap = _gap_for(min((waiter.interval for waiter in waiters), default=0.0))
        # A poll that falls due before the next round may begin is part of this one.
        soon = now + self._gap
        due = [list_id for list_id, each in self._waiters.items() if any(waiter.due <= soon for waiter in each)]
        for list_id in due:
            for waiter in self._waiters[list_id]:  # also those that are not due: they may get the answer
                waiter.due = _NEVER
        self._timer, self._next_round_at = None, _NEVER
        for waiter in waiters:
            if waiter.due != _NEVER:
                self._plan(waiter)
        if due:
            # A task of its own: one answer that is long in coming must hold up no later round.
            task = self._loop.create_task(self._run_round(due))
            self._round_tasks.add(task)
            task.add_done_callback(self._round_tasks.discard)

    # --- one round

    def _is_awaited(self, list_id: str) -> bool:
        return list_id in self._waiters

    async def _run_round(self, due: list[str]) -> None:
        try:
            left = due if len(due) <= _FEW else await self._read_pages(due)
            await self._poll_by_id(left)
        except MachFiveError as error:  # UnauthorizedError or ConfigurationError: true of all lists of the round
            for list_id in due:
                self._hand_out(list_id, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the triggers must hear of it, not hang
            for waiter in (waiter for list_id in due for waiter in self._waiters.get(list_id, ())):
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)

    def _hand_out(self, list_id: str, polled: LeadList | MachFiveError) -> None:
        now = self._loop.time()
        # Triggers that have come while the request was under way get it too.
        for waiter in self._waiters.get(list_id, ()):
            if waiter.answer_or_postpone(polled, now):
                self._plan(waiter)

    async def _read_pages(self, due: list[str]) -> list[str]:
        """Read pages until they have shown every list that is due, or no more may be read; return those not shown."""
        unseen, pages_left = set(due), len(due) // _LISTS_PER_EXTRA_PAGE + 2
        known = Counter(waiter.known for list_id in due for waiter in self._waiters.get(list_id, ()) if waiter.known)
        # First the status that most triggers know. It may be one that docs/api.md does not name.
        for status in sorted({*RUNNING, *known}, key=lambda each: (-known[each], each)):
            offset, more = 0, True
            while more and unseen and pages_left:
                # At once as many pages as the unseen lists would fill if all had this status.
                count = min(AT_ONCE, pages_left, math.ceil(len(unseen) / protocol.PAGE_SIZE))
                offsets = range(offset, offset + count * protocol.PAGE_SIZE, protocol.PAGE_SIZE)
                pages = await asyncio.gather(*(self._read_page(status, each) for each in offsets))
                unseen.difference_update(*(shown for shown, _ in pages))
                # A short page is the last one of its status. Pages that failed tell nothing, unless all of them did.
                lengths = [length for _, length in pages if length is not None]
                more = bool(lengths) and min(lengths) >= protocol.PAGE_SIZE
                offset, pages_left = offset + count * protocol.PAGE_SIZE, pages_left - count
        return list(unseen)

    async def _read_page(self, status: str, offset: int) -> tuple[set[str], int | None]:
        """Read a page and hand out what it shows.

        :returns: the ids that it shows of lists that are awaited and have not ended, and how many lists it has; None
            for the number if it could not be read
        """
        try:
            page = await self._client.send(protocol.list_statuses(status, offset))
        except (UnauthorizedError, ConfigurationError):
            raise
        except MachFiveError:  # what it would have shown is asked for by id
            return set(), None
        shown = set()
        for shown_id, shown_status in filter(None, page):  # None: an entry without a usable id
            list_id, lead_list = shown_id.lower(), LeadList(shown_id, shown_status)
            if list_id in self._waiters and not (lead_list.is_completed or lead_list.is_failed):
                self._hand_out(list_id, lead_list)
                shown.add(list_id)
        return shown, len(page)

    async def _poll_by_id(self, list_ids: Iterable[str]) -> None:
        """Ask for lists by id, eight at a time."""
        left = list(list_ids)
        random.shuffle(left)  # else eight lists that always fail could be taken for an outage in every round
        tally = _Tally()
        senders = [self._ask_one_after_another(left, tally) for _ in range(min(AT_ONCE, len(left)))]
        for outcome in await asyncio.gather(*senders, return_exceptions=True):
            if outcome:
                raise outcome

    async def _ask_one_after_another(self, left: list[str], tally: _Tally) -> None:
        """Take lists from those that are left and ask for each; in an outage hand out the last error instead."""
        while left:
            list_id = left.pop()
            if outage := tally.outage:
                self._hand_out(list_id, outage)
                continue
            try:
                lead_list = await self._client.send(
                    protocol.get_list(list_id), wanted=partial(self._is_awaited, list_id)
                )
            except NotWantedError:  # its triggers have gone while it waited for its turn
                continue
            except (UnauthorizedError, ConfigurationError):
                left.clear()  # the other senders stop too
                raise
            except MachFiveError as error:
                if error.retryable:  # a final error, such as a 404, is about this list alone
                    tally.failures, tally.last = tally.failures + 1, error
                self._hand_out(list_id, error)
            else:
                tally.succeeded = True
                self._hand_out(list_id, lead_list)


@dataclass(slots=True)
class _Tally:
    """What asking for lists by id has brought in one round."""

    failures: int = 0
    succeeded: bool = False
    last: MachFiveError | None = None

    @property
    def outage(self) -> MachFiveError | None:
        """The last error, if the API is taken to be down."""
        return self.last if self.failures >= _FAILURES_OF_AN_OUTAGE and not self.succeeded else None


def _gap_for(interval: float) -> float:
    """Return the seconds between the beginnings of two rounds, at least, for the shortest interval of all waiters."""
    return max(_SHORTEST_GAP, interval / _GAPS_PER_INTERVAL)


_pollers: PerLoop[SharedPoller] = PerLoop()


@asynccontextmanager
async def shared_poller(conn_id: str) -> AsyncIterator[SharedPoller]:
    """Join the poller of a connection on this event loop; the last one to leave ends it."""
    async with (
        shared_client(conn_id) as client,
        _pollers.use(conn_id, lambda: SharedPoller(client)) as poller,
    ):
        yield poller

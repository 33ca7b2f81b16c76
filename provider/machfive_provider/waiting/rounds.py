"""One round of looks after the other: pages of what is running while they pay, else list by list.

A list that the pages do not show has ended, or moved while they were read. It is asked for by itself, so nothing
depends on the pages being right.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

from machfive_provider.api import protocol
from machfive_provider.api.models import RUNNING, LeadList
from machfive_provider.exceptions import ConfigurationError, MachFiveError, UnauthorizedError
from machfive_provider.waiting.paging import AT_ONCE, Paging, Reading, Tally
from machfive_provider.waiting.shared_client import NotWantedError, SharedClient
from machfive_provider.waiting.wishes import Wishes

__all__ = ["Rounds"]

_LONGEST_BACKOFF = 60.0  # seconds between rounds that fail
_PROBES = 3  # lists asked for by themselves when a page cannot be read
_SLICE = 200  # waiters told at a time before others on the loop have their turn


class Rounds:
    """Takes rounds of looks for those who wait.

    :param reader: carries the reads
    :param wishes: who waits for what; told what the round brings
    """

    def __init__(self, reader: SharedClient, wishes: Wishes) -> None:
        self._reader, self._wishes = reader, wishes
        self._paging = Paging()
        self._failed_rounds = 0
        self._beside: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.backing_off_until = float("-inf")

    async def take(self, due: list[str], began: float) -> None:
        """Look at the lists that are due; what is asked for list by list may still be under way on return.

        :param due: in the order in which they are to be looked at where not all can be
        :param began: when, on the loop's clock
        """
        # No page is read of a status that the contract does not know.
        pageable = {each: status for each in due if (status := self._wishes.status(each)) in (None, *RUNNING)}
        reading, tally = Reading(pageable), Tally()
        if self._paging.pays(len(pageable), began):
            try:
                await self._read(reading, began)
            except (UnauthorizedError, ConfigurationError) as error:
                return await self._tell_all(due, error, began)
            except MachFiveError as error:
                if error.retryable:
                    return await self._pages_failed([each for each in due if each in reading.unseen], error, began)
                self._paging.distrust(began)
            tally.confirming = reading.was_complete
        left = [each for each in due if each in reading.unseen or each not in pageable]
        self._start(left, self._one_by_one(left, tally, began))
        return None

    async def close(self) -> None:
        """End what is under way."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)

    async def _read(self, reading: Reading, began: float) -> None:
        while wave := reading.next():
            calls = (self._reader.send(protocol.list_statuses(status, offset)) for status, offset in wave)
            pages = await asyncio.gather(*calls, return_exceptions=True)
            for page in pages:
                if not isinstance(page, BaseException):
                    reading.take(self._take_in(page, began), len(page))
            # Only now: each answer counts, whatever becomes of the others.
            for page in pages:
                if isinstance(page, BaseException):
                    raise page
        self._failed_rounds = 0
        if reading.has_paid:
            self._paging.paid(reading.spent, began)
        else:
            self._paging.given_up(reading.spent, began)

    def _take_in(self, page: list[tuple[str, str]], began: float) -> set[str]:
        shown, now = set[str](), self._loop.time()
        for list_id, status in page:
            key, seen = list_id.lower(), LeadList(list_id, status)
            # That a list has ended is told by the list itself: a page lacks its figures.
            if key in self._wishes and not (seen.is_completed or seen.is_failed):
                self._wishes.saw(key, seen, began, now)
                shown.add(key)
        return shown

    # --- list by list

    def _start(self, list_ids: list[str], work: Coroutine[Any, Any, None]) -> None:
        """Ask for lists beside the rounds: one answer that is long in coming must hold up no other list."""
        self._wishes.hold(list_ids)
        task = self._loop.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _one_by_one(self, list_ids: list[str], tally: Tally, began: float) -> None:
        left = iter(list_ids)
        await asyncio.gather(*(self._ask_each(left, tally, began) for _ in list_ids[:AT_ONCE]))
        if tally.succeeded:
            self._failed_rounds = 0
        if tally.too_many:
            self._paging.distrust(began)
        if tally.hopeless:
            self._back_off(began)

    async def _ask_each(self, left: Iterator[str], tally: Tally, began: float) -> None:
        for list_id in left:
            if error := tally.hopeless:
                await self._tell_all([list_id, *left], error, began)
            elif tally.too_many:
                self._wishes.put_off(list_id, began, self._loop.time())
            else:
                await self._ask(list_id, tally, began)

    async def _ask(self, list_id: str, tally: Tally, began: float) -> None:
        try:
            seen = await self._reader.send(protocol.get_list(list_id), wanted=lambda: list_id in self._wishes)
        except NotWantedError:
            return
        except MachFiveError as error:
            tally.failed(error)
            self._wishes.tell(list_id, error, began)
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiters must hear of it, not hang
            self._wishes.break_off([list_id], error)
        else:
            tally.saw(seen)
            self._wishes.saw(list_id, seen, began, self._loop.time())

    # --- when pages fail

    async def _pages_failed(self, due: list[str], error: MachFiveError, began: float) -> None:
        """Tell the waiters, but for a few: their lists show whether it is only the pages that fail."""
        self._back_off(began)
        probes = due[:_PROBES]
        self._start(probes, self._probe(probes, began))
        await self._tell_all(due[_PROBES:], error, began)

    async def _probe(self, list_ids: list[str], began: float) -> None:
        tally = Tally()
        await self._one_by_one(list_ids, tally, began)
        if tally.succeeded:
            self._paging.failed(began)

    def _back_off(self, began: float) -> None:
        """Put the next round off, for all as one, and further with each that fails."""
        self._failed_rounds += 1
        pause = self._wishes.shortest * 2 ** min(self._failed_rounds - 1, 16)
        spread = random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
        self.backing_off_until = began + min(_LONGEST_BACKOFF, pause) * spread

    async def _tell_all(self, list_ids: Iterable[str], error: MachFiveError, began: float) -> None:
        for number, list_id in enumerate(list_ids, 1):
            self._wishes.tell(list_id, error, began)
            if not number % _SLICE:
                await asyncio.sleep(0)

"""Which lists have ended, for all event triggers that watch a connection.

A poll reads the lists in work (pages of ``status=pending`` and ``processing``) and the newest lists of any status, back
to those of the last poll. A list has ended if it was in work at the last poll and is not any more, or if it is new and
not in work. It is then asked for by id: pages show neither its figures nor ``failed_at`` (``docs/api.md``). So a poll
takes three requests, one more for each further hundred lists that are new or in work, and one for each ended list.

What one trigger has read serves all that poll at the same time. Each has a cursor of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pendulum

from machfive_provider.api import protocol
from machfive_provider.api.models import RUNNING, LeadList
from machfive_provider.exceptions import ConfigurationError, MachFiveError, UnauthorizedError
from machfive_provider.waiting.per_loop import PerLoop
from machfive_provider.waiting.shared_client import SharedClient, shared_client

__all__ = ["Cursor", "ListReads", "Polled", "Wanted", "list_reads"]

# A list may show up after lists that were created later: one of `generate` when its request ends, within 11 minutes.
_OVERLAP = timedelta(minutes=15)
_BEGINNING = pendulum.datetime(1970, 1, 1)
_CAMPAIGNS_HOLD = 3600.0  # seconds until the campaigns' names are read again: they can be renamed
_NEVER = float("-inf")

Wanted = Callable[[LeadList, str | None], bool]
"""Whether a watcher wants to hear of a list; its campaign's name is the second argument, None if it has none."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a watcher has to remember from one poll to the next.

    :param since: lists created before it are new to no later poll
    :param running: ids of the lists that had not ended
    :param told: ids of the lists created since then that have ended and are not to be reported again
    """

    since: pendulum.DateTime
    running: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads."""
        return {"since": self.since.to_iso8601_string(), "running": sorted(self.running), "told": sorted(self.told)}

    @classmethod
    def from_json(cls, data: Any) -> Cursor:
        """Read a cursor; raises ``ValueError`` if it is none."""
        try:
            since = pendulum.parse(str(data["since"]))
            if not isinstance(since, pendulum.DateTime):
                raise TypeError("since is no time")
            running, told = frozenset(data["running"]), frozenset(data["told"])
            if not all(isinstance(each, str) for each in running | told):
                raise TypeError("an id is no text")
            return cls(since, running, told)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a cursor: {error}") from error


@dataclass(frozen=True, slots=True)
class Polled:
    """What a poll has found.

    :param ended: the lists that have ended, in the order of their ends
    :param cursor: for the next poll
    :param campaigns: names of campaigns by id
    :param trouble: why some lists could not be asked for; the next poll asks for them again
    """

    ended: list[LeadList]
    cursor: Cursor
    campaigns: Mapping[str, str | None]
    trouble: MachFiveError | None = None


@dataclass(slots=True)
class _Snapshot:
    """What has been read of the workspace at one time.

    :param in_work: the lists on the pages of those in work, by id; None before they are read
    :param newest: the newest lists, as far back as somebody needed them
    :param by_id: what asking for lists by id has brought
    :param error: why no more of it can be read
    """

    begun_at: float
    in_work: dict[str, LeadList] | None = None
    newest: list[LeadList] = field(default_factory=list)
    pages: protocol.ListPages = field(default_factory=protocol.ListPages)
    by_id: dict[str, LeadList | MachFiveError] = field(default_factory=dict)
    error: MachFiveError | None = None


class ListReads:
    """Reads for any number of watchers.

    :param client: sends the requests; at most eight at once, and none while the API asks for a pause
    """

    def __init__(self, client: SharedClient) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._snapshot = _Snapshot(_NEVER)
        self._campaigns: dict[str, str | None] = {}
        self._campaigns_read_at = _NEVER

    async def poll(
        self, cursor: Cursor | None, wanted: Wanted, *, max_age: float, look_back_to: pendulum.DateTime | None
    ) -> Polled:
        """Return the lists that have ended since the last poll of a watcher.

        :param cursor: from the last poll; None for the first, which reports no list that has ended before
        :param wanted: which lists the watcher wants to hear of
        :param max_age: seconds; what was read at most so long before this call serves it
        :param look_back_to: the first poll reports ended lists too that were created since then; None for none
        :raises MachFiveError: if the workspace cannot be read
        """
        asked_at = self._loop.time()
        async with self._lock:
            if self._snapshot.begun_at < asked_at - max_age:
                self._snapshot = _Snapshot(self._loop.time())
            if self._snapshot.error:
                raise self._snapshot.error.with_traceback(None)
            try:
                return await self._poll(self._snapshot, cursor, wanted, look_back_to)
            except MachFiveError as error:
                self._snapshot.error = error
                raise

    async def close(self) -> None:
        """Do nothing, as ``PerLoop`` asks at the end: :func:`list_reads` closes the client."""

    async def _poll(
        self, seen: _Snapshot, cursor: Cursor | None, wanted: Wanted, look_back_to: pendulum.DateTime | None
    ) -> Polled:
        if seen.in_work is None:
            seen.in_work = await self._lists_in_work()
        if cursor is None:
            cursor = await self._begin(seen, look_back_to)
        await self._read_back_to(seen, cursor.since)
        await self._name_campaigns([*seen.in_work.values(), *seen.newest])
        in_window = {each.id: each for each in seen.newest if each.created_at and each.created_at >= cursor.since}

        def is_wanted(each: LeadList) -> bool:
            return wanted(each, self._campaigns.get(each.campaign_id or ""))

        # The newest lists were read last: where they show an end, it came after the pages of those in work.
        shown = {each.id: each for each in {**seen.in_work, **in_window}.values() if is_wanted(each)}
        # An unknown status does not say whether the list has ended: it is asked for by id.
        running = {each.id for each in shown.values() if each.processing_status in RUNNING}
        ended = (cursor.running | shown.keys()) - running - cursor.told
        found = await self._ask_for(seen, ended)
        reported = [each for each in found.values() if isinstance(each, LeadList) and _has_ended(each)]
        again = {
            list_id
            for list_id, each in found.items()
            if (each.retryable if isinstance(each, MachFiveError) else not _has_ended(each))
        }
        created = [each.created_at for each in seen.newest if each.created_at]
        return Polled(
            ended=sorted(filter(is_wanted, reported), key=_ended_at),
            cursor=replace(
                cursor,
                since=max([cursor.since, *(each - _OVERLAP for each in created)]),
                running=frozenset(running | again),
                told=(cursor.told | (ended - again)) & in_window.keys(),
            ),
            campaigns=dict(self._campaigns),
            trouble=next((each for each in found.values() if isinstance(each, MachFiveError)), None),
        )

    async def _begin(self, seen: _Snapshot, look_back_to: pendulum.DateTime | None) -> Cursor:
        """Return the cursor of a watcher that has none: what has ended by now counts as told."""
        if not seen.newest:
            await self._read_page(seen)
        # By MachFive's clock alone: ours may be wrong.
        newest = max((each.created_at for each in seen.newest if each.created_at), default=_BEGINNING + _OVERLAP)
        since = min(newest - _OVERLAP, look_back_to or newest)
        await self._read_back_to(seen, since)
        told = [
            each.id
            for each in seen.newest
            if _has_ended(each) and not (look_back_to and each.created_at and each.created_at >= look_back_to)
        ]
        return Cursor(since, told=frozenset(told))

    async def _lists_in_work(self) -> dict[str, LeadList]:
        """Return the lists in work. They move from the first status to the second, so none slips through between."""
        found = {}
        for status in RUNNING:
            pages = protocol.ListPages(status=status)
            while not pages.done:
                found.update({each.id: each for each in pages.take(await self._client.send(pages.call()))})
        return found

    async def _read_back_to(self, seen: _Snapshot, moment: pendulum.DateTime) -> None:
        """Read pages of the newest lists until one shows a list created before a moment."""
        oldest = min((each.created_at for each in seen.newest if each.created_at), default=None)
        while not seen.pages.done and (oldest is None or oldest >= moment):
            page = await self._read_page(seen)
            oldest = min((each.created_at for each in page if each.created_at), default=_BEGINNING)

    async def _read_page(self, seen: _Snapshot) -> list[LeadList]:
        page = seen.pages.take(await self._client.send(seen.pages.call())) if not seen.pages.done else []
        seen.newest += page
        return page

    async def _name_campaigns(self, lists: Iterable[LeadList]) -> None:
        ids = {each.campaign_id for each in lists if each.campaign_id}
        now = self._loop.time()
        if ids <= self._campaigns.keys() and now - self._campaigns_read_at < _CAMPAIGNS_HOLD:
            return
        read = await self._client.send(protocol.list_campaigns())
        # Deleted ones are noted without a name, so that they are not asked for again at each poll.
        self._campaigns = {**dict.fromkeys(ids), **{each.id: each.name for each in read}}
        self._campaigns_read_at = now

    async def _ask_for(self, seen: _Snapshot, list_ids: Iterable[str]) -> dict[str, LeadList | MachFiveError]:
        """Return lists by id, or why one cannot be read; raises what is true of all."""
        wanted = sorted(list_ids)
        asked = [self._ask_once(seen, each) for each in wanted if each not in seen.by_id]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if outcome:
                raise outcome
        return {each: seen.by_id[each] for each in wanted}

    async def _ask_once(self, seen: _Snapshot, list_id: str) -> None:
        try:
            call = protocol.get_list(list_id)
        except ConfigurationError as error:  # a page showed an id that is none
            seen.by_id[list_id] = error
            return
        try:
            lead_list = await self._client.send(call)
            seen.by_id[list_id] = lead_list
        except (UnauthorizedError, ConfigurationError):
            raise
        except MachFiveError as error:
            seen.by_id[list_id] = error


def _has_ended(lead_list: LeadList) -> bool:
    return lead_list.is_completed or lead_list.is_failed


def _ended_at(lead_list: LeadList) -> pendulum.DateTime:
    return lead_list.completed_at or lead_list.failed_at or lead_list.updated_at or _BEGINNING


_reads: PerLoop[ListReads] = PerLoop()


@asynccontextmanager
async def list_reads(conn_id: str) -> AsyncIterator[ListReads]:
    """Join the reads of a connection on this event loop."""
    async with shared_client(conn_id) as client, _reads.use(conn_id, lambda: ListReads(client)) as reads:
        yield reads

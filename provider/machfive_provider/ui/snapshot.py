"""The lists of a connection as one API-server process knows them, read once for all viewers.

The first read takes the newest thousand lists. From then on a refresh reads pages up to a list that is known, which is
one page unless nobody has looked for long, and asks for at most three older lists that were still running. It comes at
most every five seconds, however many people look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from machfive_provider.api import protocol
from machfive_provider.api.models import LeadList
from machfive_provider.api.retries import QUICK
from machfive_provider.exceptions import ConfigurationError, MachFiveError, UnauthorizedError
from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["Snapshot", "Snapshots"]

_KEPT_FOR = 5.0  # seconds
_CAMPAIGNS_KEPT_FOR = 300.0  # seconds
_OLD_LISTS_A_REFRESH = 3  # asked for by id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a connection.

    :param lists: by id
    :param campaigns: names by id
    :param has_older: whether MachFive has lists that were not read
    :param read_at: epoch seconds of the last read that succeeded, 0 if none has
    :param error: why the last read failed, None if it did not
    """

    lists: Mapping[str, LeadList] = field(default_factory=dict)
    campaigns: Mapping[str, str] = field(default_factory=dict)
    has_older: bool = False
    read_at: float = 0.0
    error: MachFiveError | None = None


class Snapshots:
    """Keeps a snapshot for each connection.

    :param open_hook: makes the hook of a connection
    """

    def __init__(
        self,
        open_hook: Callable[[str], MachFiveHook] = lambda conn_id: MachFiveHook(conn_id, QUICK),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._open_hook, self._now = open_hook, now
        self._lock = threading.Lock()
        self._connections: dict[str, _Connection] = {}

    def read(self, conn_id: str, pages: int = 10) -> Snapshot:
        """Return the snapshot of a connection, refreshed if it is older than five seconds.

        :param pages: how many pages of a hundred lists are wanted at least
        """
        with self._lock:
            connection = self._connections.setdefault(conn_id, _Connection())
        # Others wait for the first read; later they see the last snapshot while one of them refreshes it.
        if connection.reading.acquire(blocking=connection.snapshot is None):
            try:
                if self._now() >= connection.next_read_at or self._wants_older(connection, pages):
                    connection.refresh(lambda: self._open_hook(conn_id), pages, self._now())
            finally:
                connection.reading.release()
        return connection.snapshot or Snapshot()

    def forget(self, conn_id: str) -> None:
        """Read everything again next time, as the refresh button asks."""
        with self._lock:
            if connection := self._connections.get(conn_id):
                connection.next_read_at = min(connection.next_read_at, connection.began_at + 1.0)

    @staticmethod
    def _wants_older(connection: _Connection, pages: int) -> bool:
        known = connection.snapshot
        wanted = pages * protocol.PAGE_SIZE
        return known is not None and known.error is None and known.has_older and len(known.lists) < wanted


class _Connection:
    """The snapshot of one connection and how it is refreshed; ``reading`` is held meanwhile."""

    def __init__(self) -> None:
        self.reading = threading.Lock()
        self.snapshot: Snapshot | None = None
        self.began_at = self.next_read_at = 0.0
        self._campaigns_read_at = 0.0

    def refresh(self, open_hook: Callable[[], MachFiveHook], pages: int, now: float) -> None:
        known = self.snapshot or Snapshot()
        self.began_at, self.next_read_at = now, now + _KEPT_FOR
        try:
            with open_hook() as hook:
                self.snapshot = self._read(hook, known, pages, now)
        except MachFiveError as error:
            self.snapshot = replace(known, error=error)
            self.next_read_at = now + max(_KEPT_FOR, error.retry_after or 0.0)

    def _read(self, hook: MachFiveHook, known: Snapshot, pages: int, now: float) -> Snapshot:
        campaigns = known.campaigns
        if now >= self._campaigns_read_at + _CAMPAIGNS_KEPT_FOR:
            campaigns = {each.id: each.name for each in hook.list_campaigns()}
            self._campaigns_read_at = now
        newest, reached_end = _newest(hook, known.lists, pages)
        lists = dict(known.lists)
        has_older = known.has_older if lists else not reached_end
        lists |= {list_id: _with_counts(each, lists.get(list_id)) for list_id, each in newest.items()}
        while has_older and len(lists) < pages * protocol.PAGE_SIZE:
            older, reached_end = _page(hook, len(lists))
            lists |= {each.id: each for each in older}
            has_older = bool(older) and not reached_end
        for each in _running_before(lists, newest)[:_OLD_LISTS_A_REFRESH]:
            lists.pop(each.id)  # to the end: another is the next to be asked for
            lists[each.id] = _read_one(hook, each)
        return Snapshot(lists, campaigns, has_older, now)


def _newest(hook: MachFiveHook, known: Mapping[str, LeadList], pages: int) -> tuple[dict[str, LeadList], bool]:
    """Read the newest lists up to one that is known; return them, and whether they reach the oldest of all."""
    newest: dict[str, LeadList] = {}
    for number in range(pages):
        page, is_last = _page(hook, number * protocol.PAGE_SIZE)
        newest |= {each.id: each for each in page}
        if is_last or any(each.id in known for each in page):
            return newest, is_last
    return newest, False


def _page(hook: MachFiveHook, offset: int) -> tuple[list[LeadList], bool]:
    """Read a page of lists; return it, and whether it is the last."""
    page = hook.get_conn().send(protocol.list_lists(offset=offset))
    return [each for each in page if each is not None], len(page) < protocol.PAGE_SIZE


def _running_before(lists: Mapping[str, LeadList], newest: Mapping[str, LeadList]) -> list[LeadList]:
    return [each for each in lists.values() if each.id not in newest and not (each.is_completed or each.is_failed)]


def _read_one(hook: MachFiveHook, known: LeadList) -> LeadList:
    try:
        return hook.get_list(known.id)
    except (UnauthorizedError, ConfigurationError):
        raise
    except MachFiveError:  # asked for again at a later refresh
        return known


def _with_counts(each: LeadList, known: LeadList | None) -> LeadList:
    """Return a list as a page shows it, with the counts that were read before: pages show none."""
    if known is None or each.leads_count is not None:
        return each
    return replace(each, leads_count=known.leads_count, emails_created=known.emails_created)

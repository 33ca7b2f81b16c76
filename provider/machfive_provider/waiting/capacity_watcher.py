"""Waiting for room in the triggerer: one looker per connection, for all tasks that wait for its workspace."""

from __future__ import annotations

import asyncio
import contextvars
import time
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from machfive_provider import exceptions
from machfive_provider.api import protocol
from machfive_provider.api.models import RUNNING
from machfive_provider.waiting.capacity import CapacityQueue, ProgressLog, QueuePosition, Waiter, no_capacity
from machfive_provider.waiting.decision import jittered
from machfive_provider.waiting.per_loop import PerLoop
from machfive_provider.waiting.shared_client import SharedClient, shared_client

__all__ = ["wait_for_capacity"]

_FIRST_LOOK = 60.0  # seconds granted to a first look, even past the deadline


@dataclass(slots=True, eq=False)
class _Waiting:
    """What the looker tells a waiter.

    :param interval: seconds between looks that suit it
    :param news: set when there is something to see in the other fields
    :param fatal: why no look will ever succeed
    """

    interval: float
    news: asyncio.Event = field(default_factory=asyncio.Event)
    seen: QueuePosition | exceptions.MachFiveError | None = None
    woken: bool = False
    fatal: Exception | None = None


class _Keeper:
    """Looks at one workspace while somebody waits for room in it.

    :param room: the queue; it outlives the keeper
    :param reader: carries the reads; it must not be closed before the keeper
    """

    def __init__(self, room: CapacityQueue, reader: SharedClient) -> None:
        self._room, self._reader = room, reader
        self._waiting: dict[Waiter, _Waiting] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._looked = float("-inf")
        if room.looked_at is not None:
            # Tasks that are refused one after the other must not cause a look each.
            self._looked = self._loop.time() - max(0.0, time.time() - room.looked_at)
        # An empty context: what is logged underneath belongs to the triggerer, not to the task that came first.
        self._runner = self._loop.create_task(self._run(), context=contextvars.Context())

    async def wait(self, waiter: Waiter, interval: float, deadline: float, log: Any) -> None:
        """Return when the waiter may submit; logs where it stands, from its own task. Raises as `wait_for_capacity`."""
        waiting = self._waiting[waiter] = _Waiting(interval)
        self._changed.set()
        journal = ProgressLog(waiter.asked_at, deadline)
        try:
            while not waiting.woken:
                if waiting.fatal is not None:
                    raise waiting.fatal
                if waiting.seen is not None and (line := journal.line(waiting.seen, time.time())):
                    log.info("%s", line)
                left = deadline - time.time() + (_FIRST_LOOK if waiting.seen is None else 0.0)
                if left <= 0:
                    trouble = waiting.seen if isinstance(waiting.seen, exceptions.MachFiveError) else None
                    raise no_capacity(time.time() - waiter.asked_at, trouble)
                await _set_within(waiting.news, left)
        finally:
            del self._waiting[waiter]

    async def close(self) -> None:
        """Stop looking."""
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._until_due()
            try:
                woken = await self._look()
            except exceptions.MachFiveTransientError as error:
                for waiting in self._waiting.values():
                    waiting.seen = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiters must hear of it, not hang
                for waiting in self._waiting.values():
                    waiting.fatal = error
            else:
                self._tell(woken)
            self._looked = self._loop.time()
            for waiting in self._waiting.values():
                waiting.news.set()

    async def _until_due(self) -> None:
        spread = jittered(1.0)
        while True:
            interval = min((each.interval for each in self._waiting.values()), default=0.0)
            # While nobody may be woken, a look could tell nothing that matters.
            paused_until = self._loop.time() + self._room.paused_for(time.time())
            left = max(self._looked + interval * spread, paused_until) - self._loop.time()
            if left <= 0:
                return
            await _set_within(self._changed, left)

    async def _look(self) -> list[Waiter]:
        self._room.hint = (await self._reader.settings()).max_concurrent_batches
        active = {list_id for status in RUNNING for list_id in await self._ids(status)}
        newest: set[str] = set()
        if self._room.wants_newest(active, time.time()):
            for each in await self._reader.send(protocol.list_lists()):
                newest.add(each.id)
                if each.processing_status in RUNNING:
                    active.add(each.id)  # it came between the reads
        return self._room.look(active, newest, time.time())

    async def _ids(self, status: str) -> set[str]:
        pages, ids = protocol.ListPages(status=status), set[str]()
        while not pages.done:
            ids.update(each.id for each in pages.take(await self._reader.send(pages.call())))
        return ids

    def _tell(self, woken: list[Waiter]) -> None:
        for waiter, standing in self._room.standings(time.time()):
            if waiter in self._waiting:
                self._waiting[waiter].seen = standing
        for waiter in woken:
            if waiter in self._waiting:
                self._waiting[waiter].woken = True


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, clearing it, or when so many seconds are over."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    event.clear()


# By running loop, as the readers are. A room stays when its last waiter has gone, for what is reserved and learned;
# it refers to nothing that would keep the loop alive.
_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, CapacityQueue]] = WeakKeyDictionary()
_keepers: PerLoop[_Keeper] = PerLoop()


async def wait_for_capacity(
    conn_id: str,
    *,
    asked_at: float,
    deadline: float,
    interval: float,
    limit: int | None,
    not_before: float,
    log: Any,
) -> None:
    """Return when the task may submit: in order with all that wait in this triggerer.

    :param asked_at: epoch seconds at which the task first asked
    :param deadline: epoch seconds at which it gives up, after one look at least
    :param interval: seconds between looks
    :param limit, not_before: as for :meth:`CapacityQueue.join`
    :raises CapacityTimeoutError: at the deadline
    :raises MachFivePermanentError: if the workspace may not be looked at
    """
    room = _rooms.setdefault(asyncio.get_running_loop(), {}).setdefault(conn_id, CapacityQueue())
    waiter = room.join(asked_at, time.time(), limit, not_before)
    try:
        async with (
            shared_client(conn_id) as reader,
            _keepers.use(conn_id, lambda: _Keeper(room, reader)) as keeper,
        ):
            await keeper.wait(waiter, interval, deadline, log)
    except BaseException:
        room.leave(waiter)
        raise

"""Waiting for capacity in the triggerer: one watcher per connection, for all tasks that wait for its workspace."""

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
from machfive_provider.waiting.capacity import ProgressLog, no_capacity
from machfive_provider.waiting.capacity_queue import CapacityQueue, QueuePosition, Waiter
from machfive_provider.waiting.decision import jittered
from machfive_provider.waiting.per_loop import PerLoop
from machfive_provider.waiting.shared_client import SharedClient, shared_client

__all__ = ["wait_for_capacity"]

_FIRST_READ = 60.0  # seconds that a first read of the workspace may take, even past the deadline


@dataclass(slots=True, eq=False)
class _Waiting:
    """What the watcher tells a waiter.

    :param interval: seconds between reads of the workspace that this waiter asks for
    :param news: set when another field has changed
    :param seen: its position, or why the workspace could not be read
    :param granted: whether it may submit
    :param fatal: why no read will ever succeed
    """

    interval: float
    news: asyncio.Event = field(default_factory=asyncio.Event)
    seen: QueuePosition | exceptions.MachFiveError | None = None
    granted: bool = False
    fatal: Exception | None = None


class _CapacityWatcher:
    """Reads which lists of one workspace are active, as long as somebody waits for a slot in it.

    :param queue: it outlives the watcher
    :param client: sends the reads; it must not be closed before the watcher
    """

    def __init__(self, queue: CapacityQueue, client: SharedClient) -> None:
        self._queue, self._client = queue, client
        self._waiting: dict[Waiter, _Waiting] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._read_at = float("-inf")
        if queue.updated_at is not None:
            # Tasks that are refused one after the other must not cause a read each.
            self._read_at = self._loop.time() - max(0.0, time.time() - queue.updated_at)
        # An empty context: what is logged underneath belongs to the triggerer, not to the task that came first.
        self._runner = self._loop.create_task(self._run(), context=contextvars.Context())

    async def wait(self, waiter: Waiter, interval: float, deadline: float, log: Any) -> None:
        """Return when the waiter may submit; logs its position, from its own task. Raises as `wait_for_capacity`."""
        waiting = self._waiting[waiter] = _Waiting(interval)
        self._changed.set()
        progress = ProgressLog(waiter.asked_at, deadline)
        try:
            while not waiting.granted:
                if waiting.fatal is not None:
                    raise waiting.fatal
                if waiting.seen is not None:
                    progress.tell(log, waiting.seen, time.time())
                left = deadline - time.time() + (_FIRST_READ if waiting.seen is None else 0.0)
                if left <= 0:
                    trouble = waiting.seen if isinstance(waiting.seen, exceptions.MachFiveError) else None
                    raise no_capacity(time.time() - waiter.asked_at, trouble)
                await _set_within(waiting.news, left)
        finally:
            del self._waiting[waiter]

    async def close(self) -> None:
        """Stop reading."""
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._until_due()
            try:
                granted = await self._read()
            except exceptions.MachFiveTransientError as error:
                for waiting in self._waiting.values():
                    waiting.seen = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiters must hear of it, not hang
                for waiting in self._waiting.values():
                    waiting.fatal = error
            else:
                self._tell(granted)
            self._read_at = self._loop.time()
            for waiting in self._waiting.values():
                waiting.news.set()

    async def _until_due(self) -> None:
        spread = jittered(1.0)
        while True:
            interval = min((each.interval for each in self._waiting.values()), default=0.0)
            # While no slot may be granted, there is no use in a read.
            paused_until = self._loop.time() + self._queue.paused_for(time.time())
            left = max(self._read_at + interval * spread, paused_until) - self._loop.time()
            if left <= 0:
                return
            await _set_within(self._changed, left)

    async def _read(self) -> list[Waiter]:
        self._queue.hint = (await self._client.settings()).max_concurrent_batches
        active = {list_id for status in RUNNING for list_id in await self._ids(status)}
        return self._queue.update(active, time.time())

    async def _ids(self, status: str) -> set[str]:
        pages, ids = protocol.ListPages(status=status), set[str]()
        while not pages.done:
            ids.update(each.id for each in pages.take(await self._client.send(pages.call())))
        return ids

    def _tell(self, granted: list[Waiter]) -> None:
        for waiter, position in self._queue.positions(time.time()):
            if waiter in self._waiting:
                self._waiting[waiter].seen = position
        for waiter in granted:
            if waiter in self._waiting:
                self._waiting[waiter].granted = True


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, clearing it, or when so many seconds are over."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    event.clear()


# By running loop, as the clients are. A queue stays when its last waiter has gone, for its reservations and the learned
# limit; it holds no reference to the loop.
_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, CapacityQueue]] = WeakKeyDictionary()
_watchers: PerLoop[_CapacityWatcher] = PerLoop()


async def wait_for_capacity(
    conn_id: str,
    *,
    asked_at: float,
    deadline: float,
    interval: float,
    limit: int | None,
    not_before: float,
    granted_limit: int | None,
    log: Any,
) -> int | None:
    """Return when the task may submit: in order with all that wait in this triggerer.

    Returns the workspace's limit, None if it is not known.

    :param asked_at: epoch seconds at which the task first asked
    :param deadline: epoch seconds at which it gives up, after one read at least
    :param interval: seconds between reads
    :param limit, not_before, granted_limit: as for :meth:`CapacityQueue.join`
    :raises CapacityTimeoutError: at the deadline
    :raises MachFivePermanentError: if the workspace may not be read
    """
    queue = _queues.setdefault(asyncio.get_running_loop(), {}).setdefault(conn_id, CapacityQueue())
    waiter = queue.join(asked_at, time.time(), limit, not_before, granted_limit=granted_limit)
    try:
        async with (
            shared_client(conn_id) as client,
            _watchers.use(conn_id, lambda: _CapacityWatcher(queue, client)) as watcher,
        ):
            await watcher.wait(waiter, interval, deadline, log)
    except BaseException:
        queue.leave(waiter)
        raise
    return queue.limit(time.time())

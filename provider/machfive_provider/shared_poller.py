"""One poller and one HTTP client for all triggers of a connection in a triggerer.

A trigger asks for a look at a list at a time; the poller takes it and hands the answer back. It only
ever sends GETs, so running a trigger twice is harmless. When the API asks for fewer requests, all waiters of
the connection wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from machfive_provider.api import protocol
from machfive_provider.api.client import AsyncMachFiveClient
from machfive_provider.api.models import LeadList
from machfive_provider.api.retries import ONCE
from machfive_provider.api.wire import Call
from machfive_provider.errors import MachFiveError, RateLimitedError, UnauthorizedError
from machfive_provider.hooks.machfive import load_settings_async
from machfive_provider.hooks.settings import ConnectionSettings
from machfive_provider.texts import duration

__all__ = ["SharedPoller", "shared_poller"]

_AT_ONCE = 8  # requests under way at the same time
_LONGEST_PAUSE = 300.0  # seconds; how long the API's wish may hold back a read, whatever it asks for
_UNASKED_PAUSE = 10.0  # seconds after a 429 that does not say how long

_log = logging.getLogger(__name__)


class SharedPoller:
    """Takes looks at lists when they are due, for any number of waiters.

    :param conn_id: the Airflow connection all its waiters share
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.waiters = 0
        self._due: list[tuple[float, int, str, asyncio.Future[LeadList]]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._connecting = asyncio.Lock()
        self._client: AsyncMachFiveClient | None = None
        self._settings: ConnectionSettings | None = None
        self._paused_until = float("-inf")
        self._users: Counter[AsyncMachFiveClient] = Counter()
        self._under_way: set[asyncio.Task[None]] = set()
        # An empty context: what the poller logs belongs to the triggerer, not to the task that came first.
        self._loop = asyncio.get_running_loop()
        self._runner = self._loop.create_task(self._run(), context=contextvars.Context())

    async def look(self, list_id: str, after: float) -> LeadList:
        """Return the list as seen ``after`` so many seconds from now; raises a ``MachFiveError``."""
        answer: asyncio.Future[LeadList] = self._loop.create_future()
        heapq.heappush(self._due, (self._loop.time() + after, next(self._order), list_id, answer))
        self._changed.set()
        return await answer

    async def send(self, call: Call[Any]) -> Any:
        """Send a read now, or as soon as the API may be asked again.

        On a 401 the connection is read once more, because keys are rotated.

        :raises MachFiveError: as the API answers, or if the read was held back for longer than a waiter can bear
        """
        give_up = self._loop.time() + _LONGEST_PAUSE
        while True:
            await self._pause_over(give_up)
            async with self._places:
                # Another's answer may have begun a pause while this one queued.
                if self._paused_until > self._loop.time():
                    continue
                try:
                    return await self._send_now(call)
                except MachFiveError as error:
                    self._hold_back(error)
                    raise

    async def settings(self) -> ConnectionSettings:
        """Return what the connection says, as last read; raises a ``MachFiveError``."""
        while self._settings is None:
            await self._connect(None)
        return self._settings

    async def _pause_over(self, give_up: float) -> None:
        while (left := self._paused_until - self._loop.time()) > 0:
            patience = give_up - self._loop.time()
            if patience <= 0:
                raise RateLimitedError(
                    f"MachFive keeps asking for fewer requests; this one was held back for {duration(_LONGEST_PAUSE)}",
                    retry_after=round(left, 1),
                )
            await asyncio.sleep(min(left, patience))

    def _hold_back(self, error: MachFiveError) -> None:
        seconds = error.retry_after
        if seconds is None:
            seconds = _UNASKED_PAUSE if isinstance(error, RateLimitedError) else 0.0
        until = self._loop.time() + min(seconds, _LONGEST_PAUSE)
        if seconds > 0 and until > self._paused_until:
            self._paused_until = until
            _log.info("Connection %r is not used for reads for %s: %s", self.conn_id, duration(seconds), error)

    async def _send_now(self, call: Call[Any]) -> Any:
        client = self._client or await self._connect(None)
        try:
            return await self._send_with(client, call)
        except UnauthorizedError:
            return await self._send_with(await self._connect(client), call)

    async def _send_with(self, client: AsyncMachFiveClient, call: Call[Any]) -> Any:
        # A client that was replaced is closed by whoever uses it last, not under the feet of the others.
        self._users[client] += 1
        try:
            return await client.send(call)
        finally:
            self._users[client] -= 1
            if not self._users[client]:
                del self._users[client]
                if client is not self._client:
                    await client.close()

    async def close(self) -> None:
        """Stop looking and close all connections."""
        tasks = [self._runner, *self._under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            pause = self._due[0][0] - self._loop.time() if self._due else None
            if pause is None or pause > 0:
                await self._sleep_until_changed(pause)
                continue
            _, _, list_id, answer = heapq.heappop(self._due)
            if not answer.done():
                task = self._loop.create_task(self._answer(list_id, answer))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
                # Held back for minutes, it must not be sent for a waiter that has gone meanwhile.
                answer.add_done_callback(lambda _, task=task: task.cancel())  # type: ignore[misc]

    async def _sleep_until_changed(self, pause: float | None) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _answer(self, list_id: str, answer: asyncio.Future[LeadList]) -> None:
        try:
            found = await self.send(protocol.get_list(list_id))
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiter must hear of it, not hang
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(found)

    async def _connect(self, stale: AsyncMachFiveClient | None) -> AsyncMachFiveClient:
        async with self._connecting:
            if self._client is None or self._client is stale:
                self._settings = await load_settings_async(self.conn_id)
                old, self._client = self._client, AsyncMachFiveClient(self._settings.client, ONCE)
                if old is not None and old not in self._users:
                    await old.close()
            return self._client


# By running loop: dag.test() makes a new one for each trigger.
_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedPoller]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_poller(conn_id: str) -> AsyncIterator[SharedPoller]:
    """Join the poller of a connection on this event loop; the last one to leave ends it."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in pollers:
        pollers[conn_id] = SharedPoller(conn_id)
    poller = pollers[conn_id]
    poller.waiters += 1
    try:
        yield poller
    finally:
        poller.waiters -= 1
        if not poller.waiters:
            del pollers[conn_id]
            await poller.close()

"""One HTTP client for everything that waits on a connection in a triggerer. It only ever sends GETs.

When the API asks for fewer requests, all that use the connection wait. Traffic is logged here, once for the
connection and not once for each task.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeVar

from machfive_provider import telemetry
from machfive_provider.api.call import Call
from machfive_provider.api.client import AsyncMachFiveClient, preload
from machfive_provider.api.retries import ONCE
from machfive_provider.exceptions import MachFiveError, RateLimitedError, UnauthorizedError
from machfive_provider.formatting import counted, duration
from machfive_provider.hooks.connection import ConnectionSettings
from machfive_provider.hooks.lookup import load_settings_async
from machfive_provider.waiting.per_loop import PerLoop

__all__ = ["AT_ONCE", "NotWantedError", "SharedClient", "shared_client"]

T = TypeVar("T")

AT_ONCE = 8  # requests under way at the same time

_LONGEST_PAUSE = 300.0  # seconds for which a read is held back, whatever Retry-After says
_UNASKED_PAUSE = 10.0  # seconds after a 429 that does not say how long
_REPORT_EVERY = 600.0  # seconds between two lines about the traffic

_log = logging.getLogger(__name__)

# Here, while Airflow imports the triggers: later it would hold up the event loop in one long callback.
preload()


class NotWantedError(Exception):
    """The read was not sent, because nobody wanted it any more when the API could be asked again."""


class SharedClient:
    """Sends reads for any number of triggers, eight at once at the most.

    :param conn_id: the Airflow connection all of them share
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._connecting = asyncio.Lock()
        self._client: AsyncMachFiveClient | None = None
        self._settings: ConnectionSettings | None = None
        self._users: Counter[AsyncMachFiveClient] = Counter()
        self._paused_until = float("-inf")
        self._traffic = _Traffic(conn_id, self._loop.time())

    async def send(self, call: Call[T], wanted: Callable[[], bool] = lambda: True) -> T:
        """Send a read now, or as soon as the API may be asked again.

        On a 401 the connection is read once more, because keys are rotated.

        :param wanted: asked right before it is sent, which may be minutes later
        :raises MachFiveError: as the API responds; ``RateLimitedError`` after five minutes of being held back
        :raises NotWantedError: if it was not sent because it was not wanted any more
        """
        give_up = self._loop.time() + _LONGEST_PAUSE
        while True:
            await self._pause_over(give_up)
            async with self._slots:
                # A response to another read may have begun a pause while this one waited for its slot.
                if self._paused_until > self._loop.time():
                    continue
                if not wanted():
                    raise NotWantedError
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

    async def close(self) -> None:
        """Close all connections."""
        self._traffic.report(self._loop.time())
        if self._client is not None:
            await self._client.close()

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

    async def _send_now(self, call: Call[T]) -> T:
        client = self._client or await self._connect(None)
        with suppress(UnauthorizedError):
            return await self._send_with(client, call)
        return await self._send_with(await self._connect(client), call)

    async def _send_with(self, client: AsyncMachFiveClient, call: Call[T]) -> T:
        # After a change of the key, the old client is closed by the last read that uses it.
        self._users[client] += 1
        failed = True
        try:
            response = await client.send(call)
            failed = False
            return response
        finally:
            self._traffic.note(call.request.endpoint, failed=failed, now=self._loop.time())
            self._users[client] -= 1
            if not self._users[client]:
                del self._users[client]
                if client is not self._client:
                    await client.close()

    async def _connect(self, stale: AsyncMachFiveClient | None) -> AsyncMachFiveClient:
        async with self._connecting:
            if self._client is None or self._client is stale:
                self._settings = await load_settings_async(self.conn_id)
                client = AsyncMachFiveClient(
                    self._settings.client, ONCE, observe=telemetry.request_observer(self.conn_id)
                )
                old, self._client = self._client, client
                if old is not None and old not in self._users:
                    await old.close()
            return self._client


class _Traffic:
    """Counts reads and says now and then how many there were."""

    def __init__(self, conn_id: str, now: float) -> None:
        self._conn_id, self._since = conn_id, now
        self._sent: Counter[str] = Counter()
        self._failed = 0

    def note(self, endpoint: str, *, failed: bool, now: float) -> None:
        self._sent[endpoint] += 1
        self._failed += failed
        if now - self._since >= _REPORT_EVERY:
            self.report(now)

    def report(self, now: float) -> None:
        if self._sent:
            each = ", ".join(f"{number} {endpoint}" for endpoint, number in sorted(self._sent.items()))
            _log.info(
                "Connection %r, for all that waits on it here: %s in %s (%s), %d failed.",
                self._conn_id,
                counted(self._sent.total(), "read"),
                duration(now - self._since),
                each,
                self._failed,
            )
        self._sent.clear()
        self._failed, self._since = 0, now


_clients: PerLoop[SharedClient] = PerLoop()


def shared_client(conn_id: str) -> AbstractAsyncContextManager[SharedClient]:
    """Join the client of a connection on this event loop; the last one to leave closes it."""
    return _clients.use(conn_id, lambda: SharedClient(conn_id))

"""Uvicorn in a thread with a loop of its own: it tells when it has started and is woken to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from machfive_provider.sandbox.model import SandboxSettings
from machfive_provider.sandbox.store import Store

_START_SECONDS = 30.0
# Longer than any sensible polling interval: a server that closes idle connections looks like a fault.
_KEEP_ALIVE_SECONDS = 300


class _Server(uvicorn.Server):
    """Uvicorn's server, woken when it is to stop, where uvicorn checks ten times a second."""

    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self._announced = started
        self._wake = asyncio.Event()

    async def main_loop(self) -> None:
        self._announced.set()
        # Each tick renews the Date header, which has a resolution of a second.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drop every connection, hanging ones included: uvicorn would ask them to end and wait for it."""
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        # The loop tells a protocol that its connection is lost one turn after it was dropped.
        await asyncio.sleep(0)
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        for server in self.servers:
            await server.wait_closed()

    def end(self) -> None:
        """Stop soon; to be called on the server's loop."""
        self.should_exit = True
        self._wake.set()


def _until_stopped(app: ASGIApp) -> ASGIApp:
    """Let a request that is cancelled at the end of the server end quietly: uvicorn would log it as an error."""

    async def quiet_app(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return quiet_app


def _protocol(store: Store) -> type[H11Protocol]:
    """Make a protocol that counts open connections in the store."""

    class CountedProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            # asyncio does it only for sockets made with an explicit protocol; without it, responses wait 40 ms.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            store.count("open_connections", 1)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            store.count("open_connections", -1)

    return CountedProtocol


class ServerThread:
    """A listening socket and the thread that serves it.

    The socket is bound at once: raises OSError where the address cannot be had.
    """

    def __init__(self, app: ASGIApp, store: Store, settings: SandboxSettings) -> None:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._socket = socket.create_server((settings.host, settings.port), family=family, backlog=256)
        self.port: int = self._socket.getsockname()[1]
        self._started = threading.Event()
        config = uvicorn.Config(
            _until_stopped(app),
            http=_protocol(store),
            ws="none",
            lifespan="off",
            access_log=settings.access_log,
            log_config=None,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._server = _Server(config, self._started)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"machfive-sandbox-{self.port}", daemon=True)

    def start(self) -> None:
        """Serve; returns when connections are accepted. Raises RuntimeError where the server will not start."""
        self._thread.start()
        if not self._started.wait(_START_SECONDS) or not self._thread.is_alive():
            raise RuntimeError("the sandbox server did not start; the log of uvicorn.error says why")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._socket.close()
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Stop and wait for the thread."""
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has ended between the question and the call
                self._loop.call_soon_threadsafe(self._server.end)
        self._thread.join()

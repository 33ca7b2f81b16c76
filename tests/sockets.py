"""Clients and a server on real sockets, for the tests whose subject is what goes over the wire."""

from __future__ import annotations

import asyncio
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from machfive_provider.api.call import Observer
from machfive_provider.api.client import AsyncMachFiveClient, MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.retries import RetryPolicy

NO_PAUSE = RetryPolicy(attempts=5, base=0.0)


class Awaited:
    """The asynchronous client with the methods of the synchronous one, so that one test drives both."""

    def __init__(
        self,
        settings: ClientSettings,
        policy: RetryPolicy,
        sleep: Callable[[float], None],
        observe: Observer | None = None,
    ) -> None:
        self._runner = asyncio.Runner()

        async def pause(seconds: float) -> None:
            sleep(seconds)

        async def make() -> AsyncMachFiveClient:
            return AsyncMachFiveClient(settings, policy, pause, observe)

        self.client = self._runner.run(make())

    def send(self, call: Any) -> Any:
        return self._runner.run(self.client.send(call))

    def stream(self, request: Any) -> Iterator[bytes]:
        chunks = self.client.stream(request)

        async def step() -> bytes:
            return await anext(chunks)

        try:
            while True:
                try:
                    yield self._runner.run(step())
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(chunks.aclose())

    def close(self) -> None:
        self._runner.run(self.client.close())
        self._runner.close()


Client = MachFiveClient | Awaited
WORLDS = ("sync", "async")


@contextmanager
def open_client(
    world: str,
    base_url: str,
    api_key: str = "mf_live_0123456789abcdefghijABCDEFGHIJ00",
    policy: RetryPolicy = NO_PAUSE,
    sleep: Callable[[float], None] = lambda _: None,
    observe: Observer | None = None,
) -> Iterator[Client]:
    """Give a client of one world, closed afterwards; it pauses only by way of ``sleep``."""
    settings = ClientSettings(base_url, api_key)
    client: Client
    if world == "async":
        client = Awaited(settings, policy, sleep, observe)
    else:
        client = MachFiveClient(settings, policy, sleep, observe)
    try:
        yield client
    finally:
        client.close()


class RawServer(socketserver.ThreadingTCPServer):
    """Responds to each request with the bytes given; ``heads`` is what arrived, over so many ``connections``."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, response: bytes | Callable[[Callable[[bytes], Any]], None]) -> None:
        self.response = response
        self.heads: list[bytes] = []
        self.connections = 0
        super().__init__(("127.0.0.1", 0), _RawHandler)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients that hang up are what these tests are about."""


class _RawHandler(socketserver.StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        self.server.connections += 1
        while head := b"".join(iter(self.rfile.readline, b"\r\n")) if self.rfile.peek(1) else b"":
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            self.rfile.read(int(length[1]) if length else 0)
            self.server.heads.append(head)
            if callable(self.server.response):
                self.server.response(self.request.sendall)
                return
            self.request.sendall(self.server.response)
            if b"Connection: close" in self.server.response:
                return


@contextmanager
def raw_server(response: bytes | Callable[[Callable[[bytes], Any]], None]) -> Iterator[RawServer]:
    """Serve ``response`` as it is: bytes, or a function that is given ``sendall``."""
    with RawServer(response) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a raw HTTP response."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def unused_url() -> str:
    """Return an address on which nothing listens."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_address[1]}"

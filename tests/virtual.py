"""Virtual time for event loops, and a sandbox that is served in the test's own loop: hours pass in milliseconds.

Only sleeping takes time here: what is computed takes none, and a response is there at once unless a fault delays it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

import httpx

from machfive_provider.sandbox import Sandbox

EPOCH = 1_770_000_000.0  # seconds; what time.time() says when a loop begins


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while there is something to do, and else jumps to the next timer.

    :param on_jump: called with the seconds of each jump
    """

    def __init__(self, on_jump: Callable[[float], Any] = lambda _: None) -> None:
        self.now = 0.0
        self.on_jump = on_jump
        self.in_threads = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, *arguments: Any) -> asyncio.Future[Any]:
        """Run in a thread; time stands still meanwhile."""
        self.in_threads += 1
        future = super().run_in_executor(*arguments)
        future.add_done_callback(lambda _: setattr(self, "in_threads", self.in_threads - 1))
        return future


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if self._loop.in_threads:
            return super().select(timeout and 10)
        if timeout is None and not super().select(0):
            raise RuntimeError("everybody waits, and nothing is left to wake them")
        if ready := super().select(0):
            return ready
        self._loop.now += timeout or 0.0
        self._loop.on_jump(timeout or 0.0)
        return []


class Network(httpx.AsyncBaseTransport):
    """Takes the place of httpx's own transport: carries requests to a sandbox in the same loop.

    :param sandbox: None where nothing can be reached
    """

    def __init__(self, sandbox: Sandbox | None) -> None:
        self._to_sandbox = sandbox and httpx.ASGITransport(sandbox.app)
        self.clients = 0

    def open(self, **_: Any) -> Network:
        """Take the place of httpx.AsyncHTTPTransport; counts the clients that are open."""
        self.clients += 1
        return self

    async def aclose(self) -> None:
        self.clients -= 1

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._to_sandbox is None:
            raise httpx.ConnectError("nothing listens there", request=request)
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                return await self._to_sandbox.handle_async_request(request)
        except TimeoutError as error:
            raise httpx.ReadTimeout("no response in time", request=request) from error
        except ConnectionResetError as error:
            raise httpx.ReadError(str(error), request=request) from error


async def buy(sandbox: Sandbox, count: int = 1) -> list[str]:
    """Buy lists, as workers would have; return their ids, the oldest first."""
    path = f"/api/v1/campaigns/{sandbox.campaign_id}/generate-batch"
    key = {"Authorization": f"Bearer {sandbox.api_key}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(sandbox.app), base_url="http://127.0.0.1") as client:
        answers = [
            await client.post(path, json={"leads": [{"email": "a@example.com"}]}, headers=key) for _ in range(count)
        ]
    return [each.raise_for_status().json()["list_id"] for each in answers]

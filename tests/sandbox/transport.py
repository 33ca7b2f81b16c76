"""An httpx transport to a sandbox without a socket, for tests on a virtual-time event loop."""

from __future__ import annotations

import asyncio

import httpx

from machfive_provider.sandbox import Sandbox


class SandboxTransport(httpx.ASGITransport):
    """Calls `Sandbox.app` in the running loop, and ends as a network does: with httpx's errors.

    httpx.ASGITransport knows no timeouts and passes the application's exceptions on as they are.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox.app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("read")):
                return await super().handle_async_request(request)
        except TimeoutError as problem:
            raise httpx.ReadTimeout("no response in time", request=request) from problem
        except ConnectionResetError as problem:
            raise httpx.ReadError(str(problem), request=request) from problem

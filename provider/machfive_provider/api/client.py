"""Two thin loops that carry calls to the API: one blocks, one awaits. Neither decides anything.

What to send and how to read the answer is in ``protocol``, whether to send again in ``retries``.
httpx is imported here and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception

from machfive_provider import __version__, exceptions
from machfive_provider.api import retries
from machfive_provider.api.call import Call, Request, Response
from machfive_provider.api.error_answers import error_from
from machfive_provider.api.protocol import opens_export
from machfive_provider.api.retries import RetryPolicy
from machfive_provider.api.settings import ClientSettings
from machfive_provider.formatting import one_line

__all__ = ["AsyncMachFiveClient", "MachFiveClient", "preload"]

T = TypeVar("T")

_CONNECT_TIMEOUT = 5.0
_LARGEST_BODY: Final = 16 * 1024 * 1024
_CHUNK: Final = 64 * 1024

# Endings of which it is certain that not one byte of the request reached the API.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class MachFiveClient:
    """Sends calls and blocks until they are answered.

    :param settings: where the API is and who is asking
    :param policy: how reads are repeated; the two paid calls never are, once they may have arrived
    :param sleep: how to pause between attempts; tests pass their own
    """

    def __init__(
        self,
        settings: ClientSettings,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._retrying = _retry_arguments(policy or RetryPolicy(), sleep)
        self._key = settings.api_key.encode()
        self._http = httpx.Client(**_http_arguments(settings))
        self._paid = httpx.Client(**_http_arguments(settings, keep_alive=False))

    def send(self, call: Call[T]) -> T:
        """Send a call and return its deciphered answer; raises a ``MachFiveError``."""
        answer: T = Retrying(**self._retrying(call.request))(self._send_once, call)
        return answer

    def stream(self, request: Request) -> Iterator[bytes]:
        """Yield the answer's body as it arrives. Repeated only up to the first byte."""
        reply = Retrying(**self._retrying(request))(self._open, request)
        received = 0
        try:
            for chunk in reply.iter_bytes(_CHUNK):
                received += len(chunk)
                yield chunk
        except httpx.HTTPError as error:
            raise _broken_off(request, error, received) from error
        finally:
            reply.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._paid.close()

    def _send_once(self, call: Call[T]) -> T:
        request = call.request
        http = self._http if request.repeatable else self._paid
        try:
            with http.stream(**_request_arguments(request)) as reply:
                return call.decipher(_response(reply, self._read(request, reply), self._key))
        except httpx.HTTPError as error:
            raise _transport_error(request, error) from error

    def _open(self, request: Request) -> httpx.Response:
        try:
            reply = self._http.send(self._http.build_request(**_request_arguments(request)), stream=True)
            try:
                refused = (
                    None
                    if _opens(reply)
                    else error_from(request, _response(reply, self._read(request, reply), self._key))
                )
            except BaseException:
                reply.close()
                raise
        except httpx.HTTPError as error:
            raise _transport_error(request, error) from error
        if refused:
            reply.close()
            raise refused
        return reply

    @staticmethod
    def _read(request: Request, reply: httpx.Response) -> bytes:
        body = bytearray()
        for chunk in reply.iter_bytes(_CHUNK):
            body += chunk
            if len(body) > _LARGEST_BODY:
                raise _too_large(request)
        return bytes(body)


class AsyncMachFiveClient:
    """The same for an event loop; parameters as for :class:`MachFiveClient`, ``sleep`` being awaited."""

    def __init__(
        self,
        settings: ClientSettings,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._retrying = _retry_arguments(policy or RetryPolicy(), sleep)
        self._key = settings.api_key.encode()
        self._http = httpx.AsyncClient(**_http_arguments(settings))
        self._paid = httpx.AsyncClient(**_http_arguments(settings, keep_alive=False))

    async def send(self, call: Call[T]) -> T:
        """Send a call and return its deciphered answer; raises a ``MachFiveError``."""
        return await AsyncRetrying(**self._retrying(call.request))(self._send_once, call)

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the answer's body as it arrives. Repeated only up to the first byte."""
        reply: httpx.Response = await AsyncRetrying(**self._retrying(request))(self._open, request)
        received = 0
        try:
            async for chunk in reply.aiter_bytes(_CHUNK):
                received += len(chunk)
                yield chunk
        except httpx.HTTPError as error:
            raise _broken_off(request, error, received) from error
        finally:
            await reply.aclose()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
        await self._paid.aclose()

    async def _send_once(self, call: Call[T]) -> T:
        request = call.request
        http = self._http if request.repeatable else self._paid
        try:
            async with http.stream(**_request_arguments(request)) as reply:
                return call.decipher(_response(reply, await self._read(request, reply), self._key))
        except httpx.HTTPError as error:
            raise _transport_error(request, error) from error

    async def _open(self, request: Request) -> httpx.Response:
        try:
            reply = await self._http.send(self._http.build_request(**_request_arguments(request)), stream=True)
            try:
                refused = (
                    None
                    if _opens(reply)
                    else error_from(request, _response(reply, await self._read(request, reply), self._key))
                )
            except BaseException:
                await reply.aclose()
                raise
        except httpx.HTTPError as error:
            raise _transport_error(request, error) from error
        if refused:
            await reply.aclose()
            raise refused
        return reply

    @staticmethod
    async def _read(request: Request, reply: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in reply.aiter_bytes(_CHUNK):
            body += chunk
            if len(body) > _LARGEST_BODY:
                raise _too_large(request)
        return bytes(body)


def preload() -> None:
    """Load what httpx would otherwise load with its first awaited request, and hold up an event loop for it."""
    with suppress(ImportError):  # anyio's own business: another release may have it elsewhere, and loads it later
        import_module("anyio._backends._asyncio")


@cache
def _tls() -> ssl.SSLContext:
    # Reading the certificate store takes tens of milliseconds: once per process, not once per client.
    return httpx.create_ssl_context()


def _http_arguments(settings: ClientSettings, *, keep_alive: bool = True) -> dict[str, Any]:
    return {
        "base_url": settings.base_url,
        "headers": {
            "Authorization": f"Bearer {settings.api_key}",
            "User-Agent": f"airflow-provider-machfive/{__version__}",
        },
        # Certificates are always verified; no parameter or connection field reaches this.
        "verify": _tls(),
        # A redirect would carry the key, and a paid POST, to an address nobody configured.
        "follow_redirects": False,
        # Proxies from the environment, as the rest of the deployment uses them; none leads to loopback.
        "trust_env": not settings.is_loopback,
        # A kept connection that the server has just closed makes a paid POST end ambiguously for nothing.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None if keep_alive else 0),
    }


def _request_arguments(request: Request) -> dict[str, Any]:
    headers = {"Accept": request.accept}
    if request.content is not None:
        headers["Content-Type"] = "application/json"
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params) or None,
        "content": request.content,
        "headers": headers,
        "timeout": httpx.Timeout(request.read_timeout, connect=_CONNECT_TIMEOUT),
    }


def _retry_arguments(policy: RetryPolicy, sleep: Any) -> Callable[[Request], dict[str, Any]]:
    def failure(state: RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def wait(state: RetryCallState) -> float:
        return retries.backoff(policy, state.attempt_number, failure(state), random.random)

    def stop(state: RetryCallState) -> bool:
        elapsed = state.seconds_since_start or 0.0
        return retries.should_stop(policy, state.attempt_number, elapsed, failure(state), state.upcoming_sleep)

    def arguments(request: Request) -> dict[str, Any]:
        may_repeat = retry_if_exception(lambda error: retries.may_repeat(error, repeatable=request.repeatable))
        return {"sleep": sleep, "wait": wait, "stop": stop, "retry": may_repeat, "reraise": True}

    return arguments


def _response(reply: httpx.Response, body: bytes, key: bytes) -> Response:
    # A server may quote the key it refused, and what it says goes into messages.
    body = body.replace(key, b"***") if reply.is_error else body
    return Response(reply.status_code, {name.lower(): value for name, value in reply.headers.items()}, body)


def _opens(reply: httpx.Response) -> bool:
    return opens_export(reply.status_code, reply.headers.get("content-type"))


def _too_large(request: Request) -> exceptions.ProtocolError:
    return exceptions.ProtocolError(
        f"the answer is larger than {_LARGEST_BODY // 1024 // 1024} MiB", endpoint=request.endpoint
    )


def _broken_off(request: Request, error: httpx.HTTPError, received: int) -> exceptions.TransportError:
    return exceptions.TransportError(
        f"the answer broke off after {received} bytes ({_reason(error)})", endpoint=request.endpoint
    )


def _transport_error(request: Request, error: httpx.HTTPError) -> exceptions.TransportError:
    never_sent = isinstance(error, _NEVER_SENT)
    fate = "nothing was sent" if never_sent else "it may have arrived"
    return exceptions.TransportError(
        f"no answer ({_reason(error)}); {fate}", may_have_arrived=not never_sent, endpoint=request.endpoint
    )


def _reason(error: httpx.HTTPError) -> str:
    name, text = type(error).__name__, one_line(str(error))
    return f"{name}: {text}" if text else name

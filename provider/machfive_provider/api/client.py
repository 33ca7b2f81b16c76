"""Two thin clients that carry calls to the API: one blocks, one awaits. Neither decides anything.

What to send and how to parse the response is in ``protocol``, whether to send again in ``retries``.
httpx is imported here and nowhere else.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing, closing, contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any, Final, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception_type

from machfive_provider import __version__, exceptions
from machfive_provider.api.call import Call, Observer, Request, Response
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.error_responses import error_from
from machfive_provider.api.masking import KeyMask
from machfive_provider.api.protocol import opens_export
from machfive_provider.api.retries import RequestRetries, RetryPolicy
from machfive_provider.formatting import one_line

__all__ = ["AsyncMachFiveClient", "MachFiveClient", "preload"]

T = TypeVar("T")
A = TypeVar("A", "Call[Any]", Request)

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
    """Sends calls and blocks until the response is there.

    :param settings: address and key
    :param policy: how reads are repeated, ``RetryPolicy()`` by default; the two paid calls are repeated only
        if the request never left this machine
    :param sleep: how to pause between attempts, in seconds; ``time.sleep`` by default
    :param observe: called after each attempt, for metrics; nothing by default
    """

    def __init__(
        self,
        settings: ClientSettings,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] | None = None,
        observe: Observer | None = None,
    ) -> None:
        self._policy = policy or RetryPolicy()
        self._sleep = sleep or _sleep
        self._observe = observe or _ignore
        self._mask = KeyMask(settings.api_key)
        self._reads = httpx.Client(**_http_arguments(settings))
        # A kept connection that the server has just closed makes a paid POST end ambiguously for nothing.
        self._purchases = httpx.Client(**_http_arguments(settings, kept_connections=0))

    def send(self, call: Call[T]) -> T:
        """Send a call and return its parsed response; raises a ``MachFiveError``."""
        result: T = self._repeat(call.request, self._send_once, call)
        return result

    def stream(self, request: Request) -> Iterator[bytes]:
        """Yield the response's body as it arrives. The request is repeated only before the first byte."""
        reply = self._repeat(request, self._open_export, request)
        received = 0
        with closing(reply):
            try:
                for chunk in reply.iter_bytes(_CHUNK):
                    received += len(chunk)
                    yield chunk
            except httpx.HTTPError as error:
                # Not from httpx's error, which may quote what the server sent.
                raise self._mask.error(_broken_off(request, error, received)) from None

    def close(self) -> None:
        """Close all connections."""
        self._reads.close()
        self._purchases.close()

    def _repeat(self, request: Request, once: Callable[[A], T], argument: A) -> T:
        try:
            retrying = Retrying(**_retry_arguments(self._policy, request, self._sleep, self._observe))
            result: T = retrying(once, argument)
        except exceptions.MachFiveError as error:
            # Without tenacity's frames, which would stand before the error's text in a task's log.
            raise self._mask.error(error).with_traceback(None) from None
        return result

    def _send_once(self, call: Call[T]) -> T:
        with _transport_errors(call.request), closing(self._open(call.request)) as reply:
            result = call.parse(self._read(call.request, reply))
            self._observe(call.request.endpoint, reply.status_code, False)
            return result

    def _open_export(self, request: Request) -> httpx.Response:
        with _transport_errors(request), ExitStack() as stack:
            reply = self._open(request)
            stack.callback(reply.close)
            if not _opens(reply):
                raise error_from(request, self._read(request, reply))
            stack.pop_all()  # it stays open: the caller reads it
            self._observe(request.endpoint, reply.status_code, False)
            return reply

    def _open(self, request: Request) -> httpx.Response:
        http = self._reads if request.repeatable else self._purchases
        return http.send(http.build_request(**_request_arguments(request, self._policy)), stream=True)

    def _read(self, request: Request, reply: httpx.Response) -> Response:
        body = bytearray()
        for chunk in reply.iter_bytes(_CHUNK):
            _append(body, chunk, request)
        return _response(reply, body)


class AsyncMachFiveClient:
    """Sends reads from an event loop. Workers alone send what is paid for, with :class:`MachFiveClient`.

    Parameters as there; ``sleep`` is awaited.
    """

    def __init__(
        self,
        settings: ClientSettings,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        observe: Observer | None = None,
    ) -> None:
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._observe = observe or _ignore
        self._mask = KeyMask(settings.api_key)
        self._reads = httpx.AsyncClient(**_http_arguments(settings))

    async def send(self, call: Call[T]) -> T:
        """Send a read and return its parsed response; raises a ``MachFiveError``."""
        return await self._repeat(call.request, self._send_once, call)

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the response's body as it arrives. The request is repeated only before the first byte."""
        reply = await self._repeat(request, self._open_export, request)
        received = 0
        async with aclosing(reply):
            try:
                async for chunk in reply.aiter_bytes(_CHUNK):
                    received += len(chunk)
                    yield chunk
            except httpx.HTTPError as error:
                # Not from httpx's error, which may quote what the server sent.
                raise self._mask.error(_broken_off(request, error, received)) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._reads.aclose()

    async def _repeat(self, request: Request, once: Callable[[A], Awaitable[T]], argument: A) -> T:
        try:
            retrying = AsyncRetrying(**_retry_arguments(self._policy, request, self._sleep, self._observe))
            return await retrying(once, argument)
        except exceptions.MachFiveError as error:
            raise self._mask.error(error).with_traceback(None) from None

    async def _send_once(self, call: Call[T]) -> T:
        with _transport_errors(call.request):
            async with aclosing(await self._open(call.request)) as reply:
                result = call.parse(await self._read(call.request, reply))
                self._observe(call.request.endpoint, reply.status_code, False)
                return result

    async def _open_export(self, request: Request) -> httpx.Response:
        with _transport_errors(request):
            async with AsyncExitStack() as stack:
                reply = await self._open(request)
                stack.push_async_callback(reply.aclose)
                if not _opens(reply):
                    raise error_from(request, await self._read(request, reply))
                stack.pop_all()  # it stays open: the caller reads it
                self._observe(request.endpoint, reply.status_code, False)
                return reply

    async def _open(self, request: Request) -> httpx.Response:
        built = self._reads.build_request(**_request_arguments(request, self._policy))
        return await self._reads.send(built, stream=True)

    async def _read(self, request: Request, reply: httpx.Response) -> Response:
        body = bytearray()
        async for chunk in reply.aiter_bytes(_CHUNK):
            _append(body, chunk, request)
        return _response(reply, body)


def preload() -> None:
    """Load now what httpx otherwise loads during its first awaited request, which would block the event loop."""
    with suppress(ImportError):  # a private module of anyio: another release may have it elsewhere
        import_module("anyio._backends._asyncio")


def _ignore(*_: Any) -> None:
    """Observe nothing."""


def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # looked up at each pause, so that a test can replace it


@cache
def _tls() -> ssl.SSLContext:
    # Reading the certificate store takes tens of milliseconds: once per process, not once per client.
    return httpx.create_ssl_context()


def _http_arguments(settings: ClientSettings, kept_connections: int | None = None) -> dict[str, Any]:
    return {
        "base_url": settings.base_url,
        # The vendor's errors page takes X-API-Key as well; its reference prefers this header (docs/api.md).
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
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=kept_connections),
    }


def _request_arguments(request: Request, policy: RetryPolicy) -> dict[str, Any]:
    longest = policy.request_timeout if request.repeatable else math.inf
    headers = {"Accept": request.accept}
    if request.content is not None:
        headers["Content-Type"] = "application/json"
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params) or None,
        "content": request.content,
        "headers": headers,
        "timeout": httpx.Timeout(min(request.read_timeout, longest), connect=min(_CONNECT_TIMEOUT, longest)),
    }


def _retry_arguments(policy: RetryPolicy, request: Request, sleep: Any, observe: Observer) -> dict[str, Any]:
    retries = RequestRetries(policy, request.repeatable)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        took = max(0.0, (state.seconds_since_start or 0.0) - retries.began_after)
        if not isinstance(error, exceptions.MachFiveError):
            return math.inf
        pause = retries.pause_after(error, took, random.random)
        observe(request.endpoint, error.status_code, pause is not None)
        return math.inf if pause is None else pause

    return {
        "sleep": sleep,
        "wait": wait,
        "stop": lambda state: state.upcoming_sleep == math.inf,  # tenacity asks for the pause first
        "retry": retry_if_exception_type(exceptions.MachFiveError),
        "reraise": True,
    }


def _append(body: bytearray, chunk: bytes, request: Request) -> None:
    body += chunk
    if len(body) > _LARGEST_BODY:
        raise exceptions.ProtocolError(
            f"The response is larger than {_LARGEST_BODY // 1024 // 1024} MiB.", endpoint=request.endpoint
        )


def _response(reply: httpx.Response, body: bytearray) -> Response:
    return Response(reply.status_code, {name.lower(): value for name, value in reply.headers.items()}, bytes(body))


def _opens(reply: httpx.Response) -> bool:
    return opens_export(reply.status_code, reply.headers.get("content-type"))


@contextmanager
def _transport_errors(request: Request) -> Iterator[None]:
    """Raise a ``TransportError`` in place of httpx's errors; it says whether the request may have arrived."""
    try:
        yield
    except httpx.HTTPError as error:
        never_sent = isinstance(error, _NEVER_SENT)
        what = "MachFive cannot be reached" if never_sent else "MachFive sent no complete response"
        if request.repeatable:
            fate = ""
        elif never_sent:
            fate = " Nothing was sent."
        else:
            fate = " The request may have arrived, and may be paid for."
        raise exceptions.TransportError(
            f"{what} ({_reason(error)}).{fate}", may_have_arrived=not never_sent, endpoint=request.endpoint
        ) from error


def _broken_off(request: Request, error: httpx.HTTPError, received: int) -> exceptions.TransportError:
    return exceptions.TransportError(
        f"The response broke off after {received} bytes ({_reason(error)}).", endpoint=request.endpoint
    )


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    return one_line(str(error)) or type(error).__name__

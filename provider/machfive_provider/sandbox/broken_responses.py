"""Request faults acted out: what the client sees instead of, or after, the right response."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machfive_provider.sandbox.faults import Fault
from machfive_provider.sandbox.store import Store
from machfive_provider.sandbox.validation import CODES, error_body

_JSON = "application/json"
_DROPPED = "The sandbox dropped the connection, as a scripted fault told it to."
_PROXY_PAGE = (
    "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1>"
    "</center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_REASONS = {
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}


@dataclass
class HeldResponse:
    """A complete response of the application, not sent yet."""

    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


@dataclass
class Exchange:
    """One request and the ways to respond to it. `send` records the status the client gets."""

    app: ASGIApp
    scope: Scope
    body: bytes
    receive: Receive
    send: Send
    transport: asyncio.Transport | None
    request_id: str
    endpoint: str
    store: Store

    async def run(self, send: Send | None = None) -> None:
        """Let the application handle the request; its response goes to `send`, or to the client."""
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await self.receive()
            read = True
            return {"type": "http.request", "body": self.body, "more_body": False}

        await self.app(self.scope, replay, self._with_request_id(send or self.send))

    def _with_request_id(self, send: Send) -> Send:
        async def naming_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"])["X-Request-Id"] = self.request_id
            await send(message)

        return naming_send

    async def capture(self) -> HeldResponse:
        """Let the application handle the request, and hold its response back."""
        response = HeldResponse()
        chunks: list[bytes] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                response.status, response.headers = message["status"], list(message["headers"])
            else:
                chunks.append(message.get("body", b""))

        await self.run(hold)
        response.body = b"".join(chunks)
        return response

    async def send_whole(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a response in full; its length is set here."""
        await self.start(status, len(body), headers)
        await self.send({"type": "http.response.body", "body": body})

    async def start(self, status: int, length: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of a response that promises a body of `length` bytes."""
        kept = [
            (name, value) for name, value in headers if name.lower() not in (b"content-length", b"transfer-encoding")
        ]
        kept.append((b"content-length", str(length).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": kept})

    async def disconnected(self) -> None:
        """Wait until the connection is gone, so that uvicorn misses nothing when the application returns."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def headers(self, content_type: str, request_id: str | None = "auto") -> list[tuple[bytes, bytes]]:
        """Build the headers of a response made up here; `request_id` None leaves that header out."""
        shown = {"Content-Type": content_type}
        if request_id is not None:
            shown["X-Request-Id"] = self.request_id if request_id == "auto" else request_id
        return Headers(shown).raw


async def pause(seconds: float) -> None:
    """Wait so many seconds of the running loop's time; `math.inf` waits until the task is cancelled."""
    await (asyncio.Event().wait() if seconds == math.inf else asyncio.sleep(seconds))


async def respond(exchange: Exchange, fault: Fault | None) -> None:
    """Respond to the request as the fault says, or rightly where there is none."""
    if fault is None:
        await exchange.run()
        return
    if fault.accepted and fault.kind not in _HANDLED_ANYWAY:
        await exchange.capture()
    await _ACTS[fault.kind](exchange, fault.args)


async def _status(exchange: Exchange, args: Mapping[str, Any]) -> None:
    status, request_id = args["status"], args["request_id"]
    headers = exchange.headers(_JSON if args["body"] is None else args["content_type"], request_id)
    known = exchange.request_id if request_id == "auto" else request_id
    if args["body"] is None:
        content = json.dumps(
            error_body(
                args["code"] or CODES.get(status, f"HTTP_{status}"),
                args["message"] or "A scripted error of the sandbox.",
                detail=args["detail"],
                request_id=known,
                generation=exchange.store.settings.generation,
            )
        ).encode()
    else:
        content = args["body"] if isinstance(args["body"], bytes) else str(args["body"]).encode()
    headers += Headers({str(name): str(value) for name, value in args["headers"].items()}).raw
    await exchange.send_whole(status, content, headers)


async def _html(exchange: Exchange, args: Mapping[str, Any]) -> None:
    # A proxy responds here, not the API: there is no request id.
    status = args["status"]
    page = _PROXY_PAGE.format(status=status, reason=_REASONS.get(status, "Error"))
    await exchange.send_whole(status, page.encode(), exchange.headers("text/html", None))


async def _reset(exchange: Exchange, _args: Mapping[str, Any]) -> None:
    if exchange.transport is None:
        raise ConnectionResetError(_DROPPED)
    raw = exchange.transport.get_extra_info("socket")
    # Without lingering the close is a reset (RST), as when a machine on the way has died.
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.transport.abort()
    await exchange.disconnected()


async def _truncate(exchange: Exchange, args: Mapping[str, Any]) -> None:
    response = await exchange.capture()
    await exchange.start(response.status, len(response.body), response.headers)
    kept = response.body[: min(int(len(response.body) * args["keep"]), max(0, len(response.body) - 1))]
    await exchange.send({"type": "http.response.body", "body": kept, "more_body": True})
    if exchange.transport is None:
        raise ConnectionResetError(_DROPPED)
    exchange.transport.close()
    await exchange.disconnected()


def _good_status(exchange: Exchange, args: Mapping[str, Any]) -> int:
    return args["status"] or (202 if exchange.endpoint == "generate-batch" else 200)


async def _garbage(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await exchange.send_whole(_good_status(exchange, args), b'{"list_id": "\xff\xfe<oops', exchange.headers(_JSON))


async def _wrong_shape(exchange: Exchange, args: Mapping[str, Any]) -> None:
    body = json.dumps(args["body"]).encode()
    await exchange.send_whole(_good_status(exchange, args), body, exchange.headers(_JSON))


async def _hang(exchange: Exchange, _args: Mapping[str, Any]) -> None:
    _count_hanging(exchange.store, 1)
    try:
        await exchange.disconnected()
    finally:
        _count_hanging(exchange.store, -1)


def _count_hanging(store: Store, by: int) -> None:
    with store.changed:
        store.hanging += by
        store.changed.notify_all()


async def _drop_field(exchange: Exchange, args: Mapping[str, Any]) -> None:
    def drop(body: dict[str, Any]) -> None:
        body.pop(args["field"], None)

    await _edited(exchange, drop)


async def _extra_field(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await _edited(exchange, lambda body: body.update(args["fields"]))


async def _edited(exchange: Exchange, edit: Callable[[dict[str, Any]], None]) -> None:
    response = await exchange.capture()
    content = response.body
    if Headers(raw=response.headers).get("content-type", "").startswith(_JSON):
        body = json.loads(content)
        edit(body)
        content = json.dumps(body, ensure_ascii=False).encode()
    await exchange.send_whole(response.status, content, response.headers)


async def _delay(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await pause(args["seconds"])
    await exchange.run()


async def _slow_headers(exchange: Exchange, args: Mapping[str, Any]) -> None:
    response = await exchange.capture()
    await pause(args["seconds"])
    await exchange.send_whole(response.status, response.body, response.headers)


async def _redirect(exchange: Exchange, args: Mapping[str, Any]) -> None:
    headers = exchange.headers("text/plain; charset=utf-8") + Headers({"Location": args["location"]}).raw
    await exchange.send_whole(307, b"", headers)


# These let the application handle the request themselves, whatever `accepted` says.
_HANDLED_ANYWAY = ("truncate", "drop_field", "extra_field", "delay", "slow_headers")
_ACTS: Mapping[str, Callable[[Exchange, Mapping[str, Any]], Awaitable[None]]] = {
    "status": _status,
    "html": _html,
    "reset": _reset,
    "truncate": _truncate,
    "garbage": _garbage,
    "wrong_shape": _wrong_shape,
    "hang": _hang,
    "drop_field": _drop_field,
    "extra_field": _extra_field,
    "delay": _delay,
    "slow_headers": _slow_headers,
    "redirect": _redirect,
}

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
_TEXT = "text/plain; charset=utf-8"
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

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"])["X-Request-Id"] = self.request_id
            await (send or self.send)(message)

        await self.app(self.scope, replay, send_with_id)

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

    async def send_made_up(
        self,
        status: int,
        body: str | bytes,
        content_type: str,
        request_id: str | None = "auto",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a response that the application did not make; `request_id` None leaves that header out."""
        shown = {"Content-Type": content_type}
        if request_id is not None:
            shown["X-Request-Id"] = self.request_id if request_id == "auto" else request_id
        raw = Headers(shown).raw + Headers(headers or {}).raw
        await self.send_whole(HeldResponse(status, raw, body if isinstance(body, bytes) else str(body).encode()))

    async def send_whole(self, response: HeldResponse) -> None:
        """Send a response in full."""
        await self.send_head(response)
        await self.send({"type": "http.response.body", "body": response.body})

    async def send_head(self, response: HeldResponse) -> None:
        """Send the head of a response, which promises the whole body."""
        ours = (b"content-length", b"transfer-encoding")
        headers = [(name, value) for name, value in response.headers if name.lower() not in ours]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await self.send({"type": "http.response.start", "status": response.status, "headers": headers})

    async def disconnected(self) -> None:
        """Wait until the client is gone: uvicorn logs an error where an application returns without a response."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


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
    status, request_id, body = args["status"], args["request_id"], args["body"]
    content_type = args["content_type"]
    if body is None:
        content_type = _JSON
        error = error_body(
            args["code"] or CODES.get(status, f"HTTP_{status}"),
            args["message"] or "A scripted error of the sandbox.",
            detail=args["detail"],
            request_id=exchange.request_id if request_id == "auto" else request_id,
            generation=exchange.store.settings.generation,
        )
        body = json.dumps(error)
    headers = {str(name): str(value) for name, value in args["headers"].items()}
    await exchange.send_made_up(status, body, content_type, request_id, headers)


async def _html(exchange: Exchange, args: Mapping[str, Any]) -> None:
    # A proxy responds here, not the API: there is no request id.
    status = args["status"]
    page = _PROXY_PAGE.format(status=status, reason=_REASONS.get(status, "Error"))
    await exchange.send_made_up(status, page, "text/html", None)


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
    kept = response.body[: min(int(len(response.body) * args["keep"]), max(0, len(response.body) - 1))]
    await exchange.send_head(response)
    await exchange.send({"type": "http.response.body", "body": kept, "more_body": True})
    if exchange.transport is None:
        raise ConnectionResetError(_DROPPED)
    exchange.transport.close()
    await exchange.disconnected()


async def _garbage(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await _false_success(exchange, args, b'{"list_id": "\xff\xfe<oops')


async def _wrong_shape(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await _false_success(exchange, args, json.dumps(args["body"]))


async def _false_success(exchange: Exchange, args: Mapping[str, Any], body: str | bytes) -> None:
    good = 202 if exchange.endpoint == "generate-batch" else 200
    await exchange.send_made_up(args["status"] or good, body, _JSON)


async def _hang(exchange: Exchange, _args: Mapping[str, Any]) -> None:
    exchange.store.count("hanging", 1)
    try:
        await exchange.disconnected()
    finally:
        exchange.store.count("hanging", -1)


async def _drop_field(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await _edited(exchange, lambda body: body.pop(args["field"], None))


async def _extra_field(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await _edited(exchange, lambda body: body.update(args["fields"]))


async def _edited(exchange: Exchange, edit: Callable[[dict[str, Any]], object]) -> None:
    response = await exchange.capture()
    if Headers(raw=response.headers).get("content-type", "").startswith(_JSON):
        body = json.loads(response.body)
        edit(body)
        response.body = json.dumps(body, ensure_ascii=False).encode()
    await exchange.send_whole(response)


async def _delay(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await pause(args["seconds"])
    await exchange.run()


async def _slow_headers(exchange: Exchange, args: Mapping[str, Any]) -> None:
    response = await exchange.capture()
    await pause(args["seconds"])
    await exchange.send_whole(response)


async def _redirect(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await exchange.send_made_up(307, b"", _TEXT, headers={"Location": args["location"]})


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

"""Request faults acted out: what the client sees instead of, or after, the right answer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machfive_provider.sandbox.errors import CODES, error_body
from machfive_provider.sandbox.faults import Fault
from machfive_provider.sandbox.pause import pause
from machfive_provider.sandbox.state import State

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
class Answer:
    """A complete answer of the application, held back."""

    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


@dataclass
class Exchange:
    """One request and the ways to answer it. `send` notes the status the client gets."""

    app: ASGIApp
    scope: Scope
    body: bytes
    receive: Receive
    send: Send
    transport: asyncio.Transport | None
    request_id: str
    endpoint: str
    state: State

    async def run(self, send: Send | None = None) -> None:
        """Let the application handle the request, answering to `send`, or to the client."""
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

    async def capture(self) -> Answer:
        """Let the application handle the request, and hold its answer back."""
        answer = Answer()
        chunks: list[bytes] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], list(message["headers"])
            else:
                chunks.append(message.get("body", b""))

        await self.run(hold)
        answer.body = b"".join(chunks)
        return answer

    async def answer(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send an answer in full; its length is set here."""
        await self.start(status, len(body), headers)
        await self.send({"type": "http.response.body", "body": body})

    async def start(self, status: int, length: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer that promises a body of `length` bytes."""
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
        """Build the headers of an answer made up here; `request_id` None leaves that header out."""
        shown = {"Content-Type": content_type}
        if request_id is not None:
            shown["X-Request-Id"] = self.request_id if request_id == "auto" else request_id
        return Headers(shown).raw


async def misbehave(exchange: Exchange, fault: Fault | None) -> None:
    """Answer the request as the fault says, or rightly where there is none."""
    if fault is None:
        await exchange.run()
        return
    if fault.accepted and fault.kind not in _ACCEPTED_ANYWAY:
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
                generation=exchange.state.settings.generation,
            )
        ).encode()
    else:
        content = args["body"] if isinstance(args["body"], bytes) else str(args["body"]).encode()
    headers += Headers({str(name): str(value) for name, value in args["headers"].items()}).raw
    await exchange.answer(status, content, headers)


async def _html(exchange: Exchange, args: Mapping[str, Any]) -> None:
    # A proxy answers here, not the API: there is no request id.
    status = args["status"]
    page = _PROXY_PAGE.format(status=status, reason=_REASONS.get(status, "Error"))
    await exchange.answer(status, page.encode(), exchange.headers("text/html", None))


async def _reset(exchange: Exchange, _args: Mapping[str, Any]) -> None:
    if exchange.transport is None:
        raise ConnectionResetError(_DROPPED)
    raw = exchange.transport.get_extra_info("socket")
    # Without lingering the close is a reset (RST), as when a machine on the way has died.
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.transport.abort()
    await exchange.disconnected()


async def _truncate(exchange: Exchange, args: Mapping[str, Any]) -> None:
    answer = await exchange.capture()
    await exchange.start(answer.status, len(answer.body), answer.headers)
    kept = answer.body[: min(int(len(answer.body) * args["keep"]), max(0, len(answer.body) - 1))]
    await exchange.send({"type": "http.response.body", "body": kept, "more_body": True})
    if exchange.transport is None:
        raise ConnectionResetError(_DROPPED)
    exchange.transport.close()
    await exchange.disconnected()


def _good_status(exchange: Exchange, args: Mapping[str, Any]) -> int:
    return args["status"] or (202 if exchange.endpoint == "generate-batch" else 200)


async def _garbage(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await exchange.answer(_good_status(exchange, args), b'{"list_id": "\xff\xfe<oops', exchange.headers(_JSON))


async def _wrong_shape(exchange: Exchange, args: Mapping[str, Any]) -> None:
    body = json.dumps(args["body"]).encode()
    await exchange.answer(_good_status(exchange, args), body, exchange.headers(_JSON))


async def _hang(exchange: Exchange, _args: Mapping[str, Any]) -> None:
    _count_hanging(exchange.state, 1)
    try:
        await exchange.disconnected()
    finally:
        _count_hanging(exchange.state, -1)


def _count_hanging(state: State, by: int) -> None:
    with state.changed:
        state.hanging += by
        state.changed.notify_all()


async def _drop_field(exchange: Exchange, args: Mapping[str, Any]) -> None:
    def drop(body: dict[str, Any]) -> None:
        body.pop(args["field"], None)

    await _edited(exchange, drop)


async def _extra_field(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await _edited(exchange, lambda body: body.update(args["fields"]))


async def _edited(exchange: Exchange, edit: Callable[[dict[str, Any]], None]) -> None:
    answer = await exchange.capture()
    content = answer.body
    if Headers(raw=answer.headers).get("content-type", "").startswith(_JSON):
        body = json.loads(content)
        edit(body)
        content = json.dumps(body, ensure_ascii=False).encode()
    await exchange.answer(answer.status, content, answer.headers)


async def _delay(exchange: Exchange, args: Mapping[str, Any]) -> None:
    await pause(args["seconds"])
    await exchange.run()


async def _slow_headers(exchange: Exchange, args: Mapping[str, Any]) -> None:
    answer = await exchange.capture()
    await pause(args["seconds"])
    await exchange.answer(answer.status, answer.body, answer.headers)


async def _redirect(exchange: Exchange, args: Mapping[str, Any]) -> None:
    headers = exchange.headers("text/plain; charset=utf-8") + Headers({"Location": args["location"]}).raw
    await exchange.answer(307, b"", headers)


# These let the application act by themselves, whatever `accepted` says.
_ACCEPTED_ANYWAY = ("truncate", "drop_field", "extra_field", "delay", "slow_headers")
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

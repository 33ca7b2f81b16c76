"""The outermost layer: every request is recorded here, and request faults are acted out here.

It must stay outermost: a fault that drops the connection reaches uvicorn's transport through `send`.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machfive_provider.sandbox.endpoints import endpoint_of, is_control
from machfive_provider.sandbox.faults import request_text
from machfive_provider.sandbox.identity import digest
from machfive_provider.sandbox.misbehaviour import Exchange, misbehave
from machfive_provider.sandbox.records import RecordedRequest
from machfive_provider.sandbox.routes import key_of
from machfive_provider.sandbox.state import State

_KEY_HEADERS = ("authorization", "x-api-key")


class Wire:
    """Wraps the application; nothing may wrap this."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if is_control(scope["path"]):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        recorded = self._record(scope, body)
        with self._state.changed:
            number = len(self._state.requests)
            self._state.requests.append(recorded)
            fault = self._state.faults.take_request_fault(recorded.endpoint, request_text(scope["path"], body))
            recorded.fault = fault.kind if fault else None
            self._state.changed.notify_all()
        request_id = f"req_{digest(self._state.settings.seed, 'request', number).hex()[:24]}"
        scope["machfive.request_id"] = request_id
        exchange = Exchange(
            app=self._app,
            scope=scope,
            body=body,
            receive=receive,
            send=self._recording(send, recorded),
            transport=getattr(getattr(send, "__self__", None), "transport", None),
            request_id=request_id,
            endpoint=recorded.endpoint,
            state=self._state,
        )
        await misbehave(exchange, fault)

    def _recording(self, send: Send, recorded: RecordedRequest) -> Send:
        async def recording_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                with self._state.changed:
                    recorded.status = message["status"]
                    self._state.changed.notify_all()
            await send(message)

        return recording_send

    def _record(self, scope: Scope, body: bytes) -> RecordedRequest:
        headers = Headers(scope=scope)
        return RecordedRequest(
            at=self._state.clock(),
            method=scope["method"],
            path=scope["path"],
            endpoint=endpoint_of(scope["path"]),
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
            headers={name: value for name, value in headers.items() if name not in _KEY_HEADERS},
            authenticated=self._state.workspace_of_key(key_of(headers)) is not None,
            user_agent=headers.get("user-agent", ""),
            json=_json_or_none(body),
            client_port=scope["client"][1] if scope.get("client") else None,
        )


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


async def _read(receive: Receive) -> bytes | None:
    """Read the whole body; None when the client left before it was complete."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)

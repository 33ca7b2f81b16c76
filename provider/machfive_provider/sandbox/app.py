"""The ASGI application: every request is recorded, its fault is acted out, and the routes respond.

The recording must stay outermost: a fault that drops the connection reaches uvicorn's transport by way of `send`.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machfive_provider.sandbox.broken_responses import Exchange, respond
from machfive_provider.sandbox.control import Control
from machfive_provider.sandbox.faults import REQUEST_KINDS, endpoint_of, is_control, request_text, take_due_faults
from machfive_provider.sandbox.model import digest
from machfive_provider.sandbox.routes import Api, key_of
from machfive_provider.sandbox.store import RecordedRequest, Store
from machfive_provider.sandbox.validation import CODES, ApiError, error_body

_KEY_HEADERS = ("authorization", "x-api-key")


class RecordingApp:
    """Records each request and acts its fault out, around the application with the routes."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if is_control(scope["path"]):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        recorded = self._record(scope, body)
        with self._store.changed:
            number = len(self._store.requests)
            self._store.requests.append(recorded)
            text = request_text(scope["path"], body)
            due = take_due_faults(self._store.faults, REQUEST_KINDS, recorded.endpoint, text, most=1)
            recorded.fault = due[0].kind if due else None
            self._store.changed.notify_all()
        request_id = f"req_{digest(self._store.settings.seed, 'request', number).hex()[:24]}"
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
            store=self._store,
        )
        await respond(exchange, due[0] if due else None)

    def _recording(self, send: Send, recorded: RecordedRequest) -> Send:
        async def recording_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                with self._store.changed:
                    recorded.status = message["status"]
                    self._store.changed.notify_all()
            await send(message)

        return recording_send

    def _record(self, scope: Scope, body: bytes) -> RecordedRequest:
        headers = Headers(scope=scope)
        return RecordedRequest(
            at=self._store.clock(),
            method=scope["method"],
            path=scope["path"],
            endpoint=endpoint_of(scope["path"]),
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
            headers={name: value for name, value in headers.items() if name not in _KEY_HEADERS},
            authenticated=self._store.workspace_of_key(key_of(headers)) is not None,
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


def build_app(store: Store) -> RecordingApp:
    """Build the ASGI application to be served."""
    api = Api(store)
    routes = [
        Route("/api/v1/campaigns", api.campaigns, methods=["GET"]),
        Route("/api/v1/campaigns/{campaign_id}/generate", api.generate, methods=["POST"]),
        Route("/api/v1/campaigns/{campaign_id}/generate-batch", api.generate_batch, methods=["POST"]),
        Route("/api/v1/lists", api.lists, methods=["GET"]),
        Route("/api/v1/lists/{list_id}", api.list_details, methods=["GET"]),
        Route("/api/v1/lists/{list_id}/export", api.export, methods=["GET"]),
        Route("/campaigns/{campaign_id}", api.page, methods=["GET"]),
        *Control(store).routes(),
    ]
    if store.settings.generation == "2026":
        routes.append(Route("/api/v1/signatures", api.signatures, methods=["GET", "POST"]))
    for route in routes:
        # Starlette adds HEAD to every GET; the contract does not have it.
        route.methods = set(route.methods or ()) - {"HEAD"}

    async def error(request: Request, problem: Exception) -> Response:
        return _error_response(request, problem, store.settings.generation)

    app = Starlette(
        routes=routes,
        exception_handlers={ApiError: error, HTTPException: error, Exception: error},
    )
    app.router.redirect_slashes = False
    return RecordingApp(app, store)


def _error_response(request: Request, problem: Exception, generation: str) -> Response:
    status, message, detail, headers = 500, "The sandbox itself failed; its log says where.", None, None
    if isinstance(problem, ApiError):
        status, message, detail = problem.status, problem.message, problem.detail
    elif isinstance(problem, HTTPException):
        status, headers = problem.status_code, problem.headers
        message = "No such endpoint." if status == 404 else str(problem.detail)
    body = error_body(
        CODES.get(status, f"HTTP_{status}"),
        message,
        detail=detail,
        request_id=request.scope.get("machfive.request_id"),
        generation=generation,
    )
    return JSONResponse(body, status_code=status, headers=headers)

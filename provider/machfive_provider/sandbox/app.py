"""Puts the pieces together: the routes, what a refusal looks like, and the wire around it all."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from machfive_provider.sandbox.control import Control
from machfive_provider.sandbox.errors import CODES, ApiError, error_body
from machfive_provider.sandbox.routes import Api
from machfive_provider.sandbox.state import State
from machfive_provider.sandbox.wire import Wire


def build_app(state: State) -> Wire:
    """Build the ASGI application to be served."""
    api = Api(state)
    routes = [
        Route("/api/v1/campaigns", api.campaigns, methods=["GET"]),
        Route("/api/v1/campaigns/{campaign_id}/generate", api.generate, methods=["POST"]),
        Route("/api/v1/campaigns/{campaign_id}/generate-batch", api.generate_batch, methods=["POST"]),
        Route("/api/v1/lists", api.lists, methods=["GET"]),
        Route("/api/v1/lists/{list_id}", api.list_details, methods=["GET"]),
        Route("/api/v1/lists/{list_id}/export", api.export, methods=["GET"]),
        Route("/campaigns/{campaign_id}", api.page, methods=["GET"]),
        *Control(state).routes(),
    ]
    if state.settings.generation != "2025":
        routes.append(Route("/api/v1/signatures", api.signatures, methods=["GET", "POST"]))
    for route in routes:
        # Starlette adds HEAD to every GET; the contract does not have it.
        route.methods = set(route.methods or ()) - {"HEAD"}

    async def refuse(request: Request, problem: Exception) -> Response:
        return _refusal(request, problem, state.settings.generation)

    app = Starlette(
        routes=routes,
        exception_handlers={ApiError: refuse, HTTPException: refuse, Exception: refuse},
    )
    app.router.redirect_slashes = False
    return Wire(app, state)


def _refusal(request: Request, problem: Exception, generation: str) -> Response:
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

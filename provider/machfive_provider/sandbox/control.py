"""The control interface under /_sandbox: show requests and purchases, script faults, change lists.

It needs no key and shows none, so it serves this machine alone: the client, the Host header and, where
a browser sends one, the Origin must all be loopback. The last two keep web pages out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from machfive_provider.sandbox import validation
from machfive_provider.sandbox.faults import CONTROL_PREFIX, make_fault
from machfive_provider.sandbox.model import LeadList, Workspace
from machfive_provider.sandbox.routes import show_list_details
from machfive_provider.sandbox.store import Store
from machfive_provider.sandbox.validation import ApiError

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def _is_loopback(authority: str) -> bool:
    """Whether a host with or without a port means this machine."""
    try:
        host = urlsplit(f"//{authority}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_other_machines(request: Request) -> None:
    address = request.client.host if request.client else ""
    authorities = [f"[{address}]" if ":" in address else address, request.headers.get("host", "")]
    if "origin" in request.headers:
        authorities.append(request.headers["origin"].partition("://")[2])
    if not all(_is_loopback(each) for each in authorities):
        raise ApiError(403, "The sandbox is controlled from its own machine only.")


class Control:
    """The control endpoints over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """List the routes, each guarded."""
        table: list[tuple[str, str, Handler]] = [
            ("/state", "GET", self.state),
            ("/requests", "GET", self.requests),
            ("/lists/{list_id}", "POST", self.change_list),
            ("/campaigns/{campaign_id}/built", "POST", self.built),
            ("/faults", "GET POST DELETE", self.faults),
            ("/reset", "POST", self.reset),
        ]
        return [
            Route(CONTROL_PREFIX + path, _guard(handler), methods=methods.split()) for path, methods, handler in table
        ]

    async def state(self, _request: Request) -> Response:
        """GET /state: everything but the keys and the leads."""
        store = self._store
        with store.changed:
            now = store.clock()
            bought = store.purchases
            shown = {
                "generation": store.settings.generation,
                "workspaces": [self._show_workspace(workspace) for workspace in store.workspaces],
                "lists": [self._show_list(each, now) for each in store.lists.values()],
                "purchases": {
                    "batches": sum(1 for each in bought if each.endpoint == "generate-batch"),
                    "generates": sum(1 for each in bought if each.endpoint == "generate"),
                    "leads": sum(len(each.emails) for each in bought),
                    "credits": sum(each.credits for each in bought),
                },
                "duplicates": store.duplicates(),
            }
        return JSONResponse(shown)

    def _show_workspace(self, workspace: Workspace) -> dict[str, Any]:
        return {
            "name": workspace.name,
            "credits": workspace.credits,
            "active_lists": self._store.active_batches(workspace),
            "campaigns": [
                {"id": each.id, "name": each.name, "ready": each.built_at is not None} for each in workspace.campaigns
            ],
        }

    @staticmethod
    def _show_list(lead_list: LeadList, now: float) -> dict[str, Any]:
        return {
            **show_list_details(lead_list, now),
            "workspace": lead_list.workspace.name,
            "endpoint": lead_list.endpoint,
            "leads": len(lead_list.leads),
            "visible": now >= lead_list.visible_at,
        }

    async def requests(self, _request: Request) -> Response:
        """GET /requests: what arrived, in order."""
        with self._store.changed:
            return JSONResponse({"requests": [asdict(each) for each in self._store.requests]})

    async def faults(self, request: Request) -> Response:
        """GET, POST or DELETE /faults."""
        if request.method == "POST":
            body = await _body(request)
            try:
                fault = self._store.add_fault(make_fault(**body))
            except (TypeError, ValueError) as problem:
                raise ApiError(400, str(problem)) from None
            return JSONResponse(fault.as_json(), status_code=201)
        with self._store.changed:
            if request.method == "DELETE":
                self._store.faults.clear()
            return JSONResponse({"faults": [fault.as_json() for fault in self._store.faults]})

    async def change_list(self, request: Request) -> Response:
        """POST /lists/{list_id} with a status, a name or both."""
        body = await _body(request)
        list_id = request.path_params["list_id"]
        if not body or set(body) - {"status", "name"} or not all(isinstance(each, str) for each in body.values()):
            raise ApiError(400, "The body must hold status, name or both, as strings.")
        with self._store.changed:
            if list_id not in self._store.lists:
                raise ApiError(404, "List not found.")
            if "status" in body:
                self._store.force(list_id, body["status"])
            if "name" in body:
                self._store.rename(list_id, body["name"])
            return JSONResponse(self._show_list(self._store.lists[list_id], self._store.clock()))

    async def built(self, request: Request) -> Response:
        """POST /campaigns/{campaign_id}/built: the campaign is set up now."""
        campaign_id = request.path_params["campaign_id"]
        self._store.finish_building(campaign_id)
        return JSONResponse({"id": campaign_id, "ready": True})

    async def reset(self, _request: Request) -> Response:
        """POST /reset: back to the start."""
        self._store.reset()
        return JSONResponse({"reset": True})


def _guard(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        _refuse_other_machines(request)
        return await handler(request)

    return guarded


async def _body(request: Request) -> dict[str, Any]:
    return validation.json_object(await request.body(), request.headers.get("content-type", ""))

"""The endpoints of the API, one method each: first the error responses, at the end the right one."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from machfive_provider.sandbox import validation
from machfive_provider.sandbox.broken_responses import pause
from machfive_provider.sandbox.exports import export_csv, export_json, show_lead
from machfive_provider.sandbox.faults import endpoint_of, request_text
from machfive_provider.sandbox.model import STATUSES, LeadList, Signature, Workspace, iso, make_uuid
from machfive_provider.sandbox.oddities import ODD_ENTRIES
from machfive_provider.sandbox.store import Store
from machfive_provider.sandbox.validation import ApiError

_AUTH_HELP = "Send Authorization: Bearer <key> or X-API-Key: <key>."


def key_of(headers: Mapping[str, str]) -> str:
    """Read the API key of a request, "" for none; the Authorization header is preferred."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip()


def show_list(lead_list: LeadList, now: float) -> dict[str, Any]:
    """Show a list as one row of GET /lists."""
    status, since = lead_list.progress(now)
    return {
        "id": lead_list.id,
        "campaign_id": lead_list.campaign.id,
        "custom_name": lead_list.name,
        "processing_status": status,
        "created_at": iso(lead_list.created_at),
        "completed_at": iso(since) if status == "completed" else None,
    }


def show_list_details(lead_list: LeadList, now: float) -> dict[str, Any]:
    """Show a list as GET /lists/{id} does: what it says depends on its status."""
    status, since = lead_list.progress(now)
    details = show_list(lead_list, now)
    del details["completed_at"]
    details["updated_at"] = iso(since)
    if status == "completed":
        details["leads_count"] = len(lead_list.leads)
        details["emails_created"] = lead_list.emails_created
        details["completed_at"] = iso(since)
    elif status == "failed":
        details["failed_at"] = iso(since)
    return details


class Api:
    """The endpoints over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def campaigns(self, request: Request) -> Response:
        """GET /campaigns."""
        workspace = self._workspace(request)
        query = validation.query_parameters(request.scope["query_string"], ("q", "name"))
        wanted = query.get("q", query.get("name", "")).lower()
        shown = [
            {"id": campaign.id, "name": campaign.name, "created_at": iso(campaign.created_at)}
            for campaign in workspace.campaigns
            if wanted in campaign.name.lower()
        ]
        return JSONResponse({"campaigns": shown})

    async def generate(self, request: Request) -> Response:
        """POST /campaigns/{campaign_id}/generate: the list is there at once, the response when it is written."""
        workspace, lead_list = await self._buy(request)
        settings = self._store.settings
        await pause(lead_list.processing_seconds)
        with self._store.changed:
            # The wait was the event loop's time, the list may live by an injected clock: the response ends both.
            if lead_list.forced is None and not lead_list.ends_failed:
                lead_list.forced = ("completed", max(self._store.clock(), lead_list.created_at))
                self._store.changed.notify_all()
        if lead_list.ends_failed:
            raise ApiError(500, "The sequence could not be written.")
        shown = show_lead(settings.seed, lead_list, lead_list.leads[0]) if lead_list.leads else {"sequence": []}
        written = shown if isinstance(shown, dict) else {}
        return JSONResponse(
            {
                "lead_id": make_uuid(settings.seed, "lead", lead_list.id),
                "list_id": lead_list.id,
                **({"sequence": written["sequence"]} if "sequence" in written else {}),
                "credits_remaining": workspace.credits,
            }
        )

    async def generate_batch(self, request: Request) -> Response:
        """POST /campaigns/{campaign_id}/generate-batch."""
        _, lead_list = await self._buy(request)
        body = {
            "list_id": lead_list.id,
            "status": "processing",
            "message": "Batch accepted. Poll the list for its status.",
            "leads_count": len(lead_list.leads),
        }
        return JSONResponse(body, status_code=202)

    async def lists(self, request: Request) -> Response:
        """GET /lists."""
        workspace = self._workspace(request)
        query = validation.query_parameters(request.scope["query_string"], ("campaign_id", "status", "limit", "offset"))
        limit = validation.whole_number(query, "limit", default=50, least=1, most=100)
        offset = validation.whole_number(query, "offset", default=0, least=0, most=None)
        campaign_id, status = query.get("campaign_id"), query.get("status")
        if campaign_id is not None:
            if not validation.is_uuid(campaign_id):
                raise ApiError(400, "campaign_id must be a UUID.")
            campaign_id = campaign_id.lower()
        if status is not None and status not in STATUSES:
            raise ApiError(400, f"status must be one of: {', '.join(STATUSES)}.")
        with self._store.changed:
            now = self._store.clock()
            found = [
                each
                for each in self._store.visible_lists(workspace)
                if campaign_id in (None, each.campaign.id) and status in (None, each.progress(now)[0])
            ]
            page = [
                ODD_ENTRIES[each.oddity](show_list(each, now)) if each.oddity else show_list(each, now)
                for each in found[offset : offset + limit]
            ]
        return JSONResponse({"lists": page})

    async def list_details(self, request: Request) -> Response:
        """GET /lists/{list_id}."""
        workspace = self._workspace(request)
        validation.query_parameters(request.scope["query_string"], ())
        with self._store.changed:
            lead_list = self._store.lead_list(request.path_params["list_id"], workspace)
            if lead_list.when_polled is not None and lead_list.forced is None:
                self._store.force(lead_list.id, lead_list.when_polled)
            return JSONResponse(show_list_details(lead_list, self._store.clock()))

    async def export(self, request: Request) -> Response:
        """GET /lists/{list_id}/export."""
        workspace = self._workspace(request)
        query = validation.query_parameters(request.scope["query_string"], ("format",))
        form = query.get("format", "csv")
        if form not in ("csv", "json"):
            raise ApiError(400, "format must be csv or json.")
        with self._store.changed:
            lead_list = self._store.lead_list(request.path_params["list_id"], workspace)
            status, _ = lead_list.progress(self._store.clock())
        if status != "completed":
            raise ApiError(409, f"List is not completed: its status is {status}. Poll GET /lists/:id first.")
        seed = self._store.settings.seed
        if form == "json":
            return StreamingResponse(export_json(seed, lead_list), media_type="application/json")
        disposition = f'attachment; filename="MachFive-{lead_list.id}.csv"'
        return StreamingResponse(
            export_csv(seed, lead_list), media_type="text/csv", headers={"Content-Disposition": disposition}
        )

    async def signatures(self, request: Request) -> Response:
        """GET and POST /signatures, in the 2026 edition alone."""
        workspace = self._workspace(request)
        validation.query_parameters(request.scope["query_string"], ())
        if request.method == "GET":
            return JSONResponse({"signatures": [_show_signature(each) for each in workspace.signatures]})
        body = validation.json_object(await request.body(), request.headers.get("content-type", ""))
        saved = self._store.save_signature(workspace, *validation.signature_request(body))
        return JSONResponse(_show_signature(saved), status_code=201)

    async def page(self, request: Request) -> Response:
        """GET /campaigns/{campaign_id}: a page for the browser, so without a key and without lead data."""
        with self._store.changed:
            campaign = self._store.campaign(request.path_params["campaign_id"], None)
            now = self._store.clock()
            lists = [each for each in self._store.visible_lists() if each.campaign is campaign]
            rows = "".join(
                f"<tr><td>{html.escape(each.name or 'unnamed list')}</td>"
                f"<td>{html.escape(each.progress(now)[0])}</td><td>{len(each.leads)}</td></tr>"
                for each in lists
            )
        title = html.escape(campaign.name)
        return HTMLResponse(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>'
            f"<p>MachFive sandbox: {len(lists)} lists.</p>"
            f"<table><tr><th>List</th><th>Status</th><th>Leads</th></tr>{rows}</table></html>"
        )

    def _workspace(self, request: Request) -> Workspace:
        key = key_of(request.headers)
        if not key:
            raise ApiError(401, f"Missing API key. {_AUTH_HELP}")
        workspace = self._store.workspace_of_key(key)
        if workspace is None:
            raise ApiError(401, "Invalid API key.")
        return workspace

    async def _buy(self, request: Request) -> tuple[Workspace, LeadList]:
        workspace = self._workspace(request)
        validation.query_parameters(request.scope["query_string"], ())
        campaign = self._store.campaign(request.path_params["campaign_id"], workspace)
        raw = await request.body()
        body = validation.json_object(raw, request.headers.get("content-type", ""))
        endpoint = endpoint_of(request.url.path)
        wanted = validation.generate_request(
            body, generation=self._store.settings.generation, batch=endpoint == "generate-batch"
        )
        text = request_text(request.url.path, raw)
        return workspace, self._store.buy(workspace, campaign, wanted, endpoint, text)


def _show_signature(signature: Signature) -> dict[str, str]:
    return {
        "id": signature.id,
        "name": signature.name,
        "signature": signature.signature,
        "created_at": iso(signature.created_at),
    }

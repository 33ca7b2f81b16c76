"""Answers the requests of the page. Airflow's login guards each of them; the API key never leaves this process."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pendulum
from airflow.api_fastapi.core_api.security import get_user
from airflow.providers.common.compat.sdk import conf
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles

from machfive_provider.exceptions import MachFiveError
from machfive_provider.ui import table
from machfive_provider.ui.access import Viewer, visible
from machfive_provider.ui.html import render
from machfive_provider.ui.preview import first_leads
from machfive_provider.ui.rows import Row, join
from machfive_provider.ui.snapshot import Snapshot, Snapshots
from machfive_provider.ui.tasks import Tasks

__all__ = ["app"]

log = logging.getLogger(__name__)

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_WRITTEN = ("completed", "undelivered")  # states of a row whose emails are written

_User = Annotated[Any, Depends(get_user)]

app = FastAPI(title="MachFive", openapi_url=None, docs_url=None, redoc_url=None)
snapshots, tasks = Snapshots(), Tasks()


@app.middleware("http")
async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    if "/static/" in request.url.path:
        response.headers["Cache-Control"] = "max-age=300"
    return response


@app.exception_handler(HTTPException)
async def _explain(_: Request, error: HTTPException) -> Response:
    return HTMLResponse(render("refused.html", status=error.status_code, reason=error.detail), error.status_code)


class _View:
    """What one request shows: the rows of a connection that its viewer may see."""

    def __init__(self, user: Any, request: Request) -> None:
        self.now = pendulum.now("UTC")
        self.query = table.Query.parse(request.query_params)
        self.viewer = Viewer.of(user, tasks)
        self.conn_ids = self.viewer.connections
        self.conn_id = self.query.conn or self._conn_id_of_row() or next(iter(self.conn_ids), "")
        if self.conn_id and self.conn_id not in self.conn_ids:
            raise HTTPException(403, "You may not see this connection, or there is none of this name.")
        self.snapshot = snapshots.read(self.conn_id, self.query.read) if self.conn_id else Snapshot()
        mine = [task for task in self.viewer.tasks if task.told.get("conn_id") == self.conn_id]
        self.rows = visible(
            join(self.snapshot.lists.values(), mine, self.snapshot.campaigns, self.now), self.viewer, self.conn_id
        )

    def _conn_id_of_row(self) -> str | None:
        """Return the connection of the task that the button in Airflow names: it does not know the connection."""
        told = (task.told for task in self.viewer.tasks if task.key == self.query.row)
        return next((each["conn_id"] for each in told if each.get("conn_id")), None)

    def row(self) -> Row:
        """Return the row whose details are asked for: by its own key, or by a task that it concerns."""
        key = self.query.row
        for row in self.rows:
            if key == row.key or any(key == task.key for task in row.tasks):
                return row
        raise HTTPException(404, "There is no such list or task here, or you may not see it.")

    def shown(self) -> dict[str, Any]:
        """Return what the templates show."""
        found = table.matching(self.rows, self.query, self.now)
        page, number, pages = table.page_of(found, self.query)
        return {
            "view": self,
            "query": self.query,
            "now": self.now,
            "found": found,
            "page": page,
            "number": number,
            "pages": pages,
            "tiles": table.tiles(self.rows, self.query, self.now),
            "days": table.leads_per_day(self.rows, self.now, whole=not self.snapshot.has_older),
            "campaigns": sorted({each for row in self.rows if (each := row.campaign or row.campaign_id)}),
            "dags": sorted({task.dag_id for row in self.rows for task in row.tasks}),
            "stuck": sum(row.stuck for row in self.rows),
        }


def _view(user: _User, request: Request) -> _View:
    return _View(user, request)


View = Annotated[_View, Depends(_view)]


@app.get("/")
def _page(view: View) -> Response:
    """Return the whole page."""
    if not view.query.row:
        return HTMLResponse(render("page.html", **view.shown()))
    try:
        row = view.row()
    except HTTPException as error:
        return HTMLResponse(render("page.html", **view.shown(), unknown_row=error.detail))
    return HTMLResponse(render("page.html", **view.shown(), **_detail_values(view, row)))


@app.get("/content")
def _content(view: View) -> Response:
    """Return the part of the page that is refreshed."""
    return HTMLResponse(render("content.html", **view.shown()))


@app.post("/refresh")
def _refresh(view: View) -> Response:
    """Have MachFive read again at the next request, at most once a second."""
    snapshots.forget(view.conn_id)
    return Response(status_code=204)


@app.get("/row")
def _details(view: View) -> Response:
    """Return the details of one row."""
    row = view.row()
    return HTMLResponse(render("row.html", **view.shown(), **_detail_values(view, row)))


@app.get("/lists.csv")
def _download(view: View) -> Response:
    """Return all rows that the filters let through, as CSV."""
    text = table.as_csv(table.matching(view.rows, view.query, view.now))
    headers = {"Content-Disposition": 'attachment; filename="machfive-lists.csv"'}
    return PlainTextResponse(text, media_type="text/csv; charset=utf-8", headers=headers)


@app.get("/preview")
def _preview(view: View) -> Response:
    """Return the first three leads' emails of a completed list: personal data, off unless switched on."""
    if not _preview_is_on():
        raise HTTPException(404, "The preview is switched off: [machfive] ui_preview = True switches it on.")
    row = view.row()
    if row.list_id is None or row.status not in _WRITTEN:
        raise HTTPException(409, "Only a completed list has emails to show.")
    if not view.viewer.may_preview(row):
        raise HTTPException(403, "You may not read the XComs of the DAG that this list belongs to.")
    log.info("MachFive preview of list %s, by user %s", row.list_id, view.viewer.user.get_name())
    try:
        leads = first_leads(view.conn_id, row.list_id)
    except MachFiveError as error:
        raise HTTPException(502, str(error)) from error
    return HTMLResponse(render("preview.html", leads=leads))


def _detail_values(view: _View, row: Row) -> dict[str, Any]:
    may_preview = _preview_is_on() and row.status in _WRITTEN and view.viewer.may_preview(row)
    return {"row": row, "may_preview": may_preview}


def _preview_is_on() -> bool:
    return bool(conf.getboolean("machfive", "ui_preview", fallback=False))


app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")

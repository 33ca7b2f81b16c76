"""What the page shows of the rows: filters, order, one page of them, the figures in the tiles. Pure."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from machfive_provider.formatting import counted, for_spreadsheets
from machfive_provider.ui.rows import Row
from machfive_provider.ui.words import STATUSES

__all__ = ["PAGE_SIZE", "SORTS", "Query", "Tile", "as_csv", "leads_per_day", "matching", "page_of", "tiles"]

PAGE_SIZE = 50
_PERIODS = {"24h": "in 24 h", "today": "today", "month": "this month"}
_CSV_HEADER = """list_id name status campaign created_at ended_at leads emails credits origin
    missing missing_path problem what_to_do request_id task run_id"""

SORTS = {
    "name": lambda row: row.name.lower(),
    "status": lambda row: (list(STATUSES).index(row.status), row.position or 0),
    "campaign": lambda row: (row.campaign or row.campaign_id or "").lower(),
    "created": lambda row: row.created_at.timestamp() if row.created_at else 0.0,
    "time": lambda row: row.seconds if row.seconds is not None else -1.0,
    "leads": lambda row: row.leads if row.leads is not None else -1,
    "emails": lambda row: row.emails if row.emails is not None else -1,
    "credits": lambda row: row.credits if row.credits is not None else -1,
}


@dataclass(frozen=True, slots=True)
class Query:
    """What the user asked to see. All of it stands in the URL.

    :param conn: the connection; empty for the first that the user may see
    :param status: a key of ``STATUSES``, ``stuck``, or empty for all
    :param by: ``airflow``, ``elsewhere``, or empty for both
    :param since: ``24h``, ``today``, ``month`` (UTC) or empty
    :param sort: a key of ``SORTS``, with ``-`` before it for descending
    :param page: from 1
    :param read: pages of a hundred lists to read from MachFive at least
    :param row: the key of the row whose details are shown
    """

    conn: str = ""
    status: str = ""
    campaign: str = ""
    dag: str = ""
    by: str = ""
    since: str = ""
    q: str = ""
    sort: str = "-created"
    page: int = 1
    read: int = 10
    row: str = ""

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Query:
        """Read a URL's parameters; what makes no sense counts as not given."""
        texts = {name: parameters.get(name, "").strip()[:200] for name in ("conn", "campaign", "dag", "q", "row")}
        status, sort = parameters.get("status", ""), parameters.get("sort", "")
        return cls(
            **texts,
            status=status if status in STATUSES or status == "stuck" else "",
            by=by if (by := parameters.get("by", "")) in ("airflow", "elsewhere") else "",
            since=since if (since := parameters.get("since", "")) in _PERIODS else "",
            sort=sort if sort.removeprefix("-") in SORTS else "-created",
            page=_number(parameters.get("page"), 1, 10_000),
            read=_number(parameters.get("read"), 10, 50),
        )

    def url(self, **changes: Any) -> str:
        """Return the query string of this query with some changes; other filters begin at page 1 again."""
        changed = replace(self, **{"page": 1, **changes})
        default = asdict(Query())
        return "?" + urlencode({name: value for name, value in asdict(changed).items() if value != default[name]})

    @property
    def url_of_all(self) -> str:
        """The query string without filters."""
        return Query(conn=self.conn).url()

    @property
    def period(self) -> str:
        """The period in words."""
        return _PERIODS.get(self.since, "")


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure that is also a filter.

    :param note: what the figure leaves out, empty if nothing
    """

    label: str
    value: int
    url: str
    active: bool
    note: str = ""


def matching(rows: Iterable[Row], query: Query, now: datetime) -> list[Row]:
    """Return the rows that the query asks for, in its order; rows of equal rank keep one order."""
    kept = [row for row in rows if _matches(row, query, now)]
    kept.sort(key=lambda row: row.key)
    kept.sort(key=SORTS[query.sort.removeprefix("-")], reverse=query.sort.startswith("-"))
    return kept


def page_of(rows: Sequence[Row], query: Query) -> tuple[Sequence[Row], int, int]:
    """Return one page of the rows, its number, and how many pages there are."""
    pages = max(1, -(-len(rows) // PAGE_SIZE))
    number = min(query.page, pages)
    return rows[(number - 1) * PAGE_SIZE : number * PAGE_SIZE], number, pages


def tiles(rows: Sequence[Row], query: Query, now: datetime) -> list[Tile]:
    """Return the figures above the table. They count all rows of the connection, whatever else is filtered."""
    plain = Query(conn=query.conn, read=query.read, sort=query.sort)
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("Running", {"status": "running"}),
        # In the order of their places in the queue.
        ("Waiting for room", {"status": "waiting", "sort": "status"}),
        ("Failed in 24 h", {"status": "failed", "since": "24h"}),
        ("Completed in 24 h", {"status": "completed", "since": "24h"}),
    ]
    shown = []
    for label, filters in wanted:
        wants = replace(plain, **filters)
        count = sum(_matches(row, wants, now) for row in rows)
        shown.append(_tile(label, count, plain, filters, query))
    for label, since in (("Credits today", "today"), ("Credits this month", "month")):
        filters = {"by": "airflow", "since": since}
        wants = replace(plain, **filters)
        lists = [row for row in rows if row.list_id and _matches(row, wants, now)]
        unknown = sum(row.credits is None for row in lists)
        note = f"at least: {counted(unknown, 'list')} of unknown cost" if unknown else "bought by Airflow"
        shown.append(_tile(label, sum(row.credits or 0 for row in lists), plain, filters, query, note))
    return shown


def leads_per_day(
    rows: Sequence[Row], now: datetime, *, whole: bool = True, days: int = 14
) -> list[tuple[str, int | None]]:
    """Return how many leads were submitted on each day (UTC), the oldest first; None where that is not known.

    :param whole: whether all lists were read; otherwise nothing is known of the days up to that of the oldest one
    """
    counted: Counter[str] = Counter()
    unknown = set()
    for row in rows:
        if row.created_at and row.list_id:
            day = row.created_at.date().isoformat()
            counted[day] += row.leads or 0
            unknown |= {day} if row.leads is None else set()
    wanted = [(now - timedelta(days=back)).date().isoformat() for back in range(days - 1, -1, -1)]
    oldest = min((row.created_at for row in rows if row.created_at and row.list_id), default=now).date().isoformat()
    return [(day, counted[day] or (None if day in unknown else 0) if whole or day > oldest else None) for day in wanted]


def as_csv(rows: Iterable[Row]) -> str:
    """Return the rows as CSV. A cell that a spreadsheet would calculate begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_CSV_HEADER.split())
    for row in rows:
        cells = [
            *(row.list_id, row.name, row.status, row.campaign or row.campaign_id, row.created_at, row.ended_at),
            *(row.leads, row.emails, row.credits, row.how, row.export.get("missing")),
            *(row.export.get("missing_path"), row.error.get("message"), row.error.get("remedy")),
            *(row.error.get("request_id"), row.tasks[0].title if row.tasks else None),
            row.tasks[0].run_id if row.tasks else None,
        ]
        writer.writerow(["" if cell is None else for_spreadsheets(str(cell)) for cell in cells])
    return out.getvalue()


def _tile(label: str, value: int, plain: Query, filters: dict[str, Any], query: Query, note: str = "") -> Tile:
    active = all(getattr(query, name) == wanted for name, wanted in filters.items())
    # A tile that is active takes its filter away again.
    return Tile(label, value, plain.url(**({} if active else filters)), active, note)


def _matches(row: Row, query: Query, now: datetime) -> bool:
    if query.status and query.status not in _statuses(row):
        return False
    if query.campaign and query.campaign not in (row.campaign_id, row.campaign):
        return False
    if query.dag and query.dag not in {task.dag_id for task in row.tasks}:
        return False
    if query.by and (row.how == "made elsewhere") == (query.by == "airflow"):
        return False
    if query.since and not _is_within(row, query, now):
        return False
    return not query.q or query.q.lower() in _text(row)


def _statuses(row: Row) -> set[str]:
    """Return the values of the filter that let the row through: who asks for what failed means the tasks too."""
    also = {"failed"} if row.status == "undelivered" else set()
    return {row.status, *also, *(("stuck",) if row.stuck else ())}


def _is_within(row: Row, query: Query, now: datetime) -> bool:
    """Whether the row is of the period: by its end in the tiles of ended lists, by its creation where cost is meant."""
    moment = row.ended_at or row.created_at if query.status in ("completed", "failed") else row.created_at
    start = {
        "24h": now - timedelta(hours=24),
        "today": now.replace(hour=0, minute=0, second=0, microsecond=0),
        "month": now.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
    }[query.since]
    return moment is not None and moment >= start


def _text(row: Row) -> str:
    tasks = " ".join(f"{task.title} {task.run_id}" for task in row.tasks)
    ids = f"{row.key} {row.campaign_id} {row.error.get('request_id', '')}"
    return f"{row.name} {ids} {row.campaign} {row.error.get('message', '')} {tasks}".lower()


def _number(text: str | None, least: int, most: int) -> int:
    return min(max(int(text), least), most) if text and text.isascii() and text.isdigit() and len(text) < 9 else least

"""Selects lists of a workspace, shows them, and keeps the table up to date while somebody watches."""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import pendulum

from machfive_provider.api.models import RUNNING, LeadList
from machfive_provider.api.protocol import check_uuid
from machfive_provider.cli import output
from machfive_provider.cli.connection import open_hook
from machfive_provider.exceptions import ConfigurationError, MachFiveTransientError
from machfive_provider.formatting import counted, duration
from machfive_provider.purchase.tag import is_tagged, without_tag
from machfive_provider.waiting.decision import SHORTEST_INTERVAL

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["FIELDS", "Selection", "campaign_names", "iso", "lists", "row", "select", "since", "watch"]

FIELDS = (
    *("id", "status", "name", "list_name", "by_airflow", "campaign_id", "campaign"),
    *("created_at", "completed_at", "failed_at"),
)
"""What JSON and CSV show of a list: ``name`` is without the tag, ``list_name`` is all of it."""

_COLUMNS = {
    "LIST ID": "id",
    "STATUS": "status",
    "AGE": "age",
    "TOOK": "took",
    "NAME": "name",
    "CAMPAIGN": "campaign",
}
_NONE = "No lists found."
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lists are wanted; None is any.

    :param status: a ``processing_status``, or ``running`` for pending and processing
    :param text: a part of the name, in any case
    :param since: the time before which none was created
    :param limit: so many at most
    """

    campaign_id: str | None = None
    status: str | None = None
    text: str | None = None
    since: pendulum.DateTime | None = None
    limit: int = 20


def lists(args: Namespace) -> int:
    """Show lists, once or until Ctrl+C."""
    _check_usage(args)
    oldest = since(args.since)
    with open_hook(args) as hook:
        names = campaign_names(hook)
        chosen = Selection(_campaign_id(hook, args.campaign), args.status, args.text, oldest, args.limit)

        def read() -> list[dict[str, Any]]:
            return [row(each, names) for each in select(hook, chosen)]

        if args.watch:
            from rich.console import Console

            watch(read, chosen.limit, Console(highlight=False), args.interval, time.sleep)
            return 0
        rows = read()
    if rows or args.output != "table":
        output.write(rows[: chosen.limit], _COLUMNS, FIELDS, args.output)
    else:
        sys.stdout.write(f"{_NONE}\n")
    if len(rows) > chosen.limit:
        sys.stderr.write(f"{_more(chosen.limit)}\n")
    return 0


def select(hook: MachFiveHook, chosen: Selection) -> list[LeadList]:
    """Return the lists wanted, newest first, and one beyond the limit if there are more."""
    if chosen.status == "running":
        running = [each for status in RUNNING for each in hook.iter_lists(chosen.campaign_id, status)]
        # A list that begins between the two reads is in both.
        by_id = {each.id: each for each in running}
        found = iter(sorted(by_id.values(), key=_created, reverse=True))
    else:
        found = hook.iter_lists(chosen.campaign_id, chosen.status)
    return list(islice(_filtered(found, chosen), chosen.limit + 1))


def _filtered(found: Iterator[LeadList], chosen: Selection) -> Iterator[LeadList]:
    text = (chosen.text or "").casefold()
    for each in found:
        if chosen.since and each.created_at and each.created_at < chosen.since:
            return  # the next ones are older still
        if text in (each.custom_name or "").casefold():
            yield each


def _created(lead_list: LeadList) -> float:
    return lead_list.created_at.timestamp() if lead_list.created_at else 0.0


def row(lead_list: LeadList, names: Mapping[str, str]) -> dict[str, Any]:
    """Return what is shown of a list: ``FIELDS``, and what the table shows.

    :param names: the campaigns' names, by id
    """
    created, completed = lead_list.created_at, lead_list.completed_at
    ended = completed or lead_list.failed_at
    return {
        "id": lead_list.id,
        "status": lead_list.processing_status,
        "name": without_tag(lead_list.custom_name) or None,
        "list_name": lead_list.custom_name,
        "by_airflow": is_tagged(lead_list.custom_name),
        "campaign_id": lead_list.campaign_id,
        "campaign": names.get(lead_list.campaign_id or ""),
        "created_at": iso(created),
        "completed_at": iso(completed),
        "failed_at": iso(lead_list.failed_at),
        "age": _age(created),
        "took": duration((ended - created).total_seconds()) if created and ended else None,
    }


def campaign_names(hook: MachFiveHook) -> dict[str, str]:
    """Return the names of the workspace's campaigns, by id."""
    return {each.id: each.name for each in hook.list_campaigns()}


def iso(moment: pendulum.DateTime | None) -> str | None:
    """Write a time as programs read it."""
    return moment.in_timezone("UTC").to_iso8601_string() if moment else None


def since(text: str | None) -> pendulum.DateTime | None:
    """Return the time that ``--since`` means.

    :param text: ``30m``, ``2h`` or ``7d`` before now, or a date or time, UTC unless it says otherwise
    :raises ConfigurationError: for anything else
    """
    if text is None:
        return None
    if ago := re.fullmatch(r"([0-9]{1,5})([mhd])", text.strip()):
        return pendulum.now("UTC").subtract(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = pendulum.parse(text.strip(), tz="UTC")
    except ValueError:
        moment = None
    if not isinstance(moment, pendulum.DateTime):
        raise ConfigurationError(f"--since is {text!r}; write 30m, 2h, 7d, 2026-11-26 or 2026-11-26T08:30.")
    return moment


def watch(
    read: Callable[[], list[dict[str, Any]]],
    limit: int,
    console: Console,
    interval: float,
    sleep: Callable[[float], None],
) -> None:
    """Show the lists and read them again every ``interval`` seconds, until Ctrl+C.

    A read that fails and may succeed later leaves the last table in place and says so below it.

    :raises MachFiveError: if the first read fails, or one for good
    """
    from rich.console import Group
    from rich.live import Live

    shown, trouble = read(), ""
    at = pendulum.now("UTC")
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                live.update(Group(*_page(shown, limit, at, interval, trouble)), refresh=True)
                sleep(interval)
                try:
                    shown, trouble, at = read(), "", pendulum.now("UTC")
                except MachFiveTransientError as error:
                    trouble = str(error)
        except KeyboardInterrupt:
            return


def _page(
    rows: list[dict[str, Any]], limit: int, at: pendulum.DateTime, interval: float, trouble: str
) -> Iterator[RenderableType]:
    from rich.text import Text

    yield output.table(rows[:limit], _COLUMNS) if rows else Text(_NONE)
    if len(rows) > limit:
        yield Text(_more(limit))
    status = f"Read at {at:%H:%M:%S} UTC, then every {duration(interval)}; Ctrl+C ends."
    yield Text(
        status if not trouble else f"{status} The last update failed: {trouble}", style="red" if trouble else "dim"
    )


def _more(limit: int) -> str:
    return f"There are more than {counted(limit, 'list')}: --limit shows more; --status, --text and --since choose."


def _age(created: pendulum.DateTime | None) -> str | None:
    if created is None:
        return None
    seconds = (pendulum.now("UTC") - created).total_seconds()
    return f"{seconds // 86400:.0f} d" if seconds >= 2 * 86400 else duration(seconds)


def _campaign_id(hook: MachFiveHook, campaign: str | None) -> str | None:
    if campaign is None:
        return None
    with suppress(ConfigurationError):
        return check_uuid("--campaign", campaign)
    return hook.resolve_campaign(campaign).id


def _check_usage(args: Namespace) -> None:
    if args.limit < 1:
        raise ConfigurationError("--limit must be at least 1.")
    if not args.watch:
        return
    if args.output != "table" or not sys.stdout.isatty():
        raise ConfigurationError("--watch draws a table on a terminal: leave out --output, and do not redirect it.")
    if not SHORTEST_INTERVAL <= args.interval <= 86400:
        raise ConfigurationError(f"--interval must be from {SHORTEST_INTERVAL:g} to 86400 seconds.")

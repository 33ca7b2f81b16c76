"""Waits and exports while somebody watches: on the calling thread, with progress on a terminal.

It serves the hook's ``wait_for_list`` and ``export_list``, for notebooks and scripts, and the command line. What polls
mean is decided in ``waiting``, what is written and counted in ``delivery``, as for tasks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.api.protocol import check_uuid
from machfive_provider.api.retries import ONCE
from machfive_provider.delivery import count
from machfive_provider.delivery.destination import Destination
from machfive_provider.delivery.export import write_export
from machfive_provider.delivery.format import ExportFormat, format_for
from machfive_provider.waiting import decision
from machfive_provider.waiting.deferral import check_seconds

if TYPE_CHECKING:
    from rich.progress import Progress

    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["ExportFigures", "ExportFormat", "OnExported", "OnPolled", "export_list", "wait_for_list"]

_INTERVAL = 20.0  # seconds between polls, as for tasks; MachFive asks for 10-30 (docs/api.md, "Endpoints")

OnPolled = Callable[[LeadList], Any]
OnExported = Callable[[count.Figures], Any]


@dataclass(frozen=True, slots=True)
class ExportFigures:
    """What an export holds, compared with the list's own number of leads; None is "not known".

    :param path: the file or object, as given
    :param leads: leads with at least one usable email
    :param emails: usable emails in all
    :param missing: leads that the list counts and the file lacks
    :param extra: leads that the file holds more often than the list counts them
    :param short: leads with an email that lacks its subject or body
    :param odd: leads without an email address
    :param warnings: one line for each of these that is not zero
    """

    path: str
    bytes: int
    leads: int
    emails: int | None
    missing: int | None
    extra: int | None
    short: int | None
    odd: int
    warnings: tuple[str, ...] = ()


def wait_for_list(
    hook: MachFiveHook,
    list_id: str,
    timeout: float | timedelta,
    on_progress: OnPolled | None = None,
    submitted_at: float | None = None,
) -> LeadList:
    """Do what :meth:`MachFiveHook.wait_for_list` says.

    :param submitted_at: epoch seconds of our own submission, None for somebody else's list
    """
    list_id, started_at = check_uuid("list_id", list_id), time.time()
    deadline = started_at + check_seconds("timeout", timeout)
    watch = decision.Watch(list_id, _INTERVAL, started_at, deadline, submitted_at)
    # A poll that fails is counted by the decision and not repeated by the client, as for tasks.
    with type(hook)(hook.machfive_conn_id, ONCE) as polling, _shown_wait(list_id, on_progress) as show:

        def poll(list_id: str) -> LeadList:
            seen = decision.poll_list(polling, list_id)
            show(seen)
            return seen

        ended = decision.wait_for_list(watch, poll, hook.log, time.sleep, time.time)
    if ended.is_failed:
        raise _failed(list_id)
    return ended


def export_list(
    hook: MachFiveHook,
    list_id: str,
    path: str | os.PathLike[str],
    export_format: str | None = None,
    on_progress: OnExported | None = None,
) -> ExportFigures:
    """Do what :meth:`MachFiveHook.export_list` says, but log nothing."""
    form, destination = format_for(path, export_format), Destination(path)
    if form == "parquet":
        from machfive_provider.delivery.parquet import load_pyarrow

        load_pyarrow()
    destination.check(must_be_new=False)
    try:
        lead_list = hook.get_list(list_id)
        if lead_list.is_failed:
            raise _failed(lead_list.id)
        with _shown_export(lead_list, on_progress) as show:
            figures = write_export(hook, lead_list, destination, form, on_progress=show)
    except exceptions.MachFiveError as error:
        error.about(f"List {list_id}")
        raise
    return _compared(lead_list, destination.url, figures)


def _compared(lead_list: LeadList, path: str, figures: count.Figures) -> ExportFigures:
    comparison = count.compare(figures, count.Expected(lead_list.leads_count))
    warnings = count.warnings(figures, comparison, lead_list.id, path)
    if missing := count.missing_message(comparison, lead_list.id, None, "warn"):
        warnings.append(" ".join(missing))
    return ExportFigures(
        path=path,
        bytes=figures.bytes,
        leads=figures.leads,
        emails=figures.emails,
        missing=comparison.missing,
        extra=comparison.extra,
        short=comparison.short,
        odd=len(figures.odd),
        warnings=tuple(warnings),
    )


def _failed(list_id: str) -> exceptions.ListFailedError:
    return exceptions.ListFailedError(f"List {list_id} failed on MachFive's side.")


@contextmanager
def _shown_wait(list_id: str, on_progress: OnPolled | None) -> Iterator[OnPolled]:
    """Give what is called after each poll: the caller's function, or the terminal's spinner."""
    if on_progress or not sys.stderr.isatty():
        yield on_progress or _show_nothing
        return
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    with _progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        shown = bar.add_task(f"Waiting for list {list_id}", total=None)
        yield lambda seen: bar.update(shown, description=f"List {list_id} is {seen.processing_status}")


@contextmanager
def _shown_export(lead_list: LeadList, on_progress: OnExported | None) -> Iterator[OnExported]:
    """Give what is called after each chunk: the caller's function, or the terminal's bar."""
    if on_progress or not sys.stderr.isatty():
        yield on_progress or _show_nothing
        return
    from rich.filesize import decimal
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    total = lead_list.leads_count
    of = "" if total is None else f" of {total}"
    columns = (TextColumn("Exporting"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with _progress(*columns) as bar:
        shown = bar.add_task("", total=total)

        def show(figures: count.Figures) -> None:
            leads = figures.leads
            bar.update(shown, completed=leads, description=f"{leads}{of} leads, {decimal(figures.bytes)}")

        yield show


def _progress(*columns: Any) -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True))


def _show_nothing(_: Any) -> None:
    pass

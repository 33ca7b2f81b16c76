"""Writes results: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from machfive_provider.formatting import for_spreadsheets, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["Columns", "console", "facts", "table", "write", "write_csv", "write_json"]

Columns = Mapping[str, str]
"""Headings of a table, and the key of a row that each shows."""

# Characters: where there is no terminal, and at least. A narrow terminal wraps the lines, so that nothing is lost.
_WIDTH, _LEAST_WIDTH = 200, 110
_CUT = ("name", "campaign")  # columns whose cells are cut if they do not fit
_COLOURS = {"completed": "green", "failed": "red", "pending": "yellow", "processing": "yellow"}


def write(rows: Sequence[Mapping[str, Any]], columns: Columns, fields: Sequence[str], output: str) -> None:
    """Write a listing.

    :param columns: what the table shows
    :param fields: the keys of the rows that JSON and CSV show
    :param output: ``table``, ``json`` or ``csv``
    """
    if output == "table":
        console().print(table(rows, columns))
    elif output == "json":
        write_json([{name: row[name] for name in fields} for row in rows])
    else:
        write_csv(rows, fields)


def table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> Table:
    """Return the table of a listing; ids and times stay whole where a terminal is narrow, names are cut."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading, key in columns.items():
        # Where the terminal is narrow, rich first makes those columns narrower whose lines may be wrapped.
        made.add_column(heading, no_wrap=key not in _CUT)
    for row in rows:
        made.add_row(*(_cell(row.get(key), cut=key in _CUT) for key in columns.values()))
    return made


def facts(pairs: Mapping[str, Any]) -> None:
    """Write what is known of one thing, a line each; what is None is left out."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(no_wrap=True, style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            made.add_row(name, _cell(value))
    console().print(made)


def write_json(value: Any) -> None:
    """Write a result as JSON."""
    sys.stdout.write(f"{json.dumps(value, indent=2, ensure_ascii=False)}\n")


def write_csv(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> None:
    """Write rows as CSV, with a header; a cell that a spreadsheet would take for a formula gets an apostrophe."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow("" if row[name] is None else _harmless(row[name]) for name in fields)


def console() -> Console:
    """Return the console of standard output."""
    from rich.console import Console

    width = max(_LEAST_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _WIDTH
    return Console(width=width, highlight=False)


def _cell(value: Any, *, cut: bool = False) -> Text:
    from rich.text import Text

    text = "-" if value is None else one_line(str(value))
    return Text(text, _COLOURS.get(text, ""), overflow="ellipsis" if cut else "fold", no_wrap=cut)


def _harmless(value: Any) -> Any:
    return for_spreadsheets(value) if isinstance(value, str) else value

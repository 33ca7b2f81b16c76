"""Rows of CSV files and worksheets: which delimiter, where the header is, what belongs to each row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from machfive_provider.exceptions import InvalidLeadsError
from machfive_provider.leads.columns import Columns
from machfive_provider.leads.rows import Row
from machfive_provider.leads.values import NotTextError, is_filled, text_of

__all__ = ["csv_rows", "sheet_rows"]

DELIMITERS = ",;\t|"
_HEADER_WITHIN = 20  # records; above a header stand a few lines of titles and notes, if any
_LARGEST_CELL = 2**31 - 1  # characters; Python's csv refuses more than 131,072 unless told so
_SEP_LINE = re.compile(r'"?sep=(.)"?[;,\t]*\s*', re.IGNORECASE)  # Excel's own way to name the delimiter

_Record = tuple[int, list[Any], str | None]
"""Its first line, its cells, and why it cannot be read."""


def csv_rows(lines: Iterable[str], head: str, source: str, columns: Columns, *, tabs: bool) -> Iterator[Row]:
    """Yield the rows below the header.

    :param lines: of the whole file
    :param head: the first lines, from which delimiter and header are found
    :param tabs: whether the file's name speaks for tabs
    :raises InvalidLeadsError: if there is no header, or a quote that is never closed
    """
    csv.field_size_limit(_LARGEST_CELL)
    delimiter = _delimiter(head, columns, tabs=tabs)
    first_records = _filled(_csv_records(io.StringIO(head, newline=""), delimiter, None))
    header = _find_header(first_records, columns)
    yield from _rows(_csv_records(lines, delimiter, source), header, "line {}", source, columns)


def sheet_rows(records: Iterable[Sequence[Any]], first: int, source: str, columns: Columns) -> Iterator[Row]:
    """Yield the rows below the header of a worksheet.

    :param first: the number of its first row
    """
    numbered = [(number, list(cells), None) for number, cells in enumerate(records, first)]
    header = _find_header(_filled(numbered), columns)
    yield from _rows(numbered, header, "row {}", source, columns)


def _rows(
    records: Iterable[_Record], header: tuple[int, list[str]] | None, at: str, source: str, columns: Columns
) -> Iterator[Row]:
    if header is None:
        return
    began, names = header
    _check_header(names, at.format(began), source, columns)
    width = len(names)
    for number, cells, problem in records:
        if number > began and (problem or any(map(is_filled, cells))):
            if len(cells) > width:
                problem = problem or _surplus(cells, width)  # noqa: PLW2901
            yield Row(at, number, dict(zip(names, cells, strict=False)), problem)


def _surplus(cells: Sequence[Any], width: int) -> str | None:
    if not any(map(is_filled, cells[width:])):
        return None
    return f"has {len(cells)} cells under {width} columns; a cell that holds the delimiter needs quotes"


def _check_header(names: list[str], where: str, source: str, columns: Columns) -> None:
    if not columns.is_header(names) and any(map(_is_data, names)):
        raise InvalidLeadsError(
            f"{source} has no header: its first line ({where}) holds an email address, a web address or a number. Put "
            "the column names there."
        )
    columns.check_repeated(names, source)
    columns.choice(tuple(dict.fromkeys(names)))  # so that its columns are known even if no row follows


def _find_header(records: Iterable[_Record], columns: Columns) -> tuple[int, list[str]] | None:
    """Return the first record that names a column of email addresses, else the first with several cells."""
    first = list(islice(records, _HEADER_WITHIN))
    candidates = [(number, [_name(cell) for cell in cells]) for number, cells, _ in first]
    found = next((each for each in candidates if columns.is_header(each[1])), None)
    several = next((each for each in candidates if sum(map(bool, each[1])) > 1), None)
    return found or several or next(iter(candidates), None)


def _delimiter(head: str, columns: Columns, *, tabs: bool) -> str:
    """Return the delimiter under which a header is found with most columns, else the one of most cells at the top."""
    first_line = head.lstrip("\ufeff\r\n\t ").partition("\n")[0].partition("\r")[0]
    if declared := _SEP_LINE.fullmatch(first_line):
        return declared[1]
    found: dict[str, tuple[bool, int]] = {}
    for delimiter in ("\t", ",", ";", "|") if tabs else DELIMITERS:
        records = _filled(_csv_records(io.StringIO(head, newline=""), delimiter, None))
        header = _find_header(records, columns)
        cells = header[1] if header else []
        found[delimiter] = (columns.is_header(cells), len(cells))
    if tabs and not any(is_header for is_header, _ in found.values()):
        return "\t"
    return max(found, key=found.__getitem__)


def _csv_records(lines: Iterable[str], delimiter: str, source: str | None) -> Iterator[_Record]:
    """Yield the records with the lines in which they begin; blank lines too.

    :param source: what to call the file in messages; None for its first lines alone, whose end may be cut off
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            for cells in reader:
                yield number, cells, None
                number = reader.line_num + 1
            return
        except csv.Error as error:
            if "end of data" not in str(error):
                yield number, [], f"is not CSV ({error}); check its quotes"
            elif source is None:
                return
            else:
                raise InvalidLeadsError(
                    f"{source}, line {number}, opens a quote that is never closed. Check the quotes there."
                ) from None


def _filled(records: Iterable[_Record]) -> Iterator[_Record]:
    return (each for each in records if any(map(is_filled, each[1])))


def _name(cell: Any) -> str:
    try:
        return text_of(cell)
    except NotTextError:
        return str(cell)


def _is_data(cell: str) -> bool:
    return "@" in cell or "://" in cell or (any(map(str.isdecimal, cell)) and not any(map(str.isalpha, cell)))

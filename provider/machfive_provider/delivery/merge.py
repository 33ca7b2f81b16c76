"""Makes one result of the exports of several lists, and one file of their missing leads."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from machfive_provider.api.models import address_digest
from machfive_provider.delivery import shapes
from machfive_provider.delivery.destination import Destination, Writer
from machfive_provider.delivery.export import BOM, EMAIL, kept_leads, lines_of
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import absolute

__all__ = ["merge_missing", "merge_results", "part_format"]

_CHUNK = 65536  # bytes
_LARGEST_CELL = 2**31 - 1  # characters; Python's csv refuses more than 131,072 unless told so


def part_format(export_format: str, shape: str) -> str:
    """Return the format in which to export each list, so that its file can become part of such a result.

    MachFive's own csv is no JSON written in another way: its columns are undocumented.
    """
    return "csv" if (export_format, shape) == ("csv", "api") else "jsonl"


def merge_results(
    parts: Sequence[tuple[str, str]],
    destination: Destination,
    export_format: str,
    *,
    shape: str = "api",
    escape_formulas: bool = False,
    is_suppressed: Callable[[str], bool] | None = None,
) -> int:
    """Write the exports of several lists as one, in their order; return how many leads were left out as suppressed.

    :param parts: the id of each list and the path of its export, in the format ``part_format`` and the shape ``api``
    :param export_format, shape, escape_formulas: of the result, as for ``write_export``
    :param is_suppressed: whether an address must not be written to; nobody by default
    :raises ConfigurationError: if a part cannot be read; the destination stays as it was
    """
    suppressed: set[int] = set()
    with destination.open() as writer:
        if part_format(export_format, shape) == "csv":
            tables = [_Table(path, suppressed, is_suppressed) for _, path in parts]
            _write_tables(tables, writer, escape_formulas=escape_formulas)
            return len(suppressed)
        lists = ((list_id, kept_leads(_leads(path), suppressed, is_suppressed)) for list_id, path in parts)
        if export_format == "parquet":
            from machfive_provider.delivery.parquet import write_parquet

            write_parquet((row for list_id, leads in lists for row in shapes.email_rows(list_id, leads)), writer)
            return len(suppressed)
        leads = chain.from_iterable(leads for _, leads in lists)
        if export_format == "csv":
            shapes.write_flat_csv(leads, writer, escape_formulas=escape_formulas)
        elif export_format == "json":
            shapes.write_json(leads, writer)
        else:
            shapes.write_lines(map(shapes.flat, leads) if shape == "flat" else leads, writer)
    return len(suppressed)


def merge_missing(paths: Sequence[str], destination: Destination) -> str | None:
    """Write files of missing leads as one beside a result; return its path or URL.

    Without any, the file of an earlier attempt is removed: submitting it would pay again for leads that are there.

    :param destination: of the result
    """
    beside = destination.for_missing_leads()
    if not paths:
        beside.remove()
        return None
    with beside.open() as writer:
        _write_tables([_Table(path) for path in paths], writer, escape_formulas=False)
    return beside.url


class _Table:
    """A csv that is read more than once.

    :param suppressed: here the digests of leads that are left out are put
    """

    def __init__(
        self, path: str, suppressed: set[int] | None = None, is_suppressed: Callable[[str], bool] | None = None
    ) -> None:
        self._path, self._is_suppressed = path, is_suppressed
        self._suppressed: set[int] = set() if suppressed is None else suppressed
        self.has_bom = False
        self.columns: list[tuple[str, int]] = []  # the second column of a name is another column
        seen: Counter[str] = Counter()
        for name in next(self._records(), []):
            seen[name] += 1
            self.columns.append((name, seen[name]))

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows below the header, without those of suppressed leads."""
        records = self._records()
        next(records, None)
        for row in records:
            addresses = [cell.strip() for cell in row if EMAIL.fullmatch(cell.strip())] if self._is_suppressed else []
            found = [address_digest(each) for each in addresses if self._is_suppressed and self._is_suppressed(each)]
            self._suppressed.update(found)
            if not found:
                yield row

    def _records(self) -> Iterator[list[str]]:
        csv.field_size_limit(_LARGEST_CELL)
        try:
            lines = lines_of(_chunks(self._path))
            first = next(lines, "")
            self.has_bom = first.startswith(BOM)
            yield from filter(None, csv.reader(chain([first.removeprefix(BOM)], lines)))
        except csv.Error as error:
            raise _unreadable(self._path, error) from error


def _write_tables(tables: Sequence[_Table], writer: Writer, *, escape_formulas: bool) -> None:
    """Write tables below one header, which has the columns of all of them."""
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    if any(table.has_bom for table in tables):
        writer.write(BOM.encode())  # Excel takes a csv without it for another encoding
    rows = chain.from_iterable(_in_order(table, columns) for table in tables)
    for _ in shapes.written(chain([[name for name, _ in columns]], rows), writer, escape_formulas=escape_formulas):
        pass


def _in_order(table: _Table, columns: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """Yield the rows of a table with their cells in the order of these columns."""
    if table.columns == columns:
        yield from table.rows()
        return
    width = len(table.columns)
    for row in table.rows():
        cells = dict(zip(table.columns, row, strict=False))
        yield [*(cells.get(column, "") for column in columns), *row[width:]]


def _leads(path: str) -> Iterator[Any]:
    """Yield the leads of an export in jsonl."""
    try:
        yield from (json.loads(line) for line in lines_of(_chunks(path)) if line.strip())
    except (ValueError, csv.Error) as error:
        raise _unreadable(path, error) from error


def _chunks(path: str) -> Iterable[bytes]:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        with ObjectStoragePath(absolute(path)).open("rb") as file:  # type: ignore[no-untyped-call]
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{path!r}, the export of one of the lists, cannot be read ({type(error).__name__}: {error}). MachFive has the "
        "emails. Clear the tasks that export: they write the file again and pay nothing."
    )

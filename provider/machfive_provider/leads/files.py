"""Reads files of leads: CSV and TSV with any common delimiter and encoding, JSON, JSON lines."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from machfive_provider.exceptions import InvalidLeadsError
from machfive_provider.formatting import absolute

__all__ = ["SUFFIXES", "Row", "parse_json_leads", "read_file"]

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_DELIMITERS = ",;\t|"


class Row(NamedTuple):
    """One lead as read.

    :param position: where it is in the source, for messages
    :param fields: its fields under the source's own names
    :param problem: why its fields cannot be read, None if they can
    """

    position: str
    fields: Any
    problem: str | None = None


def read_file(path: str) -> list[Row]:
    """Read a file anywhere ObjectStoragePath reaches.

    :param path: a path or URL ending in .csv, .tsv, .json, .jsonl or .ndjson
    :raises InvalidLeadsError: if it cannot be read or is not what its name says
    """
    suffix = next((each for each in SUFFIXES if path.lower().endswith(each)), None)
    if suffix is None:
        raise InvalidLeadsError(f"leads_path {path!r} has an unknown ending: use one of {', '.join(SUFFIXES)}.")
    text = _decode(path, _read_bytes(path))
    if suffix == ".json":
        return parse_json_leads(text, f"leads_path {path!r}")
    if suffix in (".jsonl", ".ndjson"):
        return list(_json_lines(text, path))
    return list(_csv_rows(text, path, "\t" if suffix == ".tsv" else _delimiter(text)))


def _read_bytes(path: str) -> bytes:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        content: bytes = ObjectStoragePath(absolute(path)).read_bytes()
    except Exception as error:
        raise InvalidLeadsError(
            f"leads_path {path!r} cannot be read ({type(error).__name__}: {error}). Check the path as the worker sees "
            "it, and the connection it names."
        ) from error
    return content


def _decode(path: str, content: bytes) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidLeadsError(
            f"leads_path {path!r} is not UTF-8 text (byte {error.start + 1}). Save it as UTF-8 (in Excel: 'CSV UTF-8')."
        ) from None


def parse_json_leads(text: str, where: str) -> list[Row]:
    """Read a JSON array of leads, or an object that holds one under ``leads``.

    :param where: what to call the source in messages
    :raises InvalidLeadsError: for anything else
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidLeadsError(
            f"{where} is not JSON{at}. Give a JSON array of objects; in a template, pipe the value through 'tojson'."
        ) from None
    if isinstance(data, Mapping):
        data = data.get("leads")
    if not isinstance(data, list):
        raise InvalidLeadsError(f"{where} holds no list of leads: give a JSON array of objects.")
    return [Row(f"lead {number}", fields) for number, fields in enumerate(data, 1)]


def _json_lines(text: str, path: str) -> Iterator[Row]:
    # JSON allows U+2028 and U+0085 inside a text. splitlines() would end a line there, so it is not used.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield Row(f"line {number}", json.loads(line))
            except (ValueError, RecursionError):
                raise InvalidLeadsError(
                    f"leads_path {path!r}, line {number}, is not a JSON object. Write one object on each line."
                ) from None


def _csv_rows(text: str, path: str, delimiter: str) -> Iterator[Row]:
    if "\x00" in text:
        raise InvalidLeadsError(f"leads_path {path!r} holds zero bytes: it is not a text file. Export it as CSV.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = (cells for cells in reader if any(cell.strip() for cell in cells))
    try:
        header = _header(next(rows, []), path)
        for cells in rows:
            too_many = any(cell.strip() for cell in cells[len(header) :])
            problem = f"has {len(cells)} cells under {len(header)} columns" if too_many else None
            yield Row(f"line {reader.line_num}", dict(zip(header, cells, strict=False)), problem)
    except csv.Error as error:
        raise InvalidLeadsError(
            f"leads_path {path!r}, line {reader.line_num}, is not CSV ({error}). Check the quotes there."
        ) from None


def _delimiter(text: str) -> str:
    """Return the delimiter that the header holds most often outside quotes; a comma if it holds none."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    return max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", header).count)


def _header(cells: list[str], path: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    if "@" in "".join(header):
        raise InvalidLeadsError(
            f"leads_path {path!r} has no header: its first line holds an email address. Put the column names there."
        )
    repeated = sorted({cell for cell in header if cell and header.count(cell) > 1})
    if repeated:
        raise InvalidLeadsError(
            f"leads_path {path!r} has several columns called {', '.join(map(repr, repeated))}: keep one of each, or "
            "rename the others."
        )
    return header

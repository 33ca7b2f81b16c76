"""Files of leads: CSV with any common delimiter, line end and Unicode encoding, JSON, JSON Lines, workbooks."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.formatting import absolute
from machfive_provider.leads.columns import Columns
from machfive_provider.leads.rows import Row
from machfive_provider.leads.tables import csv_rows, sheet_rows

__all__ = ["SUFFIXES", "Row", "is_empty", "parse_json_leads", "read_file", "read_lines"]

_TABLES, _LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
_WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
SUFFIXES = (*_TABLES, ".json", *_LINES, *_WORKBOOKS)

_CHUNK = 65536  # bytes; encoding, delimiter and header are found in the first ones
_WORKBOOK_MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # xlsx and ods are zip archives, xls is a compound file
_SHEET = re.compile(rf"(.+\.(?:{'|'.join(each[1:] for each in _WORKBOOKS)}))#(.+)", re.IGNORECASE | re.DOTALL)


def read_file(path: str, columns: Columns | None = None, parameter: str = "leads_path") -> Iterator[Row]:
    """Yield the rows of a file anywhere ObjectStoragePath reaches; it is opened when the first row is asked for.

    :param path: a path or URL with one of ``SUFFIXES``; ``book.xlsx#Sheet2`` names a sheet, the first one by default
    :param columns: what the columns mean, by which the header is known
    :param parameter: the operator's, for messages
    :raises InvalidLeadsError: if it cannot be read or is not what its name says
    """
    source = f"{parameter} {path!r}"
    named = _SHEET.fullmatch(path)
    path, sheet = (named[1], named[2]) if named else (path, None)
    suffix = next((each for each in SUFFIXES if path.lower().endswith(each)), None)
    if suffix is None:
        raise InvalidLeadsError(f"{source} has an unknown ending: use one of {', '.join(SUFFIXES)}.")
    return _read(path, suffix, source, sheet, columns or Columns())


def is_empty(path: str, parameter: str) -> bool:
    """Whether a file has no bytes at all.

    :param parameter: the operator's, for messages
    :raises InvalidLeadsError: if it cannot be read
    """
    return not next(_chunks(path, f"{parameter} {path!r}"), b"")


def read_lines(path: str, parameter: str) -> Iterator[str]:
    """Yield the lines of a text file, without their ends.

    :param parameter: the operator's, for messages
    :raises InvalidLeadsError: if it cannot be read
    """
    source = f"{parameter} {path!r}"
    chunks = _chunks(path, source)
    head = next(chunks, b"")
    encoding = _encoding(head, source)
    try:
        for line in _lines(chain([head], chunks), encoding):
            yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise _not_decoded(path, encoding, source) from None


def _read(path: str, suffix: str, source: str, sheet: str | None, columns: Columns) -> Iterator[Row]:
    chunks = _chunks(path, source)
    head = next(chunks, b"")
    chunks = chain([head], chunks)
    if head.startswith(_WORKBOOK_MAGIC):
        yield from _workbook_rows(b"".join(chunks), source, sheet, columns)
        return
    if suffix in _WORKBOOKS:
        raise InvalidLeadsError(f"{source} is no workbook: it holds text. Give it the ending of what it is.")
    encoding = _encoding(head, source)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    if re.match(r"\s*<(!doctype|html|table|\?xml)", text, re.IGNORECASE):
        raise InvalidLeadsError(f"{source} is a web page or XML. Export the leads as CSV.")
    try:
        if suffix in _LINES and _begins_with_lead(text):
            yield from _json_lines(_lines(chunks, encoding))
        elif suffix == ".json" or suffix in _LINES:
            yield from _json_rows(b"".join(chunks).decode(encoding), source, lines=suffix in _LINES)
        elif re.match(r"""\s*(\[\s*)?\{\s*["}]""", text):
            raise InvalidLeadsError(f"{source} is JSON, not CSV: let its name end in .json or .jsonl.")
        else:
            yield from csv_rows(_lines(chunks, encoding), text, source, columns, tabs=suffix == ".tsv")
    except UnicodeDecodeError:
        raise _not_decoded(path, encoding, source) from None


def _chunks(path: str, source: str) -> Iterator[bytes]:
    """Yield the file's bytes. Each read costs some 200 µs, since Airflow notes it for lineage."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        found = ObjectStoragePath(absolute(path))
        # File systems of object stores keep listings with sizes, by which a file that has grown since would be cut off.
        found.fs.invalidate_cache()
        with found.open("rb") as file:  # type: ignore[no-untyped-call]
            while chunk := file.read(_CHUNK):
                yield chunk
    except Exception as error:
        raise InvalidLeadsError(
            f"{source} cannot be read ({type(error).__name__}: {error}). Check the path as the worker sees "
            "it, and the connection it names."
        ) from error


def _lines(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Yield the lines, which end at a line feed, a carriage return or both.

    JSON and quoted cells may hold U+2028 and U+0085, where ``splitlines`` would end a line.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    rest = ""
    for chunk in chunks:
        if lines := list(io.StringIO(rest + decoder.decode(chunk), newline="")):
            rest = lines.pop()
            yield from lines
    yield from io.StringIO(rest + decoder.decode(b"", final=True), newline="")


def _encoding(head: bytes, source: str) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Every second byte of Latin text is zero in UTF-16, and none in UTF-8.
    if len(head) > 3 and max(head[::2].count(0), head[1::2].count(0)) * 4 > len(head):
        raise InvalidLeadsError(
            f"{source} is UTF-16 without the mark that says so. Save it as UTF-8 (in Excel: 'CSV UTF-8')."
        )
    return "utf-8-sig"


def _not_decoded(path: str, encoding: str, source: str) -> InvalidLeadsError:
    where = ""
    content = b"".join(_chunks(path, source))
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f" (byte {error.start + 1}, line {line})"
    kind = "UTF-16" if encoding == "utf-16" else "UTF-8"
    return InvalidLeadsError(f"{source} is not {kind} text{where}. Save it as UTF-8 (in Excel: 'CSV UTF-8').")


def parse_json_leads(text: str, where: str) -> list[Row]:
    """Read a JSON array of leads, or an object that holds one under ``leads``.

    :param where: what to call the source in messages
    :raises InvalidLeadsError: for anything else
    """
    if text.strip() in ("None", "null"):
        raise InvalidLeadsError(f"{where} is nothing: the task or template that it comes from gave None.")
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
    return [Row("lead {}", number, fields) for number, fields in enumerate(data, 1)]


def _json_rows(text: str, source: str, *, lines: bool) -> Iterator[Row]:
    """Read JSON or JSON Lines, whichever it is: some programs name the one like the other.

    :param lines: whether the file's name speaks for JSON Lines
    """
    if lines:
        several = not text.lstrip().startswith("[") and not _holds_leads(_parsed(text))
    else:
        several = _begins_with_lead(text) and _parsed(text) is None
    return _json_lines(io.StringIO(text, newline="")) if several else iter(parse_json_leads(text, source))


def _begins_with_lead(text: str) -> bool:
    """Whether the first line is a lead by itself."""
    if not text.lstrip().startswith("{"):
        return False  # an array, which may be all of the file
    first = _parsed(re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0])
    return isinstance(first, Mapping) and not _holds_leads(first)


def _holds_leads(data: Any) -> bool:
    return isinstance(data, Mapping) and isinstance(data.get("leads"), list)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_lines(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield Row("line {}", number, json.loads(line))
            except (ValueError, RecursionError):
                yield Row("line {}", number, {}, "is not a JSON object; write one object on each line")


def _workbook_rows(content: bytes, source: str, sheet: str | None, columns: Columns) -> Iterator[Row]:
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise ConfigurationError(
            f"{source} is an Excel workbook. To read it, install 'airflow-provider-machfive[excel]' on the workers "
            "(python-calamine), or save the sheet as CSV UTF-8."
        ) from None
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        names = book.sheet_names
        if sheet is not None and sheet not in names:
            listed = ", ".join(map(repr, names))
            raise InvalidLeadsError(f"{source}: the workbook has no sheet {sheet!r}. Its sheets are {listed}.")
        found = book.get_sheet_by_name(sheet or names[0])
        records = found.to_python(skip_empty_area=False)
    except (CalamineError, IndexError) as error:
        raise InvalidLeadsError(
            f"{source} looks like an Excel workbook, but cannot be read as one ({type(error).__name__}). Open it in "
            "Excel, remove any password, and save it as .xlsx or as CSV UTF-8."
        ) from None
    yield from sheet_rows(records, 1, source, columns)

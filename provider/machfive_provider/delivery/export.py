"""Writes an export chunk by chunk and counts its leads on the way.

The hook yields chunks. ``_counted`` yields and counts the leads of a JSON export, ``_count_csv`` counts those of a CSV.
``_copied`` writes chunks as they are; ``shapes`` and ``parquet`` write what is made from leads. Nothing holds more than
one chunk and the leads in it, ``parquet`` a row group.
"""

from __future__ import annotations

import csv
import json
import re
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from machfive_provider.api.models import LeadList, address_digest, array
from machfive_provider.delivery import shapes
from machfive_provider.delivery.count import Figures
from machfive_provider.delivery.destination import Destination, Writer
from machfive_provider.exceptions import ProtocolError

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = [
    "BOM",
    "EMAIL",
    "TEXT_HEADERS",
    "column_of_addresses",
    "find_lead",
    "iter_leads",
    "kept_leads",
    "lines_of",
    "write_export",
]

_HEAD = 64 * 1024
_LONGEST = 4 * 1024 * 1024  # characters of a line, and of a cell, which may have several lines
BOM = "\ufeff"
_EMAIL_HEADERS = ("email", "e-mail", "email address", "email_address")
TEXT_HEADERS = ("subject", "body")  # a column of emails' texts has one of these in its name
EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def write_export(
    hook: MachFiveHook,
    lead_list: LeadList,
    destination: Destination,
    export_format: str,
    email_count: int | None = None,
    on_progress: Callable[[Figures], Any] | None = None,
    *,
    shape: str = "api",
    escape_formulas: bool = False,
    is_suppressed: Callable[[str], bool] | None = None,
) -> Figures:
    """Write a completed list's emails and return the figures.

    csv and json are the API's own bytes. Made from the json are jsonl, one lead a line; flat csv and jsonl, one row a
    lead; and parquet, one row an email. An odd lead is written as it was sent and counted: it was paid for
    (docs/operators.md, "The result is counted").

    :param email_count: emails asked for each lead, if known: of a CSV with fewer in all, the json is counted too
    :param on_progress: called with the figures so far after each chunk that was read and counted; nobody by default
    :param shape: ``api`` or ``flat``; ``format.check_shape`` says which formats can be flat
    :param escape_formulas: write the csv anew, with an apostrophe before each cell that a spreadsheet would calculate
    :param is_suppressed: whether an address must not be written to: its leads are left out and counted, and json is
        written anew. Nobody by default
    :raises NotReadyError: if the API says that the list has not completed
    :raises ProtocolError: if the export is no whole JSON or CSV; the destination stays as it was
    :raises ConfigurationError: if parquet is asked for and pyarrow is not installed
    """
    figures, is_api_csv = Figures(email_count), export_format == "csv" and shape == "api"
    with destination.open() as writer:
        source = hook.stream_export(lead_list.id, "csv" if is_api_csv else "json")
        if on_progress:
            source = _watched(source, writer, figures, on_progress)
        if is_api_csv:
            rows = _kept_rows(source, figures, is_suppressed) if is_suppressed else source
            seen = _count_csv(rows, figures, writer) if escape_formulas else _count_csv(_copied(rows, writer), figures)
            _complete_csv(hook, lead_list, figures, seen, is_suppressed)
        elif export_format == "json" and not is_suppressed:
            _count_json(_copied(source, writer), figures)
        else:
            leads = _counted(source, figures, is_suppressed)
            _write_leads(leads, lead_list.id, writer, export_format, shape, escape_formulas)
        figures.bytes = writer.written
    return figures


def iter_leads(chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the leads of a JSON export one by one, as they were sent; an odd one may be any JSON value.

    :raises ProtocolError: if the export is not whole JSON, or holds no array ``leads``
    """
    import ijson

    found, count, head = ijson.sendable_list(), 0, b""
    # Without use_float, ijson 3.6 ends the process at a number of more than some thousand digits.
    parser = ijson.items_coro(found, "leads.item", use_float=True)
    try:
        for chunk in filter(None, chunks):  # an empty chunk would mean the end to the parser
            head += chunk[: _HEAD - len(head)]
            parser.send(chunk)
            for lead in found:
                count += 1
                yield lead
            found.clear()
        parser.close()
    except ijson.JSONError:
        # Not from ijson's error, which quotes a lead.
        raise _contract_error("it is not whole JSON") from None
    if not count:
        _check_empty(head)


def kept_leads(
    leads: Iterable[Any], suppressed: set[int], is_suppressed: Callable[[str], bool] | None
) -> Iterator[Any]:
    """Yield the leads of a JSON export that may be written to.

    :param suppressed: here the digests of the others are put
    """
    for lead in leads:
        email = lead.get("email") if isinstance(lead, dict) else None
        if is_suppressed and isinstance(email, str) and is_suppressed(email):
            suppressed.add(address_digest(email))
        else:
            yield lead


def find_lead(chunks: Iterable[bytes], key: str) -> dict[str, Any] | None:
    """Return the lead with this address from the export of a list that was bought for one lead alone.

    A lead without an address is that lead as well, if no other is.

    :param key: the lead's address, casefolded
    """
    found = None
    for lead in iter_leads(chunks):
        if not isinstance(lead, dict):
            continue
        email = lead.get("email")
        if not isinstance(email, str):
            found = found or lead
        elif email.strip().casefold() == key:
            found = lead
            break
    return found


def _check_empty(head: bytes) -> None:
    """Accept an empty list of leads, refuse JSON of another shape: ijson finds no lead in either."""
    try:
        array(json.loads(head), "leads")
    except (ValueError, RecursionError):
        raise _contract_error("it holds no 'leads'") from None


def _contract_error(why: str) -> ProtocolError:
    return ProtocolError(
        f"the export is not what the contract says: {why}", endpoint="GET /api/v1/lists/{list_id}/export"
    )


def _counted(
    chunks: Iterable[bytes], figures: Figures, is_suppressed: Callable[[str], bool] | None = None
) -> Iterator[Any]:
    """Yield the leads of a JSON export that are not suppressed, each counted."""
    for position, lead in enumerate(kept_leads(iter_leads(chunks), figures.suppressed, is_suppressed), 1):
        figures.count_sent(position, lead)
        yield lead


def _count_json(chunks: Iterable[bytes], figures: Figures, is_suppressed: Callable[[str], bool] | None = None) -> None:
    """Count the leads of a JSON export that are not suppressed."""
    deque(_counted(chunks, figures, is_suppressed), maxlen=0)


def _kept_rows(chunks: Iterable[bytes], figures: Figures, is_suppressed: Callable[[str], bool]) -> Iterator[bytes]:
    """Yield the rows of a CSV export, as they were sent, of leads that are not suppressed."""
    lines: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines_of(chunks):
            lines.append(line)
            yield line

    csv.field_size_limit(_LONGEST)
    try:
        for row in csv.reader(noted()):
            addresses = [cell.strip() for cell in row if EMAIL.fullmatch(cell.strip())]
            suppressed = [address_digest(each) for each in addresses if is_suppressed(each)]
            figures.suppressed.update(suppressed)
            if not suppressed:
                yield "".join(lines).encode("utf-8", "surrogateescape")
            lines.clear()
    except csv.Error as error:
        raise _contract_error(f"it is not CSV ({error})") from error


def _write_leads(
    leads: Iterator[Any], list_id: str, writer: Writer, export_format: str, shape: str, escape_formulas: bool
) -> None:
    """Write what is made from the leads of a JSON export."""
    if export_format == "parquet":
        from machfive_provider.delivery.parquet import write_parquet

        write_parquet(shapes.email_rows(list_id, leads), writer)
    elif export_format == "csv":
        shapes.write_flat_csv(leads, writer, escape_formulas=escape_formulas)
    elif export_format == "json":
        shapes.write_json(leads, writer)
    else:
        shapes.write_lines(map(shapes.flat, leads) if shape == "flat" else leads, writer)


def _complete_csv(
    hook: MachFiveHook,
    lead_list: LeadList,
    figures: Figures,
    seen: _Rows,
    is_suppressed: Callable[[str], bool] | None = None,
) -> None:
    """Add what a CSV does not tell: the list's own total and, where that is not enough, the JSON export."""
    if not seen.have_addresses:
        _count_json(hook.stream_export(lead_list.id, "json"), figures, is_suppressed)
        return
    figures.emails = None if figures.suppressed else lead_list.emails_created
    # Rows with the same email are one lead's emails or a lead delivered twice: the columns are undocumented.
    if figures.emails is None or figures.repeats or figures.may_be_short() or seen.have_blanks:
        by_json = Figures(figures.email_count)
        _count_json(hook.stream_export(lead_list.id, "json"), by_json, is_suppressed)
        figures.complete_by(by_json)


class _Rows(NamedTuple):
    """What the rows of a CSV show; its columns are undocumented.

    :param have_addresses: a column holds leads' email addresses, or there are no rows
    :param have_blanks: a subject or body is blank: its email was not written, or the lead's sequence is shorter
    """

    have_addresses: bool
    have_blanks: bool


def _count_csv(chunks: Iterable[bytes], figures: Figures, escaped: Writer | None = None) -> _Rows:
    """Count leads by their column of email addresses; blank lines are no leads.

    :param escaped: where to write the rows with their formula cells escaped, if anywhere
    """
    position, have_blanks = 0, False
    csv.field_size_limit(_LONGEST)  # of the whole process, which may have read leads with another limit
    try:
        table = _rows_of_csv(chunks, escaped)
        header = [cell.strip().casefold() for cell in next(table, [])]
        column = column_of_addresses(header)
        texts = [index for index, cell in enumerate(header) if any(each in cell for each in TEXT_HEADERS)]
        for position, row in enumerate(filter(None, table), 1):
            column = column_of_addresses(header, row) if column is None else column
            figures.count_lead(position, None if column is None or len(row) <= column else row[column])
            have_blanks = have_blanks or len(row) < len(header) or not all(row[index] for index in texts)
    except csv.Error as error:
        raise _contract_error(f"it is not CSV ({error})") from error
    if column is None:
        figures.odd.clear()  # no row has an address: the JSON export tells which leads have one
    return _Rows(column is not None or not position, have_blanks)


def _rows_of_csv(chunks: Iterable[bytes], escaped: Writer | None) -> Iterator[list[str]]:
    lines = lines_of(chunks)
    first = next(lines, "")
    text = first.removeprefix(BOM)
    table = csv.reader(chain(filter(None, [text]), lines))
    if escaped is None:
        return table
    escaped.write(first.removesuffix(text).encode())  # Excel takes a csv without it for another encoding
    return shapes.written(table, escaped, escape_formulas=True)


def column_of_addresses(header: Sequence[str], row: Sequence[str] = ()) -> int | None:
    """Return which column of a CSV export holds leads' addresses: by its name, or by what a row holds.

    :param header: the names of the columns, casefolded
    """
    named = (index for index, cell in enumerate(header) if cell in _EMAIL_HEADERS)
    found = (index for index, cell in enumerate(row) if EMAIL.fullmatch(cell.strip()))
    return next(named, next(found, None))


def _copied(chunks: Iterable[bytes], writer: Writer) -> Iterator[bytes]:
    for chunk in chunks:
        writer.write(chunk)
        yield chunk


def _watched(
    chunks: Iterable[bytes], writer: Writer, figures: Figures, on_progress: Callable[[Figures], Any]
) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        # Whoever asks for the next chunk has counted this one.
        figures.bytes = writer.written
        on_progress(figures)


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Decode chunks to lines, each with its line break, wherever the chunks were cut."""
    # What is not UTF-8 is written again as it was sent.
    decoder = getincrementaldecoder("utf-8")("surrogateescape")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in whole:
            yield f"{line}\n"
        if len(rest) > _LONGEST:
            raise csv.Error("a line of it does not end")
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest

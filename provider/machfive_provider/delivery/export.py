"""Writes an export chunk by chunk and counts its leads on the way.

The hook yields chunks, ``_copied`` writes them to the destination as they are, and ``_count_json`` or ``_count_csv``
counts the leads in them; jsonl is written lead by lead. Nothing holds more than one chunk and the leads in it.
"""

from __future__ import annotations

import csv
import json
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from machfive_provider.api.models import Email, LeadList, ShapeError, array
from machfive_provider.delivery.count import Figures
from machfive_provider.delivery.destination import Destination, Writer
from machfive_provider.exceptions import ProtocolError

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["iter_leads", "write_export"]

_HEAD = 64 * 1024
_LONGEST_LINE = 4 * 1024 * 1024  # characters; the csv module takes cells of up to 128 Ki, so this is 32 of them
_EMAIL_HEADERS = ("email", "e-mail", "email address", "email_address")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def write_export(
    hook: MachFiveHook,
    lead_list: LeadList,
    destination: Destination,
    export_format: str,
    email_count: int | None = None,
) -> Figures:
    """Write a completed list's emails and return the figures.

    csv and json are the API's own bytes; jsonl is one lead a line, made from the json.

    :param email_count: emails asked for each lead, if known: of a CSV with fewer in all, the json is counted too
    :raises NotReadyError: if the API says that the list has not completed
    :raises ProtocolError: if the export is not what the contract says; the destination stays as it was
    """
    figures = Figures(email_count)
    with destination.open() as writer:
        source = hook.stream_export(lead_list.id, "csv" if export_format == "csv" else "json")
        if export_format == "jsonl":
            _count_json(source, figures, lambda lead: writer.write(_as_line(lead)))
        elif export_format == "json":
            _count_json(_copied(source, writer), figures)
        else:
            has_emails = _count_csv(_copied(source, writer), figures)
            _complete_csv(hook, lead_list, figures, has_emails=has_emails)
        figures.bytes = writer.written
    return figures


def iter_leads(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the leads of a JSON export one by one; raises ``ProtocolError`` for anything else."""
    import ijson

    found, count, head = ijson.sendable_list(), 0, b""
    parser = ijson.items_coro(found, "leads.item", use_float=True)
    try:
        for chunk in filter(None, chunks):  # an empty chunk would mean the end to the parser
            head += chunk[: _HEAD - len(head)]
            parser.send(chunk)
            for lead in found:
                count += 1
                yield _checked_lead(lead, count)
            found.clear()
        parser.close()
    except ijson.JSONError as error:
        raise _contract_error("it is not whole JSON") from error
    if not count:
        _check_empty(head)


def _checked_lead(lead: Any, number: int) -> dict[str, Any]:
    if not isinstance(lead, dict) or not isinstance(lead.get("email"), str):
        raise _contract_error(f"lead {number} has no email")
    try:
        for email in array(lead, "sequence"):
            Email.from_json(email)
    except ShapeError as error:
        raise _contract_error(f"lead {number}: {error}") from None
    return lead


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


def _count_json(
    chunks: Iterable[bytes], figures: Figures, also: Callable[[dict[str, Any]], None] = lambda _: None
) -> None:
    """Count the leads of a JSON export, and call ``also`` with each."""
    for lead in iter_leads(chunks):
        figures.count_lead(lead["email"], len(lead["sequence"]))
        also(lead)


def _as_line(lead: dict[str, Any]) -> bytes:
    return json.dumps(lead, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _complete_csv(hook: MachFiveHook, lead_list: LeadList, figures: Figures, *, has_emails: bool) -> None:
    """Add what a CSV does not tell: the list's own total and, where that is not enough, the JSON export.

    :param has_emails: whether the CSV has a column of leads' email addresses
    """
    if not has_emails:
        _count_json(hook.stream_export(lead_list.id, "json"), figures)
        return
    figures.emails = lead_list.emails_created
    # Rows with the same email are one lead's emails or a lead delivered twice: the columns are undocumented.
    if figures.emails is None or figures.repeats or figures.may_be_short():
        by_json = Figures(figures.email_count)
        _count_json(hook.stream_export(lead_list.id, "json"), by_json)
        figures.complete_by(by_json)


def _count_csv(chunks: Iterable[bytes], figures: Figures) -> bool:
    """Count leads by their email column; False if no column holds emails (the columns are undocumented)."""
    column, rows_seen = None, 0
    try:
        rows = csv.reader(_lines(chunks))
        header = [cell.strip().casefold() for cell in next(rows, [])]
        column = next((index for index, cell in enumerate(header) if cell in _EMAIL_HEADERS), None)
        for rows_seen, row in enumerate(rows, 1):  # noqa: B007 - the last number is wanted
            if column is None:
                column = next((index for index, cell in enumerate(row) if _EMAIL.fullmatch(cell.strip())), None)
            if column is not None and len(row) > column and row[column].strip():
                figures.count_lead(row[column])
        return column is not None or not rows_seen
    except csv.Error as error:
        raise _contract_error(f"it is not CSV ({error})") from error


def _copied(chunks: Iterable[bytes], writer: Writer) -> Iterator[bytes]:
    for chunk in chunks:
        writer.write(chunk)
        yield chunk


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Decode chunks to lines, each with its line break, wherever the chunks were cut."""
    decoder = getincrementaldecoder("utf-8-sig")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in whole:
            yield f"{line}\n"
        if len(rest) > _LONGEST_LINE:
            raise csv.Error("a line of it does not end")
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest

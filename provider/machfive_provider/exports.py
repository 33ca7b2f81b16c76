"""Streams an export to its destination and counts it as it flows, in constant memory."""

from __future__ import annotations

import csv
import json
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from machfive_provider.api.models import Email, LeadList, ShapeError, array
from machfive_provider.destinations import Destination
from machfive_provider.errors import IncompleteExportError, ProtocolError

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["FORMATS", "MISSING_POLICIES", "Figures", "check_delivery", "iter_leads", "write_export"]

FORMATS = ("csv", "json", "jsonl")
MISSING_POLICIES = ("fail", "warn", "ignore")
_HEAD = 64 * 1024
_EMAIL_HEADERS = ("email", "e-mail", "email address", "email_address")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(slots=True)
class Figures:
    """What came back.

    :param delivered: the leads' emails, in lower case
    :param emails: written emails in all; None where a CSV does not tell
    """

    bytes: int = 0
    leads: int = 0
    emails: int | None = 0
    delivered: set[str] = field(default_factory=set)

    def note(self, lead: dict[str, Any]) -> None:
        """Count one lead of a JSON export."""
        self.leads += 1
        self.emails = (self.emails or 0) + len(lead["sequence"])
        self.delivered.add(lead["email"].casefold())


def write_export(hook: MachFiveHook, lead_list: LeadList, destination: Destination, export_format: str) -> Figures:
    """Write a completed list's emails and return the figures.

    csv and json are the API's own bytes; jsonl is one lead a line, made from the json.

    :raises NotReadyError: if the list has not completed after all
    :raises ProtocolError: if the export is not what the contract says; the destination stays as it was
    """
    figures = Figures()
    with destination.open() as sink:
        source = hook.stream_export(lead_list.id, "csv" if export_format == "csv" else "json")
        if export_format == "jsonl":
            for lead in iter_leads(source):
                figures.note(lead)
                sink.write(json.dumps(lead, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        elif export_format == "json":
            for lead in iter_leads(_copied(source, sink.write)):
                figures.note(lead)
        else:
            found = _count_csv(_copied(source, sink.write))
            figures = found or Figures()
            figures.emails = lead_list.emails_created
            if found is None or figures.emails is None:
                figures = _figures_of_json(hook, lead_list.id)
        figures.bytes = sink.written
    return figures


def check_delivery(
    figures: Figures, expected: int | set[str] | None, policy: str, where: str
) -> tuple[int, str | None]:
    """Compare what came back with what was bought.

    :param expected: the emails in lower case, or only their number, or None if not even that is known
    :param policy: ``fail``, ``warn`` or ``ignore``
    :param where: the list and the file, for the message
    :return: how many leads are missing, and a warning for the log if there is one to give
    :raises IncompleteExportError: if leads are missing, under ``fail``
    """
    if expected is None:
        return 0, None
    if isinstance(expected, set):
        missing = len(expected - figures.delivered)
        total = len(expected)
    else:
        missing, total = max(0, expected - figures.leads), expected
    if not missing or policy == "ignore":
        return missing, None
    text = f"{where} lacks {missing} of the {total} leads that were submitted and paid for"
    if policy == "fail":
        raise IncompleteExportError(
            f"{text}. The file is written and holds the others. Ask MachFive support about the list, submit the "
            "missing leads again, or set on_missing_leads='warn'."
        )
    return missing, f"{text}."


def iter_leads(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the leads of a JSON export one by one; raises ``ProtocolError`` for anything else."""
    import ijson

    reader = _Reader(chunks)
    count = 0
    try:
        for lead in ijson.items(reader, "leads.item", use_float=True):
            count += 1
            yield _checked_lead(lead, count)
    except ijson.JSONError as error:
        raise _not_the_contract("it is not whole JSON") from error
    if not count:
        _check_empty(bytes(reader.head))


def _checked_lead(lead: Any, number: int) -> dict[str, Any]:
    if not isinstance(lead, dict) or not isinstance(lead.get("email"), str):
        raise _not_the_contract(f"lead {number} has no email")
    try:
        for email in array(lead, "sequence"):
            Email.from_json(email)
    except ShapeError as error:
        raise _not_the_contract(f"lead {number}: {error}") from None
    return lead


def _check_empty(head: bytes) -> None:
    """Tell a list without leads from JSON of another shape: both yield nothing."""
    try:
        array(json.loads(head), "leads")
    except (ValueError, RecursionError):
        raise _not_the_contract("it holds no 'leads'") from None


def _not_the_contract(why: str) -> ProtocolError:
    return ProtocolError(
        f"the export is not what the contract says: {why}", endpoint="GET /api/v1/lists/{list_id}/export"
    )


def _figures_of_json(hook: MachFiveHook, list_id: str) -> Figures:
    figures = Figures()
    for lead in iter_leads(hook.stream_export(list_id, "json")):
        figures.note(lead)
    return figures


def _count_csv(chunks: Iterable[bytes]) -> Figures | None:
    """Count leads by their email column; None if no column holds emails (the columns are undocumented)."""
    figures, column, rows_seen = Figures(), None, 0
    try:
        rows = csv.reader(_lines(chunks))
        header = [cell.strip().casefold() for cell in next(rows, [])]
        column = next((index for index, cell in enumerate(header) if cell in _EMAIL_HEADERS), None)
        for rows_seen, row in enumerate(rows, 1):  # noqa: B007 - the last number is wanted
            if column is None:
                column = next((index for index, cell in enumerate(row) if _EMAIL.fullmatch(cell.strip())), None)
            if column is not None and len(row) > column and row[column].strip():
                figures.delivered.add(row[column].strip().casefold())
        figures.leads = len(figures.delivered)
        return figures if column is not None or not rows_seen else None
    except csv.Error as error:
        raise _not_the_contract(f"it is not CSV ({error})") from error


def _copied(chunks: Iterable[bytes], write: Callable[[bytes], None]) -> Iterator[bytes]:
    for chunk in chunks:
        write(chunk)
        yield chunk


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Decode chunks to lines, each with its line break, however the chunks are cut."""
    decoder = getincrementaldecoder("utf-8-sig")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in whole:
            yield f"{line}\n"
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


class _Reader:
    """Lets a parser that reads a file read chunks; keeps the beginning for diagnosis."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self.head = bytearray()

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, nothing at the end."""
        if size == 0:
            return b""
        while not self._buffer:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._buffer = chunk
        taken = self._buffer if size < 0 else self._buffer[:size]
        self._buffer = self._buffer[len(taken) :]
        if len(self.head) < _HEAD:
            self.head += taken[: _HEAD - len(self.head)]
        return taken

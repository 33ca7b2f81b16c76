"""The rows that are made from the leads of a JSON export: a lead a line, one row a lead (flat), one row an email.

A lead may be any JSON value, and so may what is in it: an odd one was paid for and is written as well.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from machfive_provider.delivery.destination import Writer
from machfive_provider.formatting import for_spreadsheets

__all__ = ["EmailRow", "email_rows", "flat", "write_flat_csv", "write_json", "write_lines", "written"]

_FIELDS = ("email", "name", "company", "title")  # of a lead in a JSON export: docs/api.md, "Endpoints"
_TEXTS = ("subject", "body")
_LARGEST_STEP = 2**31 - 1
_AS_ESCAPE = "backslashreplace"  # half a surrogate pair has no UTF-8: this writes the escape that JSON has for it


class EmailRow(NamedTuple):
    """One email, or a lead without any, whose step, subject and body are None.

    :param position: of the lead in the export, from 1
    :param step: the email's number as MachFive gives it; its place in the sequence, from 1, if MachFive gives none
    :param other: as JSON text, what was sent beside these: fields without a column of their own, and values that are no
        text. ``{"lead": …}``, ``{"email": …}`` or both
    """

    list_id: str
    position: int
    email: str | None
    name: str | None
    company: str | None
    title: str | None
    step: int | None
    subject: str | None
    body: str | None
    other: str | None


def email_rows(list_id: str, leads: Iterable[Any]) -> Iterator[EmailRow]:
    """Yield a row for each email, and one for a lead without emails."""
    for position, lead in enumerate(leads, 1):
        fields, sequence = _parts(lead)
        texts, of_lead = _split(fields if isinstance(lead, dict) else {}, _FIELDS)
        of_lead = of_lead if isinstance(lead, dict) else lead
        for place, sent in enumerate(sequence, 1):
            is_email = isinstance(sent, dict)
            email = {name: value for name, value in sent.items() if name != "step"} if is_email else {}
            written, of_email = _split(email, _TEXTS)
            step = _step(sent.get("step") if is_email else None, place)
            other = _other(of_lead, of_email if is_email else sent)
            yield EmailRow(list_id=list_id, position=position, step=step, other=other, **texts, **written)
        if not sequence:
            nothing, other = dict.fromkeys(_TEXTS), _other(of_lead, None)
            yield EmailRow(list_id=list_id, position=position, step=None, other=other, **texts, **nothing)


def flat(lead: Any) -> dict[str, Any]:
    """Return a lead as one row: its fields, then ``subject_1``, ``body_1``, ``subject_2`` ..., all as they were sent.

    The numbers count the emails in the order of the sequence. An email that is no object is a body. A lead that is no
    object is the field ``lead``.
    """
    fields, sequence = _parts(lead)
    return fields | dict(zip(_text_columns(len(sequence)), _texts_of(sequence), strict=True))


def write_lines(values: Iterable[Any], writer: Writer) -> None:
    """Write JSON values, one a line."""
    for value in values:
        writer.write(f"{_dumped(value)}\n".encode("utf-8", _AS_ESCAPE))


def write_json(values: Iterable[Any], writer: Writer) -> None:
    """Write leads as the API's own JSON export has them."""
    before = '{"leads":['
    for value in values:
        writer.write(f"{before}{_dumped(value)}".encode("utf-8", _AS_ESCAPE))
        before = ",\n"
    writer.write(b"]}" if before == ",\n" else b'{"leads":[]}')


def write_flat_csv(leads: Iterable[Any], writer: Writer, *, escape_formulas: bool) -> None:
    """Write leads as ``flat`` rows of a csv; what is no text is JSON text, and None a blank cell.

    The columns are known after the last lead. Until then the rows are in a temporary file, as large as the export.
    """
    names, most = dict.fromkeys(_FIELDS), 0
    with tempfile.TemporaryFile() as spool:
        for lead in leads:
            row = {_cell(name): _cell(value) for name, value in flat(lead).items()}
            spool.write(f"{_dumped(row)}\n".encode())
            names.update(dict.fromkeys(row))
            most = max(most, len(_parts(lead)[1]))
        spool.seek(0)
        texts = dict.fromkeys(_text_columns(most))
        header = [*(name for name in names if name not in texts), *texts]
        table = ([row.get(name, "") for name in header] for row in map(json.loads, spool))
        deque(written(chain([header], table), writer, escape_formulas=escape_formulas), maxlen=0)


def written(rows: Iterable[list[str]], writer: Writer, *, escape_formulas: bool) -> Iterator[list[str]]:
    """Yield the rows of a csv, each after it was written."""
    out = csv.writer(_Encoded(writer))
    for row in rows:
        out.writerow([*map(for_spreadsheets, row)] if escape_formulas else row)
        yield row


class _Encoded:
    """What ``csv.writer`` writes to."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, text: str) -> None:
        # The API's own csv was decoded with surrogateescape, and comes back as the bytes that were sent.
        self._writer.write(text.encode("utf-8", "surrogateescape"))


def _parts(lead: Any) -> tuple[dict[str, Any], list[Any]]:
    """Return a lead's fields and its sequence; what is no sequence is a field like any other."""
    fields = lead if isinstance(lead, dict) else {"lead": lead}
    sequence = fields.get("sequence")
    if sequence is not None and not isinstance(sequence, list):
        return fields, []
    return {name: value for name, value in fields.items() if name != "sequence"}, sequence or []


def _split(sent: dict[str, Any], names: tuple[str, ...]) -> tuple[dict[str, str | None], Any]:
    """Return the texts of these names, None where there is none, and what else was sent, None if nothing."""
    texts = {name: _writable(value) if isinstance(value := sent.get(name), str) else None for name in names}
    other = {
        name: value for name, value in sent.items() if name not in names or not isinstance(value, (str, type(None)))
    }
    return texts, other or None


def _other(of_lead: Any, of_email: Any) -> str | None:
    other = {name: value for name, value in (("lead", of_lead), ("email", of_email)) if value is not None}
    return _as_json(other) if other else None


def _step(sent: Any, place: int) -> int:
    if isinstance(sent, str) and re.fullmatch(r"[0-9]{1,9}", sent):
        return int(sent)
    is_number = isinstance(sent, int) and not isinstance(sent, bool)
    return sent if is_number and 0 <= sent <= _LARGEST_STEP else place


def _text_columns(emails: int) -> list[str]:
    return [f"{text}_{number}" for number in range(1, emails + 1) for text in _TEXTS]


def _texts_of(sequence: list[Any]) -> Iterator[Any]:
    for email in sequence:
        yield from (email.get(text) for text in _TEXTS) if isinstance(email, dict) else (None, email)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return _writable(value)
    return "" if value is None else _as_json(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _as_json(value: Any) -> str:
    return _writable(_dumped(value))


def _writable(text: str) -> str:
    return text.encode("utf-8", _AS_ESCAPE).decode()

"""What a finished list holds, written out lead by lead as csv or json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from machfive_provider.sandbox.records import LeadList, WrittenLead
from machfive_provider.sandbox.writing import write_email

_COLUMNS = ("email", "name", "company", "title")


def write_sequence(seed: int, lead_list: LeadList, lead: WrittenLead) -> list[dict[str, str | int]]:
    """Write all emails of one lead."""
    steps = range(1, lead.emails + 1)
    return [write_email(seed, lead_list.campaign.name, lead.fields, step, lead_list.signature) for step in steps]


async def export_csv(seed: int, lead_list: LeadList) -> AsyncIterator[bytes]:
    """Write a header row and a row per lead: quoted and ended as RFC 4180 says, in UTF-8."""
    header = list(_COLUMNS)
    for step in range(1, lead_list.email_count + 1):
        header += [f"subject_{step}", f"body_{step}"]
    yield _csv_row(header)
    for lead in lead_list.leads:
        row = [lead.fields.get(column, "") for column in _COLUMNS]
        for email in write_sequence(seed, lead_list, lead):
            row += [str(email["subject"]), str(email["body"])]
        yield _csv_row(row + [""] * (len(header) - len(row)))


async def export_json(seed: int, lead_list: LeadList) -> AsyncIterator[bytes]:
    """Write one object with all leads; what a lead does not have is left out."""
    yield b'{"leads": ['
    for chunk in _json_leads(seed, lead_list):
        yield chunk
    yield b"]}"


def _json_leads(seed: int, lead_list: LeadList) -> Iterator[bytes]:
    for index, lead in enumerate(lead_list.leads):
        shown: dict[str, Any] = {column: lead.fields[column] for column in _COLUMNS if lead.fields.get(column)}
        shown["sequence"] = write_sequence(seed, lead_list, lead)
        separator = ", " if index else ""
        yield (separator + json.dumps(shown, ensure_ascii=False)).encode()


def _csv_row(cells: list[str]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().encode()

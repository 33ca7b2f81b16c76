"""Prepares leads: read them, match column names to the API's fields, check each lead, find duplicates.

All of it happens before anything is sent. Messages name positions and reasons, never a lead's data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from machfive_provider.api.models import Lead
from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.formatting import kind_of
from machfive_provider.leads.files import Row, parse_json_leads, read_file

__all__ = ["PreparedLeads", "prepare", "read_leads", "single_lead"]

_SHOWN = 10

# Column names of CRM exports, in lower case and without punctuation. The first one found in a file is used.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "email": ("email", "emailaddress", "mail", "workemail", "businessemail", "primaryemail", "contactemail"),
    "name": ("name", "fullname", "contactname", "leadname", "contact"),
    "title": ("title", "jobtitle", "position", "role"),
    "company": ("company", "companyname", "organization", "organisation", "accountname", "account", "employer"),
    "company_website": ("companywebsite", "website", "companyurl", "websiteurl", "companydomain", "domain", "url"),
    "linkedin_url": ("linkedinurl", "linkedin", "linkedinprofile", "linkedinprofileurl", "personlinkedinurl"),
}
_FIRST_NAME, _LAST_NAME = ("firstname", "givenname"), ("lastname", "surname", "familyname")


@dataclass(frozen=True, slots=True)
class PreparedLeads:
    """Leads ready to submit.

    :param leads: valid, each email once, in the order given
    :param invalid: ``position: reason`` of each lead left out as invalid
    :param duplicates: ``position: reason`` of each lead left out as a duplicate
    :param unknown_fields: columns or keys the API does not have; left out
    """

    leads: tuple[Lead, ...]
    invalid: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    unknown_fields: tuple[str, ...] = ()

    @property
    def skipped(self) -> int:
        """How many of the leads given are not submitted."""
        return len(self.invalid) + len(self.duplicates)


def read_leads(leads: Any = None, leads_path: str | None = None) -> list[Row]:
    """Return the leads as given, with their positions.

    :param leads: a list of mappings, or a JSON array as text
    :param leads_path: a CSV, JSON or JSONL file anywhere ObjectStoragePath reaches
    :raises ConfigurationError: for both or neither
    :raises InvalidLeadsError: for leads of another type, or a file that cannot be read
    """
    if (leads is None) == (leads_path is None):
        which = "neither" if leads is None else "both"
        raise ConfigurationError(f"leads and leads_path: {which} given; give exactly one of them.")
    if leads_path is not None:
        if not isinstance(leads_path, str) or not leads_path.strip():
            raise ConfigurationError(f"leads_path must be a path or URL as text, not {kind_of(leads_path)}.")
        return read_file(leads_path.strip())
    if isinstance(leads, str):
        return parse_json_leads(leads, "leads (a text)")
    if isinstance(leads, (Mapping, bytes)) or not isinstance(leads, Iterable):
        raise InvalidLeadsError(f"leads must be a list of objects or a JSON array, not {kind_of(leads)}.")
    return [Row(f"leads[{index}]", fields) for index, fields in enumerate(leads)]


def prepare(
    rows: Sequence[Row], on_invalid_lead: str = "fail", on_duplicate_lead: str = "fail", source: str = "leads"
) -> PreparedLeads:
    """Match, check and de-duplicate leads.

    :param on_invalid_lead: ``fail``, or ``skip`` to leave bad leads out
    :param on_duplicate_lead: ``fail``, or ``first`` to keep the first of those with the same email
    :param source: what to call the leads in messages
    :raises InvalidLeadsError: under the policies, or if no lead is left
    """
    if not rows:
        raise InvalidLeadsError(f"{source} is empty: there is nobody to write to. Skip the task when there are none.")
    prepared = _sort_rows(rows)
    if not prepared.leads:
        fix = "Check the names of the fields or columns."
        raise _refusal(source, len(rows), "cannot be used", prepared.invalid, fix)
    if prepared.invalid and on_invalid_lead == "fail":
        fix = "Correct them, or set on_invalid_lead='skip'."
        raise _refusal(source, len(rows), "cannot be used", prepared.invalid, fix)
    if prepared.duplicates and on_duplicate_lead == "fail":
        fix = "Remove them, or set on_duplicate_lead='first'."
        raise _refusal(source, len(rows), "are duplicates", prepared.duplicates, fix)
    return prepared


def _sort_rows(rows: Sequence[Row]) -> PreparedLeads:
    """Sort rows into valid leads, invalid ones and duplicates."""
    valid: dict[str, tuple[str, Lead]] = {}
    invalid: list[str] = []
    duplicates: list[str] = []
    unknown: dict[str, None] = {}
    for row in rows:
        lead, left_out = _lead(row)
        unknown.update(dict.fromkeys(left_out))
        if isinstance(lead, str):
            invalid.append(f"{row.position}: {lead}")
        elif lead.key in valid:
            duplicates.append(f"{row.position}: same email as {valid[lead.key][0]}")
        else:
            valid[lead.key] = (row.position, lead)
    return PreparedLeads(tuple(lead for _, lead in valid.values()), tuple(invalid), tuple(duplicates), tuple(unknown))


def single_lead(lead: Any) -> PreparedLeads:
    """Check one lead: a mapping, or a JSON object as text; raises ``InvalidLeadsError``."""
    if isinstance(lead, str):
        rows = [Row("lead", row.fields) for row in parse_json_leads(f"[{lead}]", "lead (a text)")]
        if len(rows) != 1:
            raise InvalidLeadsError(f"lead holds {len(rows)} leads; give one object.")
    else:
        rows = [Row("lead", lead)]
    return prepare(rows, source="lead")


def _refusal(source: str, total: int, what: str, entries: Sequence[str], fix: str) -> InvalidLeadsError:
    shown = "; ".join(entries[:_SHOWN])
    more = f"; and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return InvalidLeadsError(f"{source}: {len(entries)} of {total} leads {what}: {shown}{more}. {fix}")


def _lead(row: Row) -> tuple[Lead | str, tuple[str, ...]]:
    """Return the lead, or the reason why there is none; and the fields left out."""
    if row.problem:
        return row.problem, ()
    if not isinstance(row.fields, Mapping):
        return f"is {kind_of(row.fields)}, not an object", ()
    columns, unknown = _columns(tuple(row.fields))
    values: dict[str, str] = {}
    for field, names in columns.items():
        for name in names:
            text = _text(row.fields[name])
            if text is None:
                return f"{field} is {kind_of(row.fields[name])}, not a text", unknown
            if text:
                values[field] = f"{values[field]} {text}" if field in values else text
    if "email" not in values:
        return "email is missing", unknown
    email = _valid_email(values.pop("email"))
    if email is None:
        return "email is not a valid address", unknown
    return Lead(email, **values), unknown


@cache
def _columns(names: tuple[Any, ...]) -> tuple[dict[str, tuple[Any, ...]], tuple[str, ...]]:
    """Match the names of a file or mapping to the API's fields, once for each set of names."""
    plain: dict[str, list[Any]] = {}
    for name in names:
        plain.setdefault(re.sub(r"[^a-z0-9]", "", str(name).casefold()), []).append(name)

    def spelled(spellings: tuple[str, ...]) -> list[Any]:
        return next((plain[each] for each in spellings if each in plain), [])

    columns: dict[str, tuple[Any, ...]] = {}
    for field, spellings in _SPELLINGS.items():
        found = spelled(spellings)
        if len(found) > 1:
            raise InvalidLeadsError(
                f"the columns {', '.join(map(repr, found))} all mean {field}; keep one and rename the others."
            )
        if found:
            columns[field] = (found[0],)
    if "name" not in columns and (parts := [*spelled(_FIRST_NAME)[:1], *spelled(_LAST_NAME)[:1]]):
        columns["name"] = tuple(parts)
    used = {name for each in columns.values() for name in each}
    return columns, tuple(str(name) for name in names if name not in used and str(name))


def _text(value: Any) -> str | None:
    """Return the value with single spaces and without surrogates, None if it is not a text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas writes a missing value as NaN
        return ""
    if not isinstance(value, str):
        return None
    return " ".join(value.encode("utf-8", "replace").decode("utf-8").split())


def _valid_email(text: str) -> str | None:
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        return None

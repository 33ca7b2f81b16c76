"""Prepares leads: read them, match column names to the API's fields, check each lead, find duplicates.

All of it happens before anything is sent. Messages name positions and reasons, never a lead's data.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from machfive_provider.api.models import Lead
from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.formatting import kind_of
from machfive_provider.leads.columns import Columns, check_columns, shown
from machfive_provider.leads.faults import refusal
from machfive_provider.leads.files import parse_json_leads, read_file
from machfive_provider.leads.matching import Matcher, UnusableError
from machfive_provider.leads.rows import Row

__all__ = ["PreparedLeads", "hook_leads", "prepare", "read_leads", "single_lead"]

_HASHES = 2**23 - 1  # bits of a hash that are compared first


@dataclass(frozen=True, slots=True)
class PreparedLeads:
    """Leads ready to submit.

    :param leads: valid, each email once, in the order given
    :param invalid: ``position: reason`` of each lead left out as invalid
    :param duplicates: ``position: reason`` of each lead left out as a duplicate
    :param unknown_fields: columns or keys that were filled and are not sent
    """

    leads: tuple[Lead, ...]
    invalid: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    unknown_fields: tuple[str, ...] = ()

    @property
    def skipped(self) -> int:
        """How many of the leads given are not submitted."""
        return len(self.invalid) + len(self.duplicates)

    @property
    def given(self) -> int:
        """How many leads were given."""
        return len(self.leads) + self.skipped


def read_leads(leads: Any = None, leads_path: str | None = None, columns: Any = None) -> Iterable[Row]:
    """Yield the leads as given, with their positions. A file is read as its rows are asked for, errors included.

    :param leads: a list of mappings, or a JSON array as text
    :param leads_path: a CSV, JSON, JSON Lines or Excel file anywhere ObjectStoragePath reaches
    :param columns: the user's mapping of fields to columns, by which a file's header is recognised
    :raises ConfigurationError: for both or neither, or for a wrong mapping
    :raises InvalidLeadsError: for leads of another type, or a file that cannot be read
    """
    mapping = check_columns(columns)
    if (leads is None) == (leads_path is None):
        which = "neither" if leads is None else "both"
        raise ConfigurationError(f"leads and leads_path: {which} given; give exactly one of them.")
    if leads_path is not None:
        if not isinstance(leads_path, str) or not leads_path.strip():
            raise ConfigurationError(f"leads_path must be a path or URL as text, not {kind_of(leads_path)}.")
        return read_file(leads_path.strip(), Columns(mapping))
    if isinstance(leads, str):
        return iter(parse_json_leads(leads, "leads (a text)"))
    if hasattr(leads, "columns") and hasattr(leads, "shape"):
        raise InvalidLeadsError(
            "leads is a data frame: give a list of objects, leads=frame.to_dict('records') with pandas or "
            "leads=frame.to_dicts() with polars."
        )
    if isinstance(leads, Iterator):
        raise InvalidLeadsError(
            f"leads is {kind_of(leads)}, which can be read only once; leads are read again after waiting and when the "
            "task is retried. Give a list: leads=list(…)."
        )
    if isinstance(leads, (Mapping, bytes)) or not isinstance(leads, Iterable):
        raise InvalidLeadsError(f"leads must be a list of objects or a JSON array, not {kind_of(leads)}.")
    return (Row("leads[{}]", index, fields) for index, fields in enumerate(leads))


def prepare(
    rows: Iterable[Row],
    on_invalid_lead: str = "fail",
    on_duplicate_lead: str = "fail",
    source: str = "leads",
    columns: Any = None,
) -> PreparedLeads:
    """Match, check and de-duplicate leads.

    :param on_invalid_lead: ``fail``, or ``skip`` to leave bad leads out
    :param on_duplicate_lead: ``fail``, or ``first`` to keep the first of those with the same email
    :param source: what to call the leads in messages
    :param columns: the user's mapping of fields to columns, as for :func:`read_leads`; None to go by the names
    :raises InvalidLeadsError: under the policies, or if no lead is left
    """
    known = Columns(check_columns(columns))
    sorter = _Sorter(Matcher(known))
    for row in rows:
        sorter.add(row)
    if not sorter.total:
        raise InvalidLeadsError(f"{source} is empty: there is nobody to write to. Skip the task when there are none.")
    known.check_mapping(source)
    if not sorter.leads and known.seen and not known.has_email():
        raise InvalidLeadsError(
            f"{source}: email is missing, no column is named like it. The columns are {shown(known.seen)}. "
            "Name the one that holds the address: columns={'email': '…'}."
        )
    if sorter.invalid and (not sorter.leads or on_invalid_lead == "fail"):
        fix = "Correct them, or set on_invalid_lead='skip'." if sorter.leads else "Correct them."
        raise refusal(source, sorter.total, "cannot be used", sorter.invalid, fix)
    duplicates = sorter.take_duplicates()
    if duplicates and on_duplicate_lead == "fail":
        fix = "Remove them, or set on_duplicate_lead='first'."
        raise refusal(source, sorter.total, "are duplicates", duplicates, fix)
    return PreparedLeads(
        tuple(sorter.leads),
        tuple(f"{position}: {reason}" for position, reason in sorter.invalid),
        tuple(f"{position}: {reason}" for position, reason in duplicates),
        sorter.matcher.unknown_fields(),
    )


def single_lead(lead: Any, columns: Any = None) -> PreparedLeads:
    """Check one lead: a mapping, or a JSON object as text; raises ``InvalidLeadsError``."""
    if lead is None or (isinstance(lead, str) and lead.strip() in ("None", "null")):
        raise InvalidLeadsError("lead: is nothing, not an object. The task or template that it comes from gave None.")
    if isinstance(lead, str):
        rows = parse_json_leads(f"[{lead}]", "lead (a text)")
        if len(rows) != 1:
            raise InvalidLeadsError(f"lead holds {len(rows)} leads; give one object.")
        lead = rows[0].fields
    return prepare([Row("lead", 1, lead)], source="lead", columns=columns)


def hook_leads(leads: Any, columns: Any = None) -> Any:
    """Return what the hook is to send: leads that are prepared already as they are, others checked and matched.

    :param leads: ``Lead`` objects, mappings, or both; an iterator is read once
    :raises InvalidLeadsError: as :func:`prepare` does
    """
    if isinstance(leads, (str, bytes, Mapping)):
        return leads
    given = list(leads) if isinstance(leads, (Iterator, Sequence)) else leads
    if isinstance(given, list) and all(isinstance(each, Lead) for each in given):
        return given
    rows = read_leads(given, columns=columns)
    plain = (row._replace(fields=row.fields.to_json()) if isinstance(row.fields, Lead) else row for row in rows)
    return prepare(plain, columns=columns).leads


@dataclass(slots=True)
class _Sorter:
    """Sorts rows into leads and invalid ones in one pass, then finds duplicates.

    A set of 200,000 emails takes 8 MB. A bitmap of their hashes shows which few may have come before; those alone are
    compared.
    """

    matcher: Matcher
    total: int = 0
    leads: list[Lead] = field(default_factory=list)
    invalid: list[tuple[str, str]] = field(default_factory=list)
    _at: str = ""
    _numbers: array[int] = field(default_factory=lambda: array("I"))
    _hashes: bytearray = field(default_factory=lambda: bytearray((_HASHES + 1) >> 3))
    _maybe_twice: set[str] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Sort one row."""
        self.total += 1
        self._at = row.at
        try:
            lead = self._lead(row)
        except UnusableError as error:
            self.invalid.append((row.position, str(error)))
            return
        self.leads.append(lead)
        self._numbers.append(row.number)
        key = lead.key
        place = hash(key) & _HASHES
        if self._hashes[place >> 3] >> (place & 7) & 1:
            self._maybe_twice.add(key)
        else:
            self._hashes[place >> 3] |= 1 << (place & 7)

    def _lead(self, row: Row) -> Lead:
        if row.problem is not None:
            raise UnusableError(row.problem)
        if type(row.fields) is not dict and not isinstance(row.fields, Mapping):
            raise UnusableError(f"is {kind_of(row.fields)}, not an object")
        return self.matcher.lead(row.fields)

    def take_duplicates(self) -> list[tuple[str, str]]:
        """Take out each lead whose email an earlier one has; return their positions and reasons."""
        if not self._maybe_twice:
            return []
        first: dict[str, int] = {}
        kept, duplicates = [], []
        for lead, number in zip(self.leads, self._numbers, strict=True):
            if lead.key not in self._maybe_twice or (before := first.setdefault(lead.key, number)) == number:
                kept.append(lead)
            else:
                duplicates.append((self._at.format(number), f"same email as {self._at.format(before)}"))
        self.leads = kept
        return duplicates

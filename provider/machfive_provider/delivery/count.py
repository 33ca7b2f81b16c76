"""Counts what came back and compares it with what was bought. Pure: no file and no request.

Messages go to logs and errors: they name lists and files, never a lead.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from machfive_provider.api.models import Lead, address_digest, usable_emails
from machfive_provider.formatting import counted

__all__ = [
    "Comparison",
    "Expected",
    "Figures",
    "compare",
    "leads_as_csv",
    "missing_message",
    "short_sequence",
    "warnings",
]

_SUPPORT = "MachFive support can say why, given the list's id."


@dataclass(frozen=True, slots=True)
class Expected:
    """What was bought, as far as it is known.

    :param number: how many leads; None if nobody knows
    :param leads: the leads themselves, in the order of their submission; None if only their number is known
    :param email_count: emails asked for each lead; None leaves it to the campaign
    """

    number: int | None = None
    leads: tuple[Lead, ...] | None = None
    email_count: int | None = None

    @classmethod
    def of(cls, leads: Iterable[Lead], email_count: int | None = None) -> Expected:
        """Expect exactly these leads."""
        known = tuple(leads)
        return cls(len(known), known, email_count)


@dataclass(slots=True)
class Figures:
    """What an export holds. Leads are kept as digests: some 95 bytes of memory each, twice that if they are short.

    Positions are those of leads in the export, from 1.

    :param email_count: emails asked for each lead; None if not known
    :param bytes: size of the file written
    :param emails: usable emails in all; None where a CSV does not tell
    :param repeats: how many times a lead came again
    :param delivered: the leads that came with a usable email
    :param short: those of them with fewer usable emails than were asked for, or with an unusable one; their positions
    :param uncounted: those of them whose emails neither a CSV nor the JSON export tells
    :param unwritten: the leads that came without a usable email; their positions
    :param odd: the positions of leads without an email address: nobody can tell which lead they are
    :param suppressed: leads that were left out, because they must not be written to any more
    """

    email_count: int | None = None
    bytes: int = 0
    emails: int | None = 0
    repeats: int = 0
    delivered: set[int] = field(default_factory=set)
    short: dict[int, int] = field(default_factory=dict)
    uncounted: set[int] = field(default_factory=set)
    unwritten: dict[int, int] = field(default_factory=dict)
    odd: list[int] = field(default_factory=list)
    suppressed: set[int] = field(default_factory=set)

    @property
    def leads(self) -> int:
        """How many leads came with a usable email, repeated ones included."""
        return len(self.delivered) + self.repeats

    def count_sent(self, position: int, lead: Any) -> None:
        """Count one lead of a JSON export, whatever was sent."""
        known = lead if isinstance(lead, dict) else {}
        sequence = known.get("sequence")
        emails = usable_emails(sequence)
        asked = _asked(sequence, self.email_count)
        self.count_lead(position, known.get("email"), len(emails), is_short=len(emails) < asked)

    def count_lead(self, position: int, email: Any, emails: int | None = None, *, is_short: bool = False) -> None:
        """Count one lead, and its usable emails where they are known.

        Of a lead that comes again the best sequence counts: usable emails before none, a whole sequence before a short.
        """
        if not isinstance(email, str) or not email.strip():
            self.odd.append(position)
            return
        lead = address_digest(email)
        is_repeated = lead in self.delivered
        if emails == 0:
            if not is_repeated:
                self.unwritten.setdefault(lead, position)
            return
        self.unwritten.pop(lead, None)
        self.repeats += is_repeated
        self.delivered.add(lead)
        if emails is None:
            return
        self.emails = (self.emails or 0) + emails
        if not is_short:
            self.short.pop(lead, None)
        elif not is_repeated:
            self.short[lead] = position

    def may_be_short(self) -> bool:
        """Whether there are fewer emails in all than were asked for."""
        if self.email_count is None:
            return False
        return self.emails is None or self.emails < len(self.delivered) * self.email_count

    def complete_by(self, by_json: Figures) -> None:
        """Add to the leads of a CSV what the same list's JSON export tells of them."""
        self.emails = by_json.emails if self.emails is None else self.emails
        self.repeats = by_json.repeats
        self.uncounted = self.delivered - by_json.delivered - by_json.unwritten.keys()
        self.unwritten = {lead: at for lead, at in by_json.unwritten.items() if lead in self.delivered}
        self.delivered -= self.unwritten.keys()
        self.short = {lead: at for lead, at in by_json.short.items() if lead in self.delivered}


def _asked(sequence: Any, email_count: int | None) -> int:
    """Return how many usable emails make a sequence whole: as many as it has entries, and email_count at least."""
    return max(email_count or 0, len(sequence) if isinstance(sequence, list) else 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between an export and what was bought; None is "not known".

    :param missing: leads that were bought and have no usable email in the result
    :param extra: leads in the result that were not bought, or are there more than once
    :param short: bought leads with fewer usable emails than were asked for, or with an unusable one
    :param missing_leads: the missing ones, in the order of their submission, where they are known
    :param short_at: the positions of the short ones in the export
    """

    expected: Expected
    missing: int | None = None
    extra: int | None = None
    short: int | None = None
    missing_leads: tuple[Lead, ...] = ()
    short_at: tuple[int, ...] = ()


def compare(figures: Figures, expected: Expected) -> Comparison:
    """Compare what came back with what was bought; emails are compared in any case."""
    if expected.leads is not None:
        bought = {address_digest(lead.email) for lead in expected.leads}
        missing = tuple(lead for lead in expected.leads if address_digest(lead.email) not in figures.delivered)
        extra = len(figures.delivered - bought) + figures.repeats
        short, short_at = _short(figures, bought)
        return Comparison(expected, len(missing), extra, short, missing, short_at)
    short, short_at = _short(figures, figures.delivered)
    if expected.number is None:
        return Comparison(expected, short=short, short_at=short_at)
    # A list that others bought may hold a lead twice, and its number then counts both.
    difference = expected.number - len(figures.suppressed) - figures.leads
    return Comparison(expected, max(0, difference), max(-difference, figures.repeats), short, short_at=short_at)


def _short(figures: Figures, bought: set[int]) -> tuple[int | None, tuple[int, ...]]:
    """Return how many leads are short, None if that is not known, and where they are."""
    short_at = tuple(sorted(at for lead, at in figures.short.items() if lead in bought))
    if figures.uncounted & bought or (figures.email_count is None and not short_at):
        return None, ()
    return len(short_at), short_at


def missing_message(
    comparison: Comparison, list_id: str, missing_path: str | None, policy: str, table: str | None = None
) -> tuple[str, str] | None:
    """Return what is missing, and where it is and what to do; None if nothing is known to be missing.

    :param missing_path: the file that holds the missing leads, if they are known
    :param policy: ``fail`` adds that ``warn`` accepts the result
    :param table: the table that the result was written to; None if it is a file
    """
    if not comparison.missing:
        return None
    bought = counted(comparison.expected.number, "lead")
    text = (
        f"The export of list {list_id} lacks {comparison.missing} of the {bought} that were submitted and paid for; "
        "the result holds the others."
    )
    if missing_path:
        advice = f"The missing ones are in {missing_path}: submit it with leads_path and another export_to"
    elif table:
        advice = f"A query that leaves out who has an email in {table} (skip_already_written) submits them again"
    else:
        advice = "Only their number is known: compare the result with your leads, and submit the missing ones again"
    alternative = ", or accept the result with on_missing_leads='warn'" if policy == "fail" else ""
    return text, f"{advice}{alternative}. {_SUPPORT}"


def warnings(figures: Figures, comparison: Comparison, list_id: str, path: str, *, is_table: bool = False) -> list[str]:
    """Return one line each for leads without an address, without an email, extra and short, where there are any.

    :param path: the result
    :param is_table: whether it is a table, which has no rows for leads without an address
    """
    messages = []
    whole = "an export of the list to a file, since the table has no row for it," if is_table else path
    if figures.odd:
        messages.append(
            f"The export of list {list_id} holds {counted(len(figures.odd), 'lead')} without an email address "
            f"({_at(figures.odd)}): it cannot be matched, and may be one that counts as missing. Look at it in {whole} "
            f"before you submit a missing lead again. {_SUPPORT}"
        )
    if figures.unwritten:
        messages.append(
            f"The export of list {list_id} holds {counted(len(figures.unwritten), 'lead')} without a usable email "
            f"({_at(sorted(figures.unwritten.values()))}), which counts as missing. What was sent is in {path}. "
            f"{_SUPPORT}"
        )
    if comparison.extra:
        messages.append(
            f"The export of list {list_id} holds {counted(comparison.extra, 'lead')} more than was bought: not "
            f"submitted, or delivered more than once. Check the leads in {path} before you write to any. {_SUPPORT}"
        )
    if comparison.short:
        asked = comparison.expected.email_count
        fewer = "" if asked is None else f"are fewer than email_count={asked} asks for, or "
        messages.append(
            f"The export of list {list_id} holds {counted(comparison.short, 'lead')} whose emails {fewer}lack their "
            f"subject or body ({_at(comparison.short_at)}). Check the sequences in {path} before you send them. "
            f"{_SUPPORT}"
        )
    return messages


def _at(positions: Sequence[int]) -> str:
    """Say where leads are in an export; the first ten are named."""
    shown, more = ", ".join(map(str, positions[:10])), len(positions) - 10
    noun = "position" if len(positions) == 1 else "positions"
    return f"{noun} {shown}" + (f" and {more} more" if more > 0 else "")


def short_sequence(list_id: str, sequence: Any, email_count: int | None) -> str | None:
    """Return one line if a single lead's sequence lacks emails or has unusable ones, else None.

    :param sequence: as the API sent it
    :param email_count: emails asked for; None leaves it to the campaign
    """
    usable, asked = len(usable_emails(sequence)), _asked(sequence, email_count)
    if usable and usable >= asked:
        return None
    of = f" of {asked}: the others are missing, or lack their subject or body" if asked else ""
    written = f"{counted(usable, 'usable email')}{of}"
    return f"The sequence of list {list_id} has {written}. Check it before you send it. {_SUPPORT}"


def leads_as_csv(leads: Iterable[Lead]) -> bytes:
    """Return leads as a CSV file that ``leads_path`` reads back unchanged; empty columns are left out."""
    rows: list[dict[str, Any]] = [lead.to_json() for lead in leads]
    columns = [each.name for each in fields(Lead) if any(each.name in row for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()

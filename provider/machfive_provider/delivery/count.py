"""Counts what came back and compares it with what was bought. Pure: no file and no request.

Messages go to logs and errors: they name lists and files, never a lead.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any

from machfive_provider.api.models import Lead
from machfive_provider.formatting import counted

__all__ = [
    "Comparison",
    "Expected",
    "Figures",
    "compare",
    "digest",
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
    """What an export holds. Leads are kept as digests: at most some 95 bytes of memory each.

    :param email_count: emails asked for each lead; None if not known, and then nothing counts as short
    :param bytes: size of the file written
    :param emails: written emails in all; None where a CSV does not tell
    :param repeats: how many times a lead came again
    :param delivered: the leads that came
    :param short: those of them with fewer emails than were asked for
    :param uncounted: those of them whose emails neither a CSV nor the JSON export tells
    """

    email_count: int | None = None
    bytes: int = 0
    emails: int | None = 0
    repeats: int = 0
    delivered: set[int] = field(default_factory=set)
    short: set[int] = field(default_factory=set)
    uncounted: set[int] = field(default_factory=set)

    @property
    def leads(self) -> int:
        """How many leads the export holds, repeated ones included."""
        return len(self.delivered) + self.repeats

    def count_lead(self, email: str, emails: int | None = None) -> None:
        """Count one lead, and its emails where they are known; of a repeated lead, the longest sequence counts."""
        lead = digest(email)
        is_repeated = lead in self.delivered
        self.repeats += is_repeated
        self.delivered.add(lead)
        if emails is None:
            return
        self.emails = (self.emails or 0) + emails
        if self.email_count is not None:
            if emails >= self.email_count:
                self.short.discard(lead)
            elif not is_repeated:
                self.short.add(lead)

    def may_be_short(self) -> bool:
        """Whether there are fewer emails in all than were asked for."""
        if self.email_count is None:
            return False
        return self.emails is None or self.emails < len(self.delivered) * self.email_count

    def complete_by(self, by_json: Figures) -> None:
        """Add to the leads of a CSV what the same list's JSON export tells of them."""
        self.emails = by_json.emails if self.emails is None else self.emails
        self.repeats = by_json.repeats
        self.short = self.delivered & by_json.short
        self.uncounted = self.delivered - by_json.delivered


def digest(email: str) -> int:
    """Return a number that stands for a lead's email, in any case.

    Seven bytes, because Python keeps a number of up to 60 bits in 32 bytes and a longer one in 48. That two of 200,000
    leads share a number has a probability of one in three million.
    """
    # A JSON parser may return half a surrogate pair.
    key = email.strip().casefold().encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=7).digest())


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between an export and what was bought; None is "not known".

    :param missing: leads that were bought and are not in the result
    :param extra: leads in the result that were not bought, or are there more than once
    :param short: bought leads with fewer emails than were asked for
    :param missing_leads: the missing ones, in the order of their submission, where they are known
    """

    expected: Expected
    missing: int | None = None
    extra: int | None = None
    short: int | None = None
    missing_leads: tuple[Lead, ...] = ()


def compare(figures: Figures, expected: Expected) -> Comparison:
    """Compare what came back with what was bought; emails are compared in any case."""
    if expected.leads is not None:
        bought = {digest(lead.email) for lead in expected.leads}
        missing = tuple(lead for lead in expected.leads if digest(lead.email) not in figures.delivered)
        extra = len(figures.delivered - bought) + figures.repeats
        return Comparison(expected, len(missing), extra, _short(figures, bought), missing)
    short = _short(figures, figures.delivered)
    if expected.number is None:
        return Comparison(expected, short=short)
    # A list that others bought may hold a lead twice, and its number then counts both.
    difference = expected.number - figures.leads
    return Comparison(expected, max(0, difference), max(-difference, figures.repeats), short)


def _short(figures: Figures, bought: set[int]) -> int | None:
    if figures.email_count is None or figures.uncounted & bought:
        return None
    return len(figures.short & bought)


def missing_message(comparison: Comparison, list_id: str, missing_path: str | None, policy: str) -> str | None:
    """Return one line about missing leads: how many, where they are, what to do; None if none is known.

    :param missing_path: the file that holds the missing leads, if they are known
    :param policy: ``fail`` adds that ``warn`` accepts the result
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
    else:
        advice = "Only their number is known: compare the result with your leads, and submit the missing ones again"
    alternative = ", or accept the result with on_missing_leads='warn'" if policy == "fail" else ""
    return f"{text} {advice}{alternative}. {_SUPPORT}"


def warnings(comparison: Comparison, list_id: str, path: str) -> list[str]:
    """Return one line for extra leads and one for short sequences, where there are any.

    :param path: the result
    """
    messages = []
    if comparison.extra:
        messages.append(
            f"The export of list {list_id} holds {counted(comparison.extra, 'lead')} more than was bought: not "
            f"submitted, or delivered more than once. Check the leads in {path} before you write to any. {_SUPPORT}"
        )
    if comparison.short:
        messages.append(
            f"The export of list {list_id} holds {counted(comparison.short, 'lead')} with fewer emails than "
            f"email_count={comparison.expected.email_count} asks for. Check the sequences in {path} before you send "
            f"them. {_SUPPORT}"
        )
    return messages


def short_sequence(list_id: str, written: int, email_count: int | None) -> str | None:
    """Return one line if a single lead's sequence is shorter than was asked for, else None.

    :param written: emails in the sequence
    :param email_count: emails asked for; None leaves it to the campaign
    """
    if email_count is None or written >= email_count:
        return None
    return (
        f"The sequence of list {list_id} has {counted(written, 'email')}, fewer than email_count={email_count} asks "
        f"for. Check it before you send it. {_SUPPORT}"
    )


def leads_as_csv(leads: Iterable[Lead]) -> bytes:
    """Return leads as a CSV file that ``leads_path`` reads back unchanged; empty columns are left out."""
    rows: list[dict[str, Any]] = [lead.to_json() for lead in leads]
    columns = [each.name for each in fields(Lead) if any(each.name in row for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()

"""Whether what came back is what was bought. Pure: figures in, a judgement and its texts out.

The texts go to logs and errors: they name lists and files, never a lead.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from machfive_provider.api.models import Lead
from machfive_provider.formatting import counted

if TYPE_CHECKING:
    from machfive_provider.delivery.disk_map import DiskMap

__all__ = [
    "MISSING_ENDING",
    "Delivery",
    "Expected",
    "Figures",
    "incomplete",
    "judge",
    "leads_as_csv",
    "short_sequence",
    "warnings",
]

MISSING_ENDING = ".missing.csv"
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
        """Expect these very leads."""
        known = tuple(leads)
        return cls(len(known), known, email_count)


@dataclass(slots=True)
class Figures:
    """What came back.

    :param emails: written emails in all; None where a CSV does not tell
    :param repeats: how many times a lead came again
    :param delivered: by the lead's email in lower case, how many emails were written; None where a CSV does not tell.
        As large as the export: what is read of it is never copied
    """

    bytes: int = 0
    emails: int | None = 0
    repeats: int = 0
    delivered: dict[str, int | None] | DiskMap = field(default_factory=dict)

    @property
    def leads(self) -> int:
        """How many leads the export holds, repeated ones included."""
        return len(self.delivered) + self.repeats

    def note(self, email: str, written: int | None = None) -> None:
        """Count one lead and how many emails were written for it; of a repeated lead, the longest sequence counts."""
        key = email.strip().casefold()
        again = key in self.delivered
        if written is not None:
            self.emails = (self.emails or 0) + written
            if again:
                written = max(written, self.delivered[key] or 0)
        self.repeats += again
        self.delivered[key] = written

    def may_be_short(self, email_count: int | None) -> bool:
        """Whether there are fewer emails in all than so many for each lead."""
        return email_count is not None and (self.emails is None or self.emails < len(self.delivered) * email_count)

    def complete_by(self, other: Figures) -> None:
        """Add to the leads of a CSV what the figures of the same list's other export know of them."""
        self.emails = other.emails if self.emails is None else self.emails
        self.repeats = other.repeats
        for key, written in other.delivered.items():
            if key in self.delivered:
                self.delivered[key] = written


@dataclass(frozen=True, slots=True)
class Delivery:
    """The judgement; None is "not known".

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


def judge(figures: Figures, expected: Expected) -> Delivery:
    """Compare what came back with what was bought; emails are compared whatever their case."""
    short = _short(figures, expected)
    if expected.leads is not None:
        bought = {lead.key for lead in expected.leads}
        missing = tuple(lead for lead in expected.leads if lead.key not in figures.delivered)
        strangers = sum(key not in bought for key in figures.delivered)
        return Delivery(expected, len(missing), strangers + figures.repeats, short, missing)
    if expected.number is None:
        return Delivery(expected, short=short)
    # A list that others bought may hold a lead twice, and its number then counts both.
    missing_number, above = max(0, expected.number - figures.leads), figures.leads - expected.number
    return Delivery(expected, missing_number, max(above, figures.repeats), short)


def _short(figures: Figures, expected: Expected) -> int | None:
    asked = expected.email_count
    if asked is None:
        return None
    bought = None if expected.leads is None else {lead.key for lead in expected.leads}
    enough, short = not figures.may_be_short(asked), 0
    for key, written in figures.delivered.items():
        if written is None and enough:
            return 0
        if bought is None or key in bought:
            if written is None:
                return None
            short += written < asked
    return short


def incomplete(delivery: Delivery, list_id: str, missing_path: str | None, policy: str) -> str | None:
    """Say in one line that leads are missing, where they are and what to do; None if none is known to be.

    :param missing_path: the file that holds the missing leads, if they are known
    :param policy: under ``fail`` the way out by ``warn`` is told as well
    """
    if not delivery.missing:
        return None
    bought = counted(delivery.expected.number, "lead")
    lacking = (
        f"The export of list {list_id} lacks {delivery.missing} of the {bought} that were submitted and paid for; the "
        "result holds the others."
    )
    if missing_path:
        advice = f"The missing ones are in {missing_path}: submit it with leads_path and another export_to"
    else:
        advice = "Only their number is known: compare the result with your leads, and submit the missing ones again"
    way_out = ", or accept the result with on_missing_leads='warn'" if policy == "fail" else ""
    return f"{lacking} {advice}{way_out}. {_SUPPORT}"


def warnings(delivery: Delivery, list_id: str, path: str) -> list[str]:
    """Say in a line each what else is not as it was bought.

    :param path: the result
    """
    said = []
    if delivery.extra:
        said.append(
            f"The export of list {list_id} holds {counted(delivery.extra, 'lead')} more than was bought: not "
            f"submitted, or delivered more than once. Check the leads in {path} before you write to any. {_SUPPORT}"
        )
    if delivery.short:
        said.append(
            f"The export of list {list_id} holds {counted(delivery.short, 'lead')} with fewer emails than email_count="
            f"{delivery.expected.email_count} asks for. Check the sequences in {path} before you send them. {_SUPPORT}"
        )
    return said


def short_sequence(list_id: str, written: int, email_count: int | None) -> str | None:
    """Say in one line that a single lead's sequence is shorter than was asked for; None if it is not.

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
    """Return leads as a CSV file that ``leads_path`` reads back alike; columns that none of them needs are left out."""
    rows: list[dict[str, Any]] = [lead.to_json() for lead in leads]
    columns = [each.name for each in fields(Lead) if any(each.name in row for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()

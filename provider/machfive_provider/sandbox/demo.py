"""The lists of a demo: two weeks of history and every state that a list can be in now."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from machfive_provider.sandbox.model import LeadList, Workspace, WrittenLead, digest, iso, make_uuid, pick

_MINUTE = 60.0
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_HISTORY_DAYS = 14
_FIRST_NAMES = ("Ada", "Bruno", "Chloe", "Dana", "Emre", "Freya", "Grace", "Henrik")
_LAST_NAMES = ("Costa", "Demir", "Holm", "Larsen", "Nilsson", "Okafor", "Patel", "Reyes")
_LONG_NAME = "Everybody who asked for the price list at the spring fair and was not called back within two weeks"


@dataclass(frozen=True)
class _Row:
    """One list of the demo.

    :param age: seconds since it was bought
    :param took: seconds from the purchase to its end; infinite if it runs until somebody ends it
    :param airflow: whether its name ends in the tag of a list that Airflow has bought
    :param campaign: 0 for the workspace's first campaign, 1 for the second
    :param odd: what is odd in the first two leads of its export, or how many of its leads have an email too few
    :param single: bought by ``generate``
    """

    name: str | None
    age: float
    took: float
    leads: int
    airflow: bool = False
    campaign: Literal[0, 1] = 0
    status: str = "processing"
    ends_failed: bool = False
    odd: str | int | None = None
    single: bool = False


_ROWS = (
    _Row("Waits for MachFive to begin", 20, math.inf, 40, airflow=True, status="pending"),
    _Row("Just begun", 40, math.inf, 25, airflow=True),
    _Row("Completes two minutes after the start", 3 * _MINUTE, 5 * _MINUTE, 30, airflow=True),
    _Row("Partner invitations", 7 * _MINUTE, math.inf, 120, campaign=1),
    _Row("In a status that nobody knows", 12 * _MINUTE, math.inf, 15, airflow=True, status="researching"),
    _Row("Runs far longer than usual", 3.2 * _HOUR, math.inf, 35, airflow=True),
    _Row("Failed an hour and a half ago", 1.5 * _HOUR, 4 * _MINUTE, 50, airflow=True, ends_failed=True),
    _Row("Fails four minutes after the start", 2 * _MINUTE, 6 * _MINUTE, 20, campaign=1, ends_failed=True),
    _Row("Failed last week", 6.3 * _DAY, 9 * _MINUTE, 80, campaign=1, ends_failed=True),
    _Row("Two leads without emails", 2.5 * _HOUR, 5 * _MINUTE, 45, airflow=True, odd="null_sequence"),
    _Row("Two emails without a subject", 5 * _HOUR, 4 * _MINUTE, 33, airflow=True, odd="null_subject"),
    _Row("Three leads with an email too few", 1.2 * _DAY, 6 * _MINUTE, 64, airflow=True, odd=3),
    _Row(None, 4 * _HOUR, 3 * _MINUTE, 12, campaign=1),
    _Row(None, 55 * _MINUTE, 40, 1, campaign=1, single=True),
    _Row(_LONG_NAME, 8 * _HOUR, 11 * _MINUTE, 210, campaign=1),
    _Row('<b>Bold</b> & "quoted"', 26 * _HOUR, 2 * _MINUTE, 9, campaign=1),
    _Row('=HYPERLINK("https://example.com","click")', 27 * _HOUR, 2 * _MINUTE, 9, campaign=1),
    _Row("Zażółć gęślą jaźń, Grüße, مرحبا, 你好 🚀", 28 * _HOUR, 3 * _MINUTE, 14, campaign=1),
)


def demo_lists(seed: int, workspace: Workspace, now: float) -> list[LeadList]:
    """Return a workspace's lists at the start of a demo, oldest first.

    They are not purchases: they cost no credits and are not counted as bought. The same seed gives the same lists;
    their times count back from `now`, in epoch seconds.
    """
    rows = sorted((*_ROWS, *_history(seed, now)), key=lambda row: -row.age)
    return [_lead_list(seed, workspace, now, number, row) for number, row in enumerate(rows)]


def _history(seed: int, now: float) -> Iterator[_Row]:
    """Yield a list of Airflow's for each morning, and for every third day one that was made in MachFive's app."""
    for day in range(1, _HISTORY_DAYS + 1):
        leads = 20 + digest(seed, "leads", day)[0] % 60
        date = iso(now - day * _DAY)[:10]
        yield _Row(f"Daily leads {date}", day * _DAY, 3 * _MINUTE + 2 * leads, leads, airflow=True)
        if day % 3 == 0:
            yield _Row(f"Webinar {date}", (day - 0.3) * _DAY, 8 * _MINUTE, 2 * leads, campaign=1)


def _lead_list(seed: int, workspace: Workspace, now: float, number: int, row: _Row) -> LeadList:
    pending = row.took if row.status == "pending" else min(10.0, row.took)
    created_at = now - row.age
    name = row.name
    if row.airflow:
        name = f"{name} {_tag(seed, workspace.name, number)}"
    return LeadList(
        id=make_uuid(seed, "demo", workspace.name, number),
        sequence=number,
        workspace=workspace,
        campaign=workspace.campaigns[row.campaign],
        endpoint="generate" if row.single else "generate-batch",
        name=name,
        created_at=created_at,
        leads=_leads(seed, number, row),
        email_count=3,
        signature=workspace.signatures[0].signature,
        pending_seconds=pending,
        processing_seconds=0.0 if row.status == "pending" else row.took - pending,
        ends_failed=row.ends_failed,
        shown_as=row.status,
    )


def _leads(seed: int, number: int, row: _Row) -> list[WrittenLead]:
    leads = [
        WrittenLead(
            {
                "email": f"lead{index}@list{number}.example.com",
                "name": f"{pick(_FIRST_NAMES, seed, number, index)} {pick(_LAST_NAMES, seed, index, number)}",
            },
            emails=3,
        )
        for index in range(row.leads)
    ]
    if isinstance(row.odd, str):
        leads[:2] = [replace(lead, oddity=row.odd) for lead in leads[:2]]
    elif row.odd:
        leads[: row.odd] = [replace(lead, emails=2) for lead in leads[: row.odd]]
    return leads


def _tag(seed: int, *parts: object) -> str:
    """Make a tag as Airflow writes it (purchase/tag.py), of a task that this Airflow does not know."""
    text = digest(seed, "tag", *parts).hex()
    return f"[af1:{text[:10]}-{text[10:22]}:3..{text[22:28]}]"

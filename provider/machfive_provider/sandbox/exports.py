"""The emails of a list, and its exports as csv or json.

The same seed gives the same emails. Each body is made of parts that are chosen by seed, campaign, address
and step. It holds 60 to 120 words before the signature, with commas, quotation marks and line breaks, so
that a parser of exports meets them in every email.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from machfive_provider.sandbox.model import LeadList, WrittenLead, pick
from machfive_provider.sandbox.oddities import ODD_LEADS

_SUBJECTS = (
    ("{first}, a thought for {company}", "{campaign}: an idea for {company}", "Quick question, {first}"),
    ("Re: a thought for {company}", "{first}, one more detail", 'The "before" picture at {company}'),
    ("Worth a look, {first}?", "What others like {company} changed", "Two numbers, {first}"),
    ("{company} and {campaign}", "Still on your list, {first}?", "A shorter version, {first}"),
    ("Closing the loop, {first}", "Last note, {first}", "Shall I stop here, {first}?"),
)
_OPENINGS = (
    (
        "I came across {company} while reading about {campaign}, and your work as {title} stood out.",
        "Most people I talk to who work as {title} tell me the same thing, and {company} may know it too.",
        "Your name came up when we looked at who is doing {campaign} well, so I wanted to write in person.",
    ),
    (
        "I wrote last week about {company}, and I left out the part that people usually ask about.",
        "A short follow-up, since my first note may have reached you on a busy day at {company}.",
        "Following up on {campaign}, with one detail that matters to anyone working as {title}.",
    ),
    (
        "Here is a small example that made me think of {company} again.",
        "I promised myself to write only if there was something useful for {company}, and there is.",
        "Someone in a role like yours, {title}, sent us two numbers this week.",
    ),
    (
        "I know {campaign} may not be the most urgent thing at {company} this month.",
        "I will keep this one brief, {first}, because your inbox is full enough.",
        "You may have someone at {company} who looks after this, so a short version follows.",
    ),
    (
        "This is my last note about {campaign}, {first}, and then I will leave you in peace.",
        "I have not heard back, which usually means that the timing at {company} is wrong.",
        "I am closing my file on {company} this week, and wanted to ask once more.",
    ),
)
_PROBLEMS = (
    "Teams like yours often lose a day a week to manual research, hand-offs and late replies.",
    "The usual trouble is not effort, it is that good replies arrive after the moment has passed.",
    "When outreach grows, the personal part is the first to go, and the answers go with it.",
)
_PROOFS = (
    'A team of your size told us: "we finally write to fewer people, and more of them answer."',
    'One customer put it this way: "the first week paid for the year, which nobody here expected."',
    'Their head of sales said: "it reads like us, only on a good day, and every day."',
)
_OFFERS = (
    "We would take three of your accounts, write the first drafts with you, and show what changes within two weeks.",
    "We can prepare a small sample for {company}, free of charge, and you decide whether it sounds like you.",
    "There is a ten minute walk-through made for {company}, with your own market and nobody else's slides.",
)
_ASKS = (
    "Would Tuesday or Thursday suit you for a short call?",
    "Is this something you own, or is there a better person to ask?",
    "Shall I send the sample over, so that you can judge for yourself?",
)


def write_email(seed: int, campaign: str, lead: Mapping[str, str], step: int, signature: str) -> dict[str, str | int]:
    """Write one email of a lead's sequence, as the API shows it; `step` counts from 1."""
    email = lead["email"]
    facts = _facts(lead, campaign)
    column = min(step, len(_SUBJECTS)) - 1

    def choose(part: str, variants: tuple[str, ...]) -> str:
        return pick(variants, seed, campaign, email, step, part).format(**facts)

    paragraphs = [
        f"Hi {facts['first']},",
        f"{choose('opening', _OPENINGS[column])} {choose('problem', _PROBLEMS)}",
        f"{choose('proof', _PROOFS)} {choose('offer', _OFFERS)}",
        choose("ask", _ASKS),
    ]
    if signature:
        paragraphs.append(signature)
    return {"step": step, "subject": choose("subject", _SUBJECTS[column]), "body": "\n\n".join(paragraphs)}


def _facts(lead: Mapping[str, str], campaign: str) -> dict[str, str]:
    name = lead.get("name", "").split()
    return {
        "first": name[0].rstrip(",;.") if name else lead["email"].partition("@")[0],
        "company": lead.get("company", "").strip() or "your team",
        "title": lead.get("title", "").strip() or "a team lead",
        "campaign": campaign,
    }


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
        shown = show_lead(seed, lead_list, lead)
        written = shown if isinstance(shown, dict) else {}
        row = [written.get(column) or "" for column in _COLUMNS]
        for email in written.get("sequence") or []:
            row += [(email or {}).get(name) or "" for name in ("subject", "body")]
        yield _csv_row(row + [""] * (len(header) - len(row)))


async def export_json(seed: int, lead_list: LeadList) -> AsyncIterator[bytes]:
    """Write one object with all leads."""
    yield b'{"leads": ['
    for index, lead in enumerate(lead_list.leads):
        shown = show_lead(seed, lead_list, lead)
        separator = ", " if index else ""
        yield (separator + json.dumps(shown, ensure_ascii=False)).encode()
    yield b"]}"


def show_lead(seed: int, lead_list: LeadList, lead: WrittenLead) -> Any:
    """Show a lead as the json export does: what it does not have is left out, and what a fault made odd is odd."""
    shown: dict[str, Any] = {column: lead.fields[column] for column in _COLUMNS if lead.fields.get(column)}
    shown["sequence"] = write_sequence(seed, lead_list, lead)
    return ODD_LEADS[lead.oddity](shown) if lead.oddity else shown


def _csv_row(cells: list[str]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().encode()

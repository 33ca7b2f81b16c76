"""Reads the first leads of an export, with their addresses masked, and closes the stream after them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from machfive_provider.api.models import usable_emails
from machfive_provider.api.retries import QUICK
from machfive_provider.delivery.export import iter_leads
from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["LeadShown", "first_leads", "masked"]

_LEADS = 3


@dataclass(frozen=True, slots=True)
class LeadShown:
    """A lead as the preview shows it.

    :param address: masked
    :param emails: subject and body of each
    """

    address: str
    emails: tuple[tuple[str, str], ...]


def first_leads(conn_id: str, list_id: str) -> list[LeadShown]:
    """Return the first three leads of a completed list; raises ``MachFiveError``."""
    with MachFiveHook(conn_id, QUICK) as hook, closing(_stream(hook, list_id)) as chunks:
        return [_shown(lead) for lead in islice(iter_leads(chunks), _LEADS) if isinstance(lead, dict)]


def _stream(hook: MachFiveHook, list_id: str) -> Generator[bytes]:
    yield from hook.stream_export(list_id, "json")


def _shown(lead: dict[str, Any]) -> LeadShown:
    emails = usable_emails(lead.get("sequence") or [])
    shown = tuple((str(each.get("subject") or ""), str(each.get("body") or "")) for each in emails)
    return LeadShown(masked(str(lead.get("email") or "")), shown)


def masked(address: str) -> str:
    """Return an address of which its owner is not known: the first letter and the domain's ending."""
    local, _, domain = address.partition("@")
    return f"{local[:1]}…@…{domain[domain.rfind('.') :]}" if domain else "(no address)"

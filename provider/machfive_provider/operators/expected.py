"""What an export is compared with, as a DAG author may say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.formatting import kind_of

if TYPE_CHECKING:
    from machfive_provider.api.models import LeadList
    from machfive_provider.delivery.count import Expected
    from machfive_provider.leads.suppression import Suppression

__all__ = ["expected_of"]


def expected_of(expected: Any, lead_list: LeadList | None, suppression: Suppression | None = None) -> Expected:
    """Return what the export should hold: leads, or their number, or None if it is not known.

    :param expected: a number, a list of leads or emails, or a leads file; None for the list's own ``leads_count``
    :param lead_list: None before it has ended
    :param suppression: whose addresses the export leaves out
    :raises ConfigurationError: for anything else
    """
    from machfive_provider.delivery.count import Expected
    from machfive_provider.leads.files import SUFFIXES
    from machfive_provider.leads.prepare import prepare, read_leads

    if expected is None:
        return Expected(lead_list.leads_count if lead_list else None)
    if isinstance(expected, str) and expected.strip().isdecimal():
        expected = int(expected)  # a template renders to text
    if isinstance(expected, int) and not isinstance(expected, bool) and expected >= 0:
        return Expected(expected)
    if isinstance(expected, str) and expected.strip().lower().endswith(SUFFIXES):
        rows = read_leads(leads_path=expected)
    elif isinstance(expected, (str, list, tuple)):
        rows = read_leads(expected)
        rows = [row._replace(fields={"email": row.fields}) if isinstance(row.fields, str) else row for row in rows]
    else:
        raise exceptions.ConfigurationError(
            "expected_leads must be a number, a list of leads or emails, or a leads file "
            f"({', '.join(SUFFIXES)}), not {kind_of(expected)}."
        )
    leads = prepare(rows, "skip", "first", "expected_leads").leads
    return Expected.of(lead for lead in leads if not (suppression and suppression.covers(lead.email)))

"""What an export is compared with: what a DAG author says, or what the task has bought."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.formatting import kind_of
from machfive_provider.operators import parameters
from machfive_provider.operators.filters import select_leads

if TYPE_CHECKING:
    from machfive_provider.api.models import GenerationOptions, Lead, LeadList
    from machfive_provider.delivery.count import Expected
    from machfive_provider.leads.suppression import Suppression
    from machfive_provider.purchase.tag import Tag

__all__ = ["expected_of", "expected_of_purchase"]


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
    return Expected.of(_without(leads, suppression))


def expected_of_purchase(task: Any, batch: Mapping[str, Any], suppression: Suppression | None) -> Expected:
    """Return what should come back: the leads, or only their number if they are not the same when read again.

    :param task: the operator that has bought them
    :param batch: what it has told in its XCom
    :param suppression: whose addresses the export leaves out
    """
    from machfive_provider.delivery.count import Expected
    from machfive_provider.leads.prepare import prepare, read_leads
    from machfive_provider.purchase.options import build_options
    from machfive_provider.purchase.tag import Tag

    try:
        rows = read_leads(task.leads, task.leads_path, task.columns)
        prepared = prepare(rows, task.on_invalid_lead, task.on_duplicate_lead, columns=task.columns)
        options = build_options(parameters.named_options(task), task.options)
        (tag,) = Tag.all_in(batch["tag"])
        leads = _sent(task, tag, batch["campaign_id"], prepared.leads, options)
    except (exceptions.MachFivePermanentError, KeyError, ValueError):
        leads = None
    if leads is None:
        task.log.warning("The leads are not those that were submitted any more: they are counted, not compared.")
        return Expected(batch.get("leads_submitted"))
    return Expected.of(_without(leads, suppression), options.get("email_count"))


def _sent(
    task: Any, tag: Tag, campaign_id: str, leads: Sequence[Lead], options: GenerationOptions
) -> Sequence[Lead] | None:
    """Return the leads that were bought under this tag; None if they cannot be told from what is read now."""
    from machfive_provider.purchase.tag import digest_of_leads, digest_of_what, sorted_leads

    texts = sorted_leads(leads)
    if tag.what != digest_of_what(campaign_id, texts, options):
        return None
    if tag.sent == digest_of_leads(texts):
        return leads
    selected = select_leads(task, leads, task.log).leads
    return selected if tag.sent == digest_of_leads(sorted_leads(selected)) else None


def _without(leads: Iterable[Lead], suppression: Suppression | None) -> Iterator[Lead]:
    return (lead for lead in leads if not (suppression and suppression.covers(lead.email)))

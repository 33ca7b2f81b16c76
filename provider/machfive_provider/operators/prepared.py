"""Reads and checks the leads of a task, and logs what is left out: once, for all of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from machfive_provider.leads.prepare import PreparedLeads

__all__ = ["log_left_out", "prepare_leads"]

_FIELDS_SHOWN = 20
_LEADS_SHOWN = 10


def prepare_leads(task: Any, leads_path: str | None) -> PreparedLeads:
    """Return the leads of a file, or the task's own without one, by the task's policies.

    :raises InvalidLeadsError: for leads that cannot be used, under the policies
    """
    from machfive_provider.leads.prepare import prepare, read_leads

    source = "leads" if leads_path is None else f"leads_path {leads_path!r}"
    rows = read_leads(task.leads if leads_path is None else None, leads_path, task.columns)
    prepared = prepare(rows, task.on_invalid_lead, task.on_duplicate_lead, source, task.columns)
    log_left_out(task.log, source, prepared)
    return prepared


def log_left_out(log: Any, source: str, prepared: PreparedLeads) -> None:
    """Log the fields that MachFive does not have, and the leads that are skipped."""
    if prepared.unknown_fields:
        names = ", ".join(map(repr, prepared.unknown_fields[:_FIELDS_SHOWN]))
        more = len(prepared.unknown_fields) - _FIELDS_SHOWN
        log.warning(
            "%s: MachFive has no fields for %s; left out.", source, f"{names} and {more} more" if more > 0 else names
        )
    if prepared.skipped:
        shown = "; ".join((*prepared.invalid, *prepared.duplicates)[:_LEADS_SHOWN])
        log.warning("%s: %d of %d leads skipped: %s.", source, prepared.skipped, prepared.given, shown)

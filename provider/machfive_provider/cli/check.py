"""Says what a task would send of a file of leads, what it would leave out and what it would cost. Sends nothing."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import fields
from typing import Any

from machfive_provider.api.models import Lead
from machfive_provider.cli import output
from machfive_provider.delivery.written import find_results, written_addresses
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import counted
from machfive_provider.leads.prepare import PreparedLeads, prepare, read_leads
from machfive_provider.leads.suppression import Selection, read_suppression, select
from machfive_provider.purchase.purchase import credits_needed

__all__ = ["check"]

_SHOWN = 20
_COLUMNS = {"POSITION": "position", "WHY": "reason"}
_FIELDS = ("position", "kind", "reason")


def check(args: Namespace) -> int:
    """Report on a file of leads.

    :raises InvalidLeadsError: after the report, if a task with these policies would refuse the file
    """
    columns = _columns(args.columns)
    source = f"leads_path {args.path!r}"
    prepared = prepare(read_leads(leads_path=args.path, columns=columns), "skip", "first", source, columns)
    skipped = [*_entries("invalid", prepared.invalid), *_entries("duplicate", prepared.duplicates)]
    results = written_addresses(find_results(args.already_written)) if args.already_written else ()
    selection = select(prepared.leads, read_suppression(args.suppress or None), results)
    cost = credits_needed(len(selection.leads), {"enrichment_enabled": args.enrichment})
    needed = _policies_needed(args, prepared)
    if args.output == "csv":
        output.write_csv(skipped, _FIELDS)
    elif args.output == "json":
        output.write_json(
            {
                "path": args.path,
                "leads_given": prepared.given,
                "leads_to_send": len(selection.leads),
                "suppressed": selection.suppressed,
                "already_written": selection.already_written,
                "credits": cost,
                "would_be_refused": bool(needed),
                "fields": _filled(prepared),
                "unknown_columns": list(prepared.unknown_fields),
                "skipped": skipped,
            }
        )
    else:
        _report(args, prepared, selection, skipped, cost, needed)
    if needed:
        # The file is read again, so that the text is that of the task.
        rows = read_leads(leads_path=args.path, columns=columns)
        prepare(rows, args.on_invalid, args.on_duplicate, source, columns)
    return 0


def _policies_needed(args: Namespace, prepared: PreparedLeads) -> str:
    """Return the policies without which a task refuses the file, an empty text if it does not."""
    invalid = prepared.invalid and args.on_invalid == "fail"
    duplicates = prepared.duplicates and args.on_duplicate == "fail"
    policies = (invalid and "on_invalid_lead='skip'", duplicates and "on_duplicate_lead='first'")
    return " and ".join(each for each in policies if each)


def _report(
    args: Namespace,
    prepared: PreparedLeads,
    selection: Selection,
    skipped: list[dict[str, str]],
    cost: int,
    needed: str,
) -> None:
    enrichment = " (two a lead, with enrichment_enabled)" if args.enrichment else ""
    send = f"send {counted(len(selection.leads), 'lead')} for {counted(cost, 'credit')}{enrichment}"
    output.facts(
        {
            "File": args.path,
            "A task would": f"refuse the file; with {needed} it would {send}" if needed else send,
            "Leads in it": prepared.given,
            "Cannot be used": len(prepared.invalid) or None,
            "Duplicates": len(prepared.duplicates) or None,
            "Suppressed": selection.suppressed or None,
            "Already written": selection.already_written or None,
            "Fields filled": ", ".join(f"{name} {count}" for name, count in _filled(prepared).items()),
            "Columns not sent": ", ".join(prepared.unknown_fields) or None,
        }
    )
    if skipped:
        sys.stdout.write("\n")
        output.write(skipped[:_SHOWN], _COLUMNS, _FIELDS, "table")
    if len(skipped) > _SHOWN:
        sys.stdout.write(f"... and {len(skipped) - _SHOWN} more; -o csv shows them all.\n")


def _columns(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigurationError(
            f'--columns is not JSON: write it in single quotes, such as \'{{"email": "E-mail"}}\', not {text!r}.'
        ) from None


def _entries(kind: str, entries: tuple[str, ...]) -> list[dict[str, str]]:
    """Take ``position: reason`` apart."""
    parts = [each.partition(": ") for each in entries]
    return [{"position": position, "kind": kind, "reason": reason} for position, _, reason in parts]


def _filled(prepared: PreparedLeads) -> dict[str, int]:
    """Return how many leads have each field of the API."""
    names = [each.name for each in fields(Lead)]
    counts = {name: sum(getattr(lead, name) is not None for lead in prepared.leads) for name in names}
    return {name: count for name, count in counts.items() if count}

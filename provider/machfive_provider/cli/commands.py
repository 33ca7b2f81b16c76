"""What each command does; each takes the parsed arguments and returns its exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict

from machfive_provider.api.retries import ONCE
from machfive_provider.cli import check, lists, output
from machfive_provider.cli.connection import open_hook
from machfive_provider.exceptions import ListFailedError
from machfive_provider.foreground import export_list
from machfive_provider.formatting import counted

__all__ = ["BY_NAME", "campaigns", "export", "show"]


def campaigns(args: Namespace) -> int:
    """Show the campaigns of the workspace."""
    with open_hook(args) as hook:
        found = hook.list_campaigns(args.query)
    rows = [{"id": each.id, "name": each.name, "created_at": lists.iso(each.created_at)} for each in found]
    columns = {"CAMPAIGN ID": "id", "NAME": "name", "CREATED": "created_at"}
    if not rows and args.output == "table":
        wanted = f" with {args.query!r} in its name" if args.query else " yet"
        sys.stdout.write(f"The workspace has no campaign{wanted}.\n")
    else:
        output.write(rows, columns, tuple(columns.values()), args.output)
    return 0


def show(args: Namespace) -> int:
    """Show one list."""
    with open_hook(args) as hook:
        lead_list = hook.get_list(args.list_id)
        row = lists.row(lead_list, lists.campaign_names(hook))
    row |= {"leads_count": lead_list.leads_count, "emails_created": lead_list.emails_created}
    known = (*lists.FIELDS, "leads_count", "emails_created")
    if args.output == "json":
        output.write_json({name: row[name] for name in known})
    elif args.output == "csv":
        output.write_csv([row], known)
    else:
        output.facts(
            {
                "List": row["id"],
                "Name": row["name"],
                "Campaign": row["campaign"],
                "Status": row["status"],
                "Created": f"{row['created_at']} ({row['age']} ago)" if row["created_at"] else None,
                "Took": row["took"],
                "Leads": row["leads_count"],
                "Emails": row["emails_created"],
                "Bought": "by an Airflow task" if row["by_airflow"] else "by hand, or by another program",
                "What to do": ListFailedError.remedy if lead_list.is_failed else None,
            }
        )
    return 0


def export(args: Namespace) -> int:
    """Write the emails of a list, and fail if leads are missing."""
    # A large export may take longer than 3 seconds to begin.
    with open_hook(args, ONCE) as hook:
        figures = export_list(hook, args.list_id, args.path, args.format)
    result = asdict(figures)
    if args.output == "json":
        output.write_json(result)
    elif args.output == "csv":
        output.write_csv([{**result, "warnings": " ".join(figures.warnings)}], tuple(result))
    else:
        emails = "emails not counted" if figures.emails is None else counted(figures.emails, "email")
        sys.stdout.write(
            f"Wrote {figures.path}: {counted(figures.leads, 'lead')}, {emails}, {figures.bytes:,} bytes.\n"
        )
    for warning in figures.warnings:
        sys.stderr.write(f"{warning}\n")
    return 1 if figures.missing else 0


BY_NAME: dict[str, Callable[[Namespace], int]] = {
    "campaigns": campaigns,
    "lists": lists.lists,
    "show": show,
    "export": export,
    "check": check.check,
}

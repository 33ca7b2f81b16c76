"""List faults acted out: how a purchase's list is spoilt before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from machfive_provider.sandbox.faults import Fault
from machfive_provider.sandbox.records import LeadList, WrittenLead


def spoil(lead_list: LeadList, fault: Fault) -> None:
    """Change the list as the fault says."""
    _EFFECTS[fault.kind](lead_list, fault)


def _visible_late(lead_list: LeadList, fault: Fault) -> None:
    lead_list.visible_at = lead_list.created_at + fault.args["seconds"]


def _cut_name(lead_list: LeadList, fault: Fault) -> None:
    if lead_list.name is not None:
        lead_list.name = lead_list.name[: fault.args["length"]]


def _rewrite_name(lead_list: LeadList, fault: Fault) -> None:
    lead_list.name = fault.args["name"]


def _fail_list(lead_list: LeadList, _fault: Fault) -> None:
    lead_list.ends_failed = True


def _stuck(lead_list: LeadList, _fault: Fault) -> None:
    lead_list.stuck = True


def _lose_leads(lead_list: LeadList, fault: Fault) -> None:
    lead_list.leads = lead_list.leads[: max(0, len(lead_list.leads) - fault.args["count"])]


def _extra_leads(lead_list: LeadList, fault: Fault) -> None:
    lead_list.leads += [
        WrittenLead({"email": f"stranger{number}@elsewhere.example"}, lead_list.email_count)
        for number in range(1, fault.args["count"] + 1)
    ]


def _short_sequences(lead_list: LeadList, fault: Fault) -> None:
    lead_list.leads = [
        replace(lead, emails=lead.emails - 1) if index < fault.args["count"] else lead
        for index, lead in enumerate(lead_list.leads)
    ]


def _unknown_status(lead_list: LeadList, fault: Fault) -> None:
    lead_list.shown_as = fault.args["status"]


_EFFECTS: Mapping[str, Callable[[LeadList, Fault], None]] = {
    "visible_late": _visible_late,
    "cut_name": _cut_name,
    "rewrite_name": _rewrite_name,
    "fail_list": _fail_list,
    "stuck": _stuck,
    "lose_leads": _lose_leads,
    "extra_leads": _extra_leads,
    "short_sequences": _short_sequences,
    "unknown_status": _unknown_status,
}

"""A list: its status at any time, what it holds, and how a scripted list fault changes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from machfive_provider.sandbox.faults import Fault
from machfive_provider.sandbox.workspaces import Campaign, Workspace

TERMINAL = ("completed", "failed")
STATUSES = ("pending", "processing", *TERMINAL)


def iso(epoch: float) -> str:
    """Write a time the way the API does: UTC, milliseconds, `Z`."""
    return datetime.fromtimestamp(epoch, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class WrittenLead:
    """A lead of a list as its export will show it: the lead's fields and how many emails it gets."""

    fields: dict[str, str]
    emails: int


@dataclass
class LeadList:
    """A list. Its status at any time follows from when it was bought and how long each state lasts.

    `forced` is a status set by hand and the time of it; it is shown whatever the clock says. `shown_as`
    is shown instead of "processing". The list cannot be seen before the time `visible_at`.
    The first GET /lists/{id} sets it to the status `when_polled`.
    """

    id: str
    sequence: int
    workspace: Workspace
    campaign: Campaign
    endpoint: str
    name: str | None
    created_at: float
    leads: list[WrittenLead]
    email_count: int
    signature: str
    pending_seconds: float
    processing_seconds: float
    visible_at: float = 0.0
    ends_failed: bool = False
    stuck: bool = False
    shown_as: str = "processing"
    when_polled: str | None = None
    forced: tuple[str, float] | None = None

    def progress(self, now: float) -> tuple[str, float]:
        """Return the status at `now` and the time since when it is so, both times in epoch seconds."""
        if self.forced is not None:
            return self.forced
        if self.campaign.built_at is None:
            return "pending", self.created_at
        begun = max(self.created_at, self.campaign.built_at)
        working = begun + self.pending_seconds
        ended = working + self.processing_seconds
        if now < working:
            return "pending", begun
        if self.stuck or now < ended:
            return self.shown_as, working
        return ("failed" if self.ends_failed else "completed"), ended

    @property
    def emails_created(self) -> int:
        """Count the emails that the export holds."""
        return sum(lead.emails for lead in self.leads)


def spoil(lead_list: LeadList, fault: Fault) -> None:
    """Change a list that was just bought as the fault says."""
    args = fault.args
    match fault.kind:
        case "visible_late":
            lead_list.visible_at = lead_list.created_at + args["seconds"]
        case "cut_name":
            lead_list.name = lead_list.name and lead_list.name[: args["length"]]
        case "rewrite_name":
            lead_list.name = args["name"]
        case "fail_list":
            lead_list.ends_failed = True
        case "stuck":
            lead_list.stuck = True
        case "end_when_polled":
            lead_list.when_polled = args["status"]
        case "unknown_status":
            lead_list.shown_as = args["status"]
        case "lose_leads":
            lead_list.leads = lead_list.leads[: max(0, len(lead_list.leads) - args["count"])]
        case "extra_leads":
            lead_list.leads += [
                WrittenLead({"email": f"stranger{number}@elsewhere.example"}, lead_list.email_count)
                for number in range(1, args["count"] + 1)
            ]
        case "short_sequences":
            short = [replace(lead, emails=lead.emails - 1) for lead in lead_list.leads[: args["count"]]]
            lead_list.leads[: len(short)] = short

"""What the sandbox keeps while it runs: workspaces, lists, purchases, requests and faults, behind one lock."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from machfive_provider.sandbox.demo import demo_lists
from machfive_provider.sandbox.faults import LIST_KINDS, Fault, take_due_faults
from machfive_provider.sandbox.model import (
    TERMINAL,
    Campaign,
    Clock,
    LeadList,
    SandboxSettings,
    Signature,
    Workspace,
    WrittenLead,
    build_workspaces,
    make_uuid,
)
from machfive_provider.sandbox.validation import ApiError, GenerateRequest


@dataclass(frozen=True)
class Purchase:
    """One accepted POST: what was paid for. `list_name` is what the client asked for."""

    at: float
    workspace: str
    campaign_id: str
    endpoint: str
    list_id: str
    list_name: str | None
    emails: tuple[str, ...]
    credits: int


@dataclass
class RecordedRequest:
    """One request as it arrived. `status` is that of the response, None for no response (yet).

    `headers` has lower-case names and never the key; `authenticated` tells whether a valid one came.
    `client_port` is the other end of the connection: on this machine it leads to the asking process.
    """

    at: float
    method: str
    path: str
    endpoint: str
    query: dict[str, str]
    headers: dict[str, str]
    authenticated: bool
    user_agent: str
    json: Any
    status: int | None = None
    fault: str | None = None
    client_port: int | None = None


class Store:
    """Everything that changes while the sandbox runs.

    `changed` guards all of it, is held by whoever reads or writes more than one attribute, and is
    notified after each change.
    """

    def __init__(self, settings: SandboxSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.changed = threading.Condition()
        self.open_connections = 0
        self.hanging = 0
        self.reset()

    def reset(self) -> None:
        """Go back to the start: full credits, the demo's lists or none, nothing bought or recorded, no faults."""
        with self.changed:
            self.workspaces = build_workspaces(self.settings)
            self.lists: dict[str, LeadList] = {}
            if self.settings.demo:
                for workspace in self.workspaces:
                    shown = demo_lists(self.settings.seed, workspace, self.clock())
                    self.lists |= {each.id: each for each in shown}
            # The demo's unfinished lists take no slot from those that are bought.
            self.slots = self.settings.concurrency + self.active_batches(self.workspaces[0])
            self.purchases: list[Purchase] = []
            self.requests: list[RecordedRequest] = []
            self.faults: list[Fault] = []
            self.changed.notify_all()

    def add_fault(self, fault: Fault) -> Fault:
        """Script a fault and return it."""
        with self.changed:
            self.faults.append(fault)
        return fault

    def count(self, what: Literal["hanging", "open_connections"], by: int) -> None:
        """Add to the number of hanging requests or of open connections."""
        with self.changed:
            setattr(self, what, getattr(self, what) + by)
            self.changed.notify_all()

    def workspace_of_key(self, key: str) -> Workspace | None:
        """Find the workspace an API key belongs to."""
        return next((workspace for workspace in self.workspaces if workspace.api_key == key), None)

    def campaign(self, campaign_id: str, workspace: Workspace | None) -> Campaign:
        """Find a campaign, in any workspace for None.

        Raises ApiError 404 where there is none, and 403 where it is another workspace's.
        """
        for owner in self.workspaces:
            for campaign in owner.campaigns:
                if campaign.id == campaign_id:
                    if workspace is not None and owner is not workspace:
                        raise ApiError(403, "This campaign is not in the workspace of your API key.")
                    return campaign
        raise ApiError(404, "Campaign not found.")

    def lead_list(self, list_id: str, workspace: Workspace) -> LeadList:
        """Find a list that can be seen by now; raises ApiError 404 or 403 as `campaign` does."""
        found = self.lists.get(list_id)
        if found is None or self.clock() < found.visible_at:
            raise ApiError(404, "List not found.")
        if found.workspace is not workspace:
            raise ApiError(403, "This list is not in the workspace of your API key.")
        return found

    def visible_lists(self, workspace: Workspace | None = None) -> list[LeadList]:
        """List what can be seen by now, newest first; equal times in the reverse order of buying."""
        now = self.clock()
        found = [
            lead_list
            for lead_list in self.lists.values()
            if now >= lead_list.visible_at and workspace in (None, lead_list.workspace)
        ]
        return sorted(found, key=lambda each: (each.created_at, each.sequence), reverse=True)

    def active_batches(self, workspace: Workspace) -> int:
        """Count the unfinished batches that count towards the limit; single leads do not."""
        now = self.clock()
        return sum(
            each.workspace is workspace and each.endpoint == "generate-batch" and each.progress(now)[0] not in TERMINAL
            for each in self.lists.values()
        )

    def buy(
        self, workspace: Workspace, campaign: Campaign, request: GenerateRequest, endpoint: str, text: str
    ) -> LeadList:
        """Accept a request: take its credits, create its list and record the purchase.

        `text` is the request's path and body, for faults with `contains`. Raises ApiError where the
        request is refused; nothing is bought then.
        """
        with self.changed:
            self._check_ready(campaign, endpoint)
            signature = self._signature_text(workspace, request)
            self._check_credits(workspace, request.credits)
            if endpoint == "generate-batch" and self.active_batches(workspace) >= self.slots:
                raise ApiError(429, "Too many concurrent batch jobs in this workspace. Retry later.")
            workspace.credits -= request.credits
            lead_list = self._create_list(workspace, campaign, request, endpoint, signature)
            for fault in take_due_faults(self.faults, LIST_KINDS, endpoint, text):
                spoil(lead_list, fault)
            self.lists[lead_list.id] = lead_list
            self.purchases.append(
                Purchase(
                    at=lead_list.created_at,
                    workspace=workspace.name,
                    campaign_id=campaign.id,
                    endpoint=endpoint,
                    list_id=lead_list.id,
                    list_name=request.list_name,
                    emails=tuple(lead["email"] for lead in request.leads),
                    credits=request.credits,
                )
            )
            self.changed.notify_all()
            return lead_list

    def _check_ready(self, campaign: Campaign, endpoint: str) -> None:
        # The 2026 edition accepts a batch and lets it wait for the campaign; generate responds at once.
        waits = self.settings.generation != "2025" and endpoint == "generate-batch"
        if campaign.built_at is None and not waits:
            raise ApiError(400, "This campaign is not set up for generation.")

    def _check_credits(self, workspace: Workspace, needed: int) -> None:
        if workspace.credits >= needed:
            return
        detail = None
        if self.settings.generation != "2025":
            available = workspace.credits
            detail = {"required": needed, "available": available, "payg_enabled": False, "pct_of_cap": 100}
        message = f"You have {workspace.credits} credits remaining. Please upgrade your plan."
        raise ApiError(402, message, detail=detail)

    def _signature_text(self, workspace: Workspace, request: GenerateRequest) -> str:
        if request.signature_id is None:
            return request.signature
        for signature in workspace.signatures:
            if signature.id == request.signature_id.lower():
                return signature.signature
        raise ApiError(404, "signature_id is not a signature of this workspace.")

    def _create_list(
        self, workspace: Workspace, campaign: Campaign, request: GenerateRequest, endpoint: str, signature: str
    ) -> LeadList:
        batch = endpoint == "generate-batch"
        sequence = len(self.lists)
        return LeadList(
            id=make_uuid(self.settings.seed, "list", sequence),
            sequence=sequence,
            workspace=workspace,
            campaign=campaign,
            endpoint=endpoint,
            name=request.list_name,
            created_at=self.clock(),
            leads=[WrittenLead(lead, request.email_count) for lead in request.leads],
            email_count=request.email_count,
            signature=signature,
            pending_seconds=self.settings.pending_seconds if batch else 0.0,
            processing_seconds=self.settings.processing_seconds if batch else self.settings.generate_seconds,
        )

    def save_signature(self, workspace: Workspace, name: str, text: str) -> Signature:
        """Keep a new signature in the workspace."""
        with self.changed:
            number = len(workspace.signatures)
            signature = Signature(
                make_uuid(self.settings.seed, "signature", workspace.name, number), name, text, self.clock()
            )
            workspace.signatures.append(signature)
            self.changed.notify_all()
            return signature

    def force(self, list_id: str, status: str) -> None:
        """Give a list a status by hand; raises KeyError for an unknown list."""
        with self.changed:
            self.lists[list_id].forced = (status, self.clock())
            self.changed.notify_all()

    def rename(self, list_id: str, name: str) -> None:
        """Rename a list as a user of the web app would; raises KeyError for an unknown list."""
        with self.changed:
            self.lists[list_id].name = name
            self.changed.notify_all()

    def finish_building(self, campaign_id: str) -> None:
        """End the building of a campaign; raises ApiError 404 for an unknown one."""
        with self.changed:
            campaign = self.campaign(campaign_id, None)
            if campaign.built_at is None:
                campaign.built_at = self.clock()
            self.changed.notify_all()

    def duplicates(self) -> int:
        """Count the leads bought more than once: the same address, any case, within one campaign."""
        with self.changed:
            bought = Counter(
                (purchase.campaign_id, email.lower()) for purchase in self.purchases for email in purchase.emails
            )
        return sum(1 for times in bought.values() if times > 1)


# Fault kinds that set one attribute of a list to one of their arguments.
_SETS = {
    "rewrite_name": ("name", "name"),
    "unknown_status": ("shown_as", "status"),
    "end_when_polled": ("when_polled", "status"),
    "odd_entry": ("oddity", "oddity"),
}


def spoil(lead_list: LeadList, fault: Fault) -> None:
    """Change a list that was just bought as the fault says."""
    args = fault.args
    match fault.kind:
        case "rewrite_name" | "unknown_status" | "end_when_polled" | "odd_entry" as kind:
            attribute, argument = _SETS[kind]
            setattr(lead_list, attribute, args[argument])
        case "visible_late":
            lead_list.visible_at = lead_list.created_at + args["seconds"]
        case "cut_name":
            lead_list.name = lead_list.name and lead_list.name[: args["length"]]
        case "fail_list":
            lead_list.ends_failed = True
        case "stuck":
            lead_list.processing_seconds = math.inf
        case _:
            _spoil_leads(lead_list, fault.kind, args)


def _spoil_leads(lead_list: LeadList, kind: str, args: Mapping[str, Any]) -> None:
    leads, count = lead_list.leads, args["count"]
    match kind:
        case "lose_leads":
            lead_list.leads = leads[: max(0, len(leads) - count)]
        case "extra_leads":
            lead_list.leads += [
                WrittenLead({"email": f"stranger{number}@elsewhere.example"}, lead_list.email_count)
                for number in range(1, count + 1)
            ]
        case "short_sequences":
            leads[:count] = [replace(lead, emails=lead.emails - 1) for lead in leads[:count]]
        case "odd_leads":
            # Several faults make several leads odd.
            right = [index for index, lead in enumerate(leads) if lead.oddity is None]
            for index in right[:count]:
                leads[index] = replace(leads[index], oddity=args["oddity"])

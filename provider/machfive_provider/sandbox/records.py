"""The things the sandbox keeps: workspaces, campaigns, lists, and the books of what was asked and bought."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

TERMINAL = ("completed", "failed")
STATUSES = ("pending", "processing", *TERMINAL)


def iso(epoch: float) -> str:
    """Write a time the way the API does: UTC, milliseconds, `Z`."""
    return datetime.fromtimestamp(epoch, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Campaign:
    """A campaign; without `built_at` (epoch seconds) it is not set up for generation yet."""

    id: str
    name: str
    created_at: float
    built_at: float | None


@dataclass(frozen=True)
class Signature:
    """A saved e-mail signature, known to the newer generation alone."""

    id: str
    name: str
    signature: str
    created_at: float


@dataclass
class Workspace:
    """A customer's account. Set `credits` or `api_key` to script a top-up or a rotated key."""

    name: str
    api_key: str
    credits: int
    campaigns: list[Campaign]
    signatures: list[Signature]


@dataclass(frozen=True)
class WrittenLead:
    """A lead of a list as its export will show it: the lead's fields and how many emails it gets."""

    fields: dict[str, str]
    emails: int


@dataclass
class LeadList:
    """A list and the life before it, from which its status at any time follows.

    `forced` is a status set by hand with the time of it, and wins over the clock. `shown_as` stands in
    for "processing". `visible_at` is the time before which the list cannot be seen.
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
    forced: tuple[str, float] | None = None

    def progress(self, now: float) -> tuple[str, float]:
        """Tell the status at `now` and since when it has been so, both in epoch seconds."""
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

    def is_active(self, now: float) -> bool:
        """Tell whether the list still takes up a place in its workspace."""
        return self.progress(now)[0] not in TERMINAL

    @property
    def emails_created(self) -> int:
        """Count the emails that the export holds."""
        return sum(lead.emails for lead in self.leads)


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
    """One request as it arrived. `status` is what the client was answered, None for no answer (yet).

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

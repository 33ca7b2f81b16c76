"""Settings, workspaces, campaigns and lists; keys and ids follow from the seed."""

from __future__ import annotations

import hashlib
import math
import string
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias, TypeVar, get_args

Generation: TypeAlias = Literal["2025", "2026"]
Clock: TypeAlias = Callable[[], float]
"""Returns the time in seconds since the epoch."""
_KEY_PREFIX = "mf_live_"
_KEY_LENGTH = 32
_ALPHABET = string.ascii_letters + string.digits

T = TypeVar("T")
_READY_NAMES = (
    ("Spring Outreach", "Product Launch"),
    ("Renewal Nudge", "Partner Programme"),
    ("Autumn Webinar", "Enterprise Pilot"),
    ("Trade Fair Follow-up", "Dormant Accounts"),
)
_UNREADY_NAME = "Draft Campaign"
_FIRST_DAY = 1735894800.0  # 2025-01-03T09:00:00Z
_DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """How the sandbox behaves; the defaults make every list complete at once, which is what tests want.

    All durations are in seconds. `math.inf` as a duration means "until a test changes it by hand".
    `concurrency` is the number of unfinished batches a workspace may have, `credits` what each
    workspace starts with. `demo` fills each workspace with lists in every state (`demo.py`).

    Raises ValueError where a value makes no sense.
    """

    generation: Generation = "2025"
    host: str = "127.0.0.1"
    port: int = 0
    workspaces: int = 1
    credits: int = 2000
    concurrency: int = 3
    pending_seconds: float = 0.0
    processing_seconds: float = 0.0
    generate_seconds: float = 0.0
    seed: int = 0
    access_log: bool = False
    demo: bool = False

    def __post_init__(self) -> None:
        if self.generation not in get_args(Generation):
            raise ValueError(f"generation must be one of {', '.join(get_args(Generation))}: {self.generation!r}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be 0 to 65535: {self.port}")
        for name in ("workspaces", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: {getattr(self, name)}")
        if self.credits < 0:
            raise ValueError(f"credits must not be negative: {self.credits}")
        for name in ("pending_seconds", "processing_seconds", "generate_seconds"):
            value = getattr(self, name)
            if math.isnan(value) or value < 0:
                raise ValueError(f"{name} must not be negative: {value}")


@dataclass
class Campaign:
    """A campaign; without `built_at` (epoch seconds) it is not set up for generation yet."""

    id: str
    name: str
    created_at: float
    built_at: float | None


@dataclass(frozen=True)
class Signature:
    """A saved e-mail signature, known to the 2026 edition alone."""

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


TERMINAL = ("completed", "failed")
STATUSES = ("pending", "processing", *TERMINAL)


def iso(epoch: float) -> str:
    """Write a time the way the API does: UTC, milliseconds, `Z`."""
    return datetime.fromtimestamp(epoch, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class WrittenLead:
    """A lead of a list as its export will show it: the lead's fields, how many emails it gets, what is odd in it."""

    fields: dict[str, str]
    emails: int
    oddity: str | None = None


@dataclass
class LeadList:
    """A list. Its status at any time follows from when it was bought and how long each state lasts.

    `forced` is a status set by hand and the time of it; it is shown whatever the clock says. `shown_as`
    is shown instead of "processing". The list cannot be seen before the time `visible_at`.
    The first GET /lists/{id} sets it to the status `when_polled`. `oddity` says what is odd in its row of GET /lists.
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
    shown_as: str = "processing"
    when_polled: str | None = None
    oddity: str | None = None
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
        if now < ended:
            return self.shown_as, working
        return ("failed" if self.ends_failed else "completed"), ended

    @property
    def emails_created(self) -> int:
        """Count the emails that the export holds."""
        return sum(lead.emails for lead in self.leads)


def build_workspaces(settings: SandboxSettings) -> list[Workspace]:
    """Build every workspace anew, with full credits."""
    return [_build_workspace(settings, number) for number in range(1, settings.workspaces + 1)]


def _build_workspace(settings: SandboxSettings, number: int) -> Workspace:
    signature = Signature(
        id=make_uuid(settings.seed, "signature", f"Workspace {number}", 0),
        name="Default",
        signature=f"{pick(('Robin Vale', 'Sam Okafor', 'Kim Larsen'), settings.seed, number)}\nMachFive Sandbox",
        created_at=_FIRST_DAY,
    )
    return Workspace(
        name=f"Workspace {number}",
        api_key=make_key(settings.seed, "key", number),
        credits=settings.credits,
        campaigns=_build_campaigns(settings.seed, number),
        signatures=[signature],
    )


def _build_campaigns(seed: int, number: int) -> list[Campaign]:
    names = [*_READY_NAMES[(number - 1) % len(_READY_NAMES)], _UNREADY_NAME]
    campaigns = []
    for index, name in enumerate(names):
        created_at = _FIRST_DAY + index * 7 * _DAY
        # Ready at the epoch, so that an injected clock may start at any time.
        built_at = None if name == _UNREADY_NAME else 0.0
        campaigns.append(Campaign(make_uuid(seed, "campaign", number, index), name, created_at, built_at))
    return campaigns


def digest(*parts: object) -> bytes:
    """Hash the parts; parts are kept apart, so that ("ab", "c") and ("a", "bc") differ."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).digest()


def make_uuid(*parts: object) -> str:
    """Make the id that belongs to the parts, in the shape of a random UUID."""
    return str(uuid.UUID(bytes=digest(*parts)[:16], version=4))


def make_key(*parts: object) -> str:
    """Make the API key that belongs to the parts."""
    return _KEY_PREFIX + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest(*parts)[:_KEY_LENGTH])


def pick(options: Sequence[T], *parts: object) -> T:
    """Choose one option, always the same one for the same parts."""
    return options[int.from_bytes(digest(*parts)[:8], "big") % len(options)]

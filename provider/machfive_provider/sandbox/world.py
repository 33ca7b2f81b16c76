"""The workspaces the sandbox starts with; they follow from the seed."""

from __future__ import annotations

from machfive_provider.sandbox.identity import make_key, make_uuid, pick
from machfive_provider.sandbox.records import Campaign, Signature, Workspace
from machfive_provider.sandbox.settings import SandboxSettings

_READY_NAMES = (
    ("Spring Outreach", "Product Launch"),
    ("Renewal Nudge", "Partner Programme"),
    ("Autumn Webinar", "Enterprise Pilot"),
    ("Trade Fair Follow-up", "Dormant Accounts"),
)
_UNREADY_NAME = "Draft Campaign"
_FIRST_DAY = 1735894800.0  # 2025-01-03T09:00:00Z
_DAY = 86400.0


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
        # Ready since ever, so that an injected clock may start anywhere.
        built_at = None if name == _UNREADY_NAME else 0.0
        campaigns.append(Campaign(make_uuid(seed, "campaign", number, index), name, created_at, built_at))
    return campaigns

"""Finds a campaign by its name among those of a workspace. Nothing is sent from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from machfive_provider.api.models import Campaign
from machfive_provider.exceptions import ConfigurationError

__all__ = ["named", "refuse_name"]

_CANDIDATES = 10


def named(name: str, campaigns: Sequence[Campaign]) -> list[Campaign]:
    """Return the campaigns of that name, whatever its case."""
    return [each for each in campaigns if each.name.strip().casefold() == name.strip().casefold()]


def refuse_name(name: str, matches: Sequence[Campaign], campaigns: Sequence[Campaign]) -> NoReturn:
    """Raise the error for a name that no campaign has, or several have.

    :param matches: those that have it
    :param campaigns: all of the workspace
    """
    what, among = ("several campaigns are", matches) if matches else ("no campaign is", campaigns)
    listed = ", ".join(f"{each.name!r} ({each.id})" for each in among[:_CANDIDATES]) or "none at all"
    more = f" and {len(among) - _CANDIDATES} more" if len(among) > _CANDIDATES else ""
    raise ConfigurationError(
        f"campaign_name: {what} called {name!r} in this workspace. Give one of these names, or campaign_id: "
        f"{listed}{more}."
    )

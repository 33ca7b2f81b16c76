"""The texts of the connection form's Test button."""

from __future__ import annotations

from collections.abc import Sequence

from machfive_provider import exceptions
from machfive_provider.api.models import Campaign
from machfive_provider.formatting import counted
from machfive_provider.hooks.connection import ConnectionSettings

__all__ = ["diagnosis", "greeting"]

_NAMED = 10


def greeting(settings: ConnectionSettings, campaigns: Sequence[Campaign]) -> str:
    """Return the text for a connection that works: the campaigns of the key's workspace."""
    names = ", ".join(each.name for each in campaigns[:_NAMED]) or "none yet"
    found = counted(len(campaigns), "campaign")
    return f"Connected to {settings.client.base_url}: this key's workspace has {found} ({names})."


def diagnosis(error: Exception, settings: ConnectionSettings | None) -> str:
    """Return the text that says what is wrong with a connection; it never holds the key."""
    address = settings.client.base_url if settings else "MachFive"
    if isinstance(error, exceptions.TransportError):
        return f"{address} cannot be reached: {error.message}. Check the base URL (host), proxy and firewall."
    if isinstance(
        error, (exceptions.ProtocolError, exceptions.NotFoundError)
    ):  # MachFive never responds 404 to GET /campaigns
        return f"{address} responds, but not as the MachFive API does: {error.message}. Check the base URL (host)."
    if isinstance(error, exceptions.MachFiveError):
        return str(error)
    return f"The connection cannot be tested: {type(error).__name__}."

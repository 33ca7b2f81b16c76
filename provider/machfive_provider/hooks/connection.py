"""Reads an Airflow connection of type ``machfive`` and checks every field; the texts of the form's Test button.

Nothing is sent and nothing blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from machfive_provider import exceptions
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Campaign
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import counted

__all__ = ["ConnectionSettings", "diagnosis", "greeting"]

_NAMED = 10  # campaigns in the text of a test that succeeded


class _Connection(Protocol):
    host: str | None
    port: int | None
    password: str | None
    extra: str | None


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The fields of a connection.

    :param client: address and key
    :param namespace: keeps Airflow deployments apart that share one workspace
    :param max_concurrent_batches: the workspace's limit of batches at once, if the user gave it
    """

    client: ClientSettings
    namespace: str | None = None
    max_concurrent_batches: int | None = None

    @classmethod
    def from_connection(cls, connection: _Connection) -> ConnectionSettings:
        """Read a connection; raises ``ConfigurationError`` naming the field and the fix.

        ``extra`` is parsed here: ``extra_dejson`` talks to the supervisor and can stall the triggerer.
        """
        host = (connection.host or "").strip()
        if host and connection.port:
            host = _with_port(host, connection.port)
        extra = _extra(connection.extra)
        return cls(
            ClientSettings(host, connection.password or ""),
            namespace=_namespace(extra.get("namespace")),
            max_concurrent_batches=_positive(extra.get("max_concurrent_batches")),
        )


def _with_port(host: str, port: int) -> str:
    """Add the port to a host without one: a connection given as a URI keeps the two in separate fields."""
    scheme, separator, rest = host.rpartition("//")
    name, slash, path = rest.partition("/")
    if ":" in name.rpartition("]")[2]:
        return host
    return f"{scheme}{separator}{name}:{port}{slash}{path}"


def _extra(text: str | None) -> Mapping[str, Any]:
    if not text or not text.strip():
        return {}
    try:
        extra = json.loads(text)
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise ConfigurationError('The connection\'s extra is not a JSON object such as {"namespace": "prod"}.')
    return extra


def _namespace(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    raise ConfigurationError("The connection's extra 'namespace' must be a text.")


def _positive(value: Any) -> int | None:
    if value in (None, ""):
        return None
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else 0
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigurationError(
            "The connection's extra 'max_concurrent_batches' must be a whole number of at least 1, or left out."
        )
    return number


def greeting(settings: ConnectionSettings, campaigns: Sequence[Campaign]) -> str:
    """Return the text for a connection that works: the campaigns of the key's workspace."""
    names = ", ".join(each.name for each in campaigns[:_NAMED]) or "none yet"
    found = counted(len(campaigns), "campaign")
    return f"Connected to {settings.client.base_url}: this key's workspace has {found} ({names})."


def diagnosis(error: Exception, settings: ConnectionSettings | None) -> str:
    """Return the text that says what is wrong with a connection; it never holds the key."""
    address = settings.client.base_url if settings else "MachFive"
    if isinstance(error, exceptions.TransportError):
        return f"{error.message.replace('MachFive', address, 1)} Check the base URL (host), proxy and firewall."
    # MachFive never responds 404 to GET /campaigns.
    if isinstance(error, (exceptions.ProtocolError, exceptions.NotFoundError)):
        said = error.message.rstrip(".")
        return f"{address} responds, but not as the MachFive API does: {said}. Check the base URL (host)."
    if isinstance(error, exceptions.MachFiveError):
        return str(error)
    return f"The connection cannot be tested: {type(error).__name__}."

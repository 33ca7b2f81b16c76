"""Reads an Airflow connection of type ``machfive`` and checks every field; nothing is sent and nothing blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.exceptions import ConfigurationError

__all__ = ["ConnectionSettings"]


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
    except ValueError:
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

"""The hook of a command: by an Airflow connection, or by a key in the environment."""

from __future__ import annotations

import os
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

from machfive_provider.api.retries import QUICK, RetryPolicy
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["open_hook", "source"]

_KEY, _HOST = "MACHFIVE_API_KEY", "MACHFIVE_BASE_URL"


class _EnvironmentHook(MachFiveHook):
    """Takes key and host from the environment in place of an Airflow connection."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:  # noqa: ARG003 - Airflow's signature
        """Return what the settings are read from."""
        return SimpleNamespace(host=os.environ.get(_HOST), port=None, password=os.environ[_KEY], extra=None)


def open_hook(args: Namespace, policy: RetryPolicy = QUICK) -> MachFiveHook:
    """Return the hook that a command's arguments ask for.

    :param policy: how reads are repeated; by default each is sent once and may take 3 seconds, since a person waits
    :raises ConfigurationError: if the connection is missing or a field of it is wrong
    """
    hook = MachFiveHook(args.conn_id or MachFiveHook.default_conn_name, policy)
    if args.conn_id is None and os.environ.get(_KEY):
        hook = _EnvironmentHook(retry_policy=policy)
    try:
        _ = hook.settings
    except ConfigurationError as error:
        error.add(source(args))
        raise
    return hook


def source(args: Namespace) -> str:
    """Say where key and host came from, for whoever reads an error."""
    if args.conn_id is None and os.environ.get(_KEY):
        host = f" and the host from {_HOST}" if os.environ.get(_HOST) else ""
        return f"The API key came from the environment variable {_KEY}{host}; --conn-id takes an Airflow connection."
    conn_id = args.conn_id or MachFiveHook.default_conn_name
    return f"The Airflow connection was {conn_id!r}; --conn-id takes another one, {_KEY} a key without a connection."

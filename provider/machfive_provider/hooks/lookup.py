"""Looks an Airflow connection up, on a worker or on an event loop, and says what is wrong if that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from machfive_provider import exceptions
from machfive_provider.api.masking import key_spellings
from machfive_provider.hooks.connection import ConnectionSettings

__all__ = ["load_settings", "load_settings_async"]


def load_settings(conn_id: str, look_up: Callable[[str], Any]) -> ConnectionSettings:
    """Read a connection; raises ``ConfigurationError``.

    :param look_up: returns the Airflow connection of that id
    """
    from airflow.sdk import log

    try:
        connection = look_up(conn_id)
    except Exception as error:  # noqa: BLE001 - it is raised again as one of ours
        _refuse(conn_id, error)
    settings = ConnectionSettings.from_connection(connection)
    # Airflow masks the password as it is stored. A server may quote the key in other spellings, which httpcore logs.
    log.mask_secret([*key_spellings(settings.client.api_key)])
    return settings


async def load_settings_async(conn_id: str) -> ConnectionSettings:
    """Read a connection on an event loop; raises ``ConfigurationError``.

    Only common-compat's look-up works on the event loop of every supported Airflow's triggerer.
    """
    from airflow.providers.common.compat.connection import get_async_connection
    from airflow.sdk import log

    try:
        connection = await get_async_connection(conn_id)
    except Exception as error:  # noqa: BLE001 - it is raised again as one of ours
        _refuse(conn_id, error)
    settings = ConnectionSettings.from_connection(connection)
    # Airflow 3.1 has none; its mask_secret would block the event loop.
    if amask_secret := getattr(log, "amask_secret", None):
        await amask_secret(key_spellings(settings.client.api_key))
    return settings


def _refuse(conn_id: str, error: Exception) -> NoReturn:
    """Raise a permanent error for a connection that does not exist, a transient one if it cannot be read now."""
    if isinstance(error, AirflowNotFoundException) or "CONNECTION_NOT_FOUND" in str(error).upper():
        raise exceptions.ConfigurationError(
            f"The Airflow connection {conn_id!r} does not exist. Add one of type MachFive with the API key as its "
            "password, or name another in machfive_conn_id."
        ) from None
    raise exceptions.MachFiveTransientError(
        f"The Airflow connection {conn_id!r} could not be read ({type(error).__name__}). Airflow may be busy."
    ) from error

"""Registers the page and the button with Airflow (entry point ``airflow.plugins``).

Every process of Airflow loads plugins, so the page itself is imported at its first request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import conf

from machfive_provider.ui.link import MachFiveListLink, base_path

__all__ = ["MachFivePlugin"]


async def _page(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    from machfive_provider.ui.app import app

    await app(scope, receive, send)


class MachFivePlugin(AirflowPlugin):
    """The MachFive page, switched off by ``[machfive] ui = False``."""

    name = "machfive"
    if conf.getboolean("machfive", "ui", fallback=True):
        fastapi_apps = [{"name": "MachFive", "app": _page, "url_prefix": "/machfive"}]
        external_views = [
            {"name": "MachFive", "href": f"{base_path()}/machfive/", "url_route": "machfive", "destination": "nav"}
        ]
        operator_extra_links = [MachFiveListLink()]

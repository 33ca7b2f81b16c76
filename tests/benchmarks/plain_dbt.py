"""dbt Cloud's hook and trigger over plain http: their https is fixed, and the stand-in here has no certificate.

Airflow's triggerer imports this module by the path of the trigger.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.dbt.cloud.hooks.dbt import DbtCloudHook
from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

__all__ = ["PlainRunJobTrigger"]

_url, _connect = DbtCloudHook.get_request_url_params, DbtCloudHook.get_conn


def _plain_url(*args: Any, **kwargs: Any) -> tuple[str, dict[str, Any]]:
    url, params = _url(*args, **kwargs)
    return url.replace("https://", "http://", 1), params


def _plain_conn(self: DbtCloudHook, *args: Any, **kwargs: Any) -> Any:
    session = _connect(self, *args, **kwargs)
    self.base_url = self.base_url.replace("https://", "http://", 1)
    return session


DbtCloudHook.get_request_url_params = staticmethod(_plain_url)
DbtCloudHook.get_conn = _plain_conn


class PlainRunJobTrigger(DbtCloudRunJobTrigger):
    """The same trigger under a path of its own, so that the triggerer has loaded what is above."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of this class, and the arguments."""
        return f"{__name__}.{type(self).__name__}", super().serialize()[1]

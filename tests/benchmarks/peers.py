"""Whose waiters are measured, and how each one's trigger is made and connected."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.environment import PACKAGES
from tests.benchmarks.polling_server import api_key, list_id

__all__ = ["SUBJECTS", "Subject"]

HOURS = 6 * 3600


@dataclass(frozen=True)
class Subject:
    """One provider whose trigger waits.

    :param name: as the tables call it; a peer's is its name in the benchmarks' environment
    :param key: the id of the n-th thing that is waited for, as it ends the path of the request
    :param trigger: makes the trigger for one id and one interval
    :param connection: by the server's port, what the Airflow connection ``bench`` says
    """

    name: str
    key: Callable[[int], str]
    trigger: Callable[[str, float], Any]
    connection: Callable[[int], dict[str, Any]]

    def environment(self, port: int, connections: int = 1) -> dict[str, str]:
        """Return the variables that hold the connection ``bench``, or ``bench_0`` and so on, each with another key."""
        if connections == 1:
            return {"AIRFLOW_CONN_BENCH": json.dumps(self.connection(port))}
        return {
            f"AIRFLOW_CONN_BENCH_{number}": json.dumps({**self.connection(port), "password": api_key(number)})
            for number in range(connections)
        }


def plain(number: int) -> str:
    """Return an id as most APIs have them."""
    return str(number + 1)


def machfive(key: str, interval: float) -> Any:
    from machfive_provider.triggers.lead_list import MachFiveListTrigger

    now = time.time()
    return MachFiveListTrigger(
        list_ids=[key], machfive_conn_id="bench", poll_interval=interval, started_at=now, deadline=now + HOURS
    )


def dbt_cloud(key: str, interval: float) -> Any:
    from airflow.providers.dbt.cloud.hooks.dbt import DbtCloudHook
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    _without_tls(DbtCloudHook)
    return DbtCloudRunJobTrigger("bench", int(key), time.time() + HOURS, interval, account_id=1)


def _without_tls(hook: Any) -> None:
    """Have the hook talk plain http: its https is fixed, and the server here has no certificate."""
    original = hook.get_request_url_params
    if getattr(original, "plain", False):
        return

    def get_request_url_params(*args: Any, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        url, params = original(*args, **kwargs)
        return url.replace("https://", "http://", 1), params

    get_request_url_params.plain = True
    hook.get_request_url_params = staticmethod(get_request_url_params)


def airbyte(key: str, interval: float) -> Any:
    from airflow.providers.airbyte.triggers.airbyte import AirbyteSyncTrigger

    return AirbyteSyncTrigger(int(key), "bench", time.time() + HOURS, interval)


def http(key: str, interval: float) -> Any:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    return HttpSensorTrigger(endpoint=f"wait/{key}", http_conn_id="bench", poke_interval=interval)


def anthropic(key: str, interval: float) -> Any:
    from airflow.providers.anthropic.triggers.batch import AnthropicBatchTrigger

    return AnthropicBatchTrigger("bench", key, interval, time.time() + HOURS)


def at(scheme: str, conn_type: str, **more: Any) -> Callable[[int], dict[str, Any]]:
    """Return what makes a connection to a port of this machine."""
    return lambda port: {"conn_type": conn_type, "host": f"{scheme}127.0.0.1:{port}", "password": api_key(0), **more}


SUBJECTS = {
    each.name: each
    for each in (
        Subject("MachFive", list_id, machfive, at("http://", "machfive")),
        Subject("dbt Cloud", plain, dbt_cloud, at("", "dbt_cloud", login="1")),
        Subject("HTTP", plain, http, at("http://", "http")),
        Subject("Airbyte", plain, airbyte, at("http://", "airbyte")),
        Subject("Anthropic", plain, anthropic, at("http://", "anthropic")),
    )
}
assert {*SUBJECTS} - {"MachFive"} <= {*PACKAGES}

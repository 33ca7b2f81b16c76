"""An AIRFLOW_HOME and an environment for a standalone Airflow that nobody but this machine can reach."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"
USER = "admin"
DATABASE_PATIENCE_SECONDS = 15
_PASSWORDS = "simple_auth_manager_passwords.json.generated"


@dataclass(frozen=True)
class AirflowHome:
    """Where one Airflow lives and how it is reached."""

    path: Path
    dags_folders: Sequence[Path]
    parallelism: int
    port: int
    env: dict[str, str] = field(repr=False)
    passwords: Mapping[str, str] = field(repr=False)

    @property
    def password(self) -> str:
        """The admin's."""
        return self.passwords[USER]

    @property
    def base_url(self) -> str:
        """The address of the UI and of the REST API."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def database(self) -> Path:
        """The SQLite file with all of Airflow's metadata."""
        return self.path / "airflow.db"

    @property
    def logs(self) -> Path:
        """The folder of all task and trigger logs."""
        return self.path / "logs"

    @property
    def process_log(self) -> Path:
        """What the Airflow processes themselves print."""
        return self.path / "standalone.log"


def prepare_home(
    path: Path,
    dags_folders: Sequence[Path],
    *,
    parallelism: int,
    extra_env: Mapping[str, str],
    users: Mapping[str, str] | None = None,
) -> AirflowHome:
    """Write the files Airflow looks for in its home and put together its environment.

    :param users: roles of simple auth by name, beside the admin
    """
    path = path.resolve()
    (path / "config").mkdir(parents=True, exist_ok=True)
    local_settings = Path(__file__).with_name("loopback_settings.py").read_text()
    (path / "config" / "airflow_local_settings.py").write_text(local_settings)
    # Chosen here, because Airflow would print its choice into the log.
    roles = {USER: "admin", **(users or {})}
    credentials = {user: secrets.token_urlsafe(12) for user in roles}
    passwords = path / _PASSWORDS
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps(credentials) + "\n")
    folders = [folder.resolve() for folder in dags_folders]
    port, worker_logs, trigger_logs = _free_ports(3)
    env = _own_environment()
    env |= _settings(path, folders, parallelism=parallelism, port=port, log_ports=(worker_logs, trigger_logs))
    env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = ",".join(f"{user}:{role}" for user, role in roles.items())
    env |= extra_env
    return AirflowHome(path, folders, parallelism, port, env, credentials)


def _own_environment() -> dict[str, str]:
    """Return the caller's environment without Airflow settings, with our interpreter's scripts first on PATH."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # `airflow standalone` starts its components by the bare name `airflow`.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    # The components talk to each other over loopback, never through a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), LOOPBACK, "localhost"]))
    env["PYTHONUNBUFFERED"] = "1"
    env.pop("FORCE_COLOR", None)
    env["NO_COLOR"] = "1"
    return env


def _settings(
    path: Path, folders: list[Path], *, parallelism: int, port: int, log_ports: tuple[int, int]
) -> dict[str, str]:
    base_url = f"http://{LOOPBACK}:{port}"
    bundles = [
        {
            "name": f"folder-{number}",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder)},
        }
        for number, folder in enumerate(folders, start=1)
    ]
    settings: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": folders[0],
            "load_examples": False,
            "executor": "LocalExecutor",
            "parallelism": parallelism,
            "max_active_tasks_per_dag": parallelism,
            "dags_are_paused_at_creation": True,
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_all_admins": False,
            "simple_auth_manager_passwords_file": path / _PASSWORDS,
            "execution_api_server_url": f"{base_url}/execution/",
            "hostname_callable": "airflow_local_settings.host_name",
        },
        "database": {
            # SQLite has one writer at a time; on a busy machine its 5 s of patience end in "database is locked". For as
            # long the API server may stand still: see `AirflowApi.create_run`.
            "sql_alchemy_conn": f"sqlite:///{path / 'airflow.db'}?timeout={DATABASE_PATIENCE_SECONDS}",
            "load_default_connections": False,
        },
        "api": {
            "host": LOOPBACK,
            "port": port,
            "workers": 1,
            "base_url": base_url,
            "secret_key": secrets.token_hex(32),
        },
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
        "logging": {
            "base_log_folder": path / "logs",
            "worker_log_server_port": log_ports[0],
            "trigger_log_server_port": log_ports[1],
            # Airflow 3.1 listens on the port above and fetches logs from this one (file_task_handler.py).
            "triggerer_log_server_port": log_ports[1],
        },
        "dag_processor": {
            "dag_bundle_config_list": json.dumps(bundles),
            "parsing_processes": 1,
            "refresh_interval": 30,
            # Files do not change under a run; parsing them again and again would take CPU from the tasks.
            "min_file_process_interval": 60,
        },
        # These decide how long a finished task waits for its successor, and a fired trigger for its task.
        "scheduler": {"scheduler_idle_sleep_time": 0.25, "enable_health_check": False},
        "triggerer": {"job_heartbeat_sec": 2},
        "usage_data_collection": {"enabled": False},
        "metrics": {"statsd_on": False},
    }
    return {"AIRFLOW_HOME": str(path)} | {
        f"AIRFLOW__{section}__{name}".upper(): str(value)
        for section, values in settings.items()
        for name, value in values.items()
    }


def _free_ports(count: int) -> list[int]:
    """Return ports nobody listens on now, held together so that no two are the same."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]

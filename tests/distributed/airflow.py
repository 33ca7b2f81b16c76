"""The Airflow of a run: eight processes that might be on five machines, started again a few seconds after they die."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from scripts.restarting_airflow import Component, RestartingAirflow
from tests.distributed.plan import Plan
from tests.distributed.servers import with_driver

__all__ = ["DistributedAirflow"]

# No process sees what another keeps in memory or as its host name; all share one folder of logs.
HOSTS = {"worker-1": "127.0.0.11", "worker-2": "127.0.0.12", "triggerer-1": "127.0.0.21", "triggerer-2": "127.0.0.22"}
_RUNNING_TASKS = "SELECT count(*) FROM task_instance WHERE state = 'running' AND hostname = :host"
_TRIGGERS = """
SELECT count(*) FROM trigger JOIN job ON job.id = trigger.triggerer_id
WHERE job.hostname = :host AND job.state = 'running'
"""
_TRIGGERERS = "SELECT id, hostname FROM job WHERE job_type = 'TriggererJob'"
_ALIVE = """
SELECT job_type, count(*) FROM job WHERE state = 'running' AND latest_heartbeat > now() - interval '15 s' GROUP BY 1
"""


class DistributedAirflow(RestartingAirflow):
    """Two schedulers, Celery workers and triggerers, an API server and a DAG processor.

    :param database: URL of an empty PostgreSQL database
    :param broker: URL of a Redis database
    """

    def __init__(
        self, home: Path, plan: Plan, *, database: str, broker: str, wanted: list[str], env: dict[str, str]
    ) -> None:
        servers = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": with_driver(database, "psycopg2"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": with_driver(database, "asyncpg"),
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{with_driver(database, 'psycopg2')}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
        }
        super().__init__(
            home,
            Path(__file__).with_name("dags"),
            wanted=wanted,
            # Of each scheduler: as many tasks as there are slots, so that none waits long in Redis.
            parallelism=2 * plan.slots,
            env={**plan.airflow_settings(), **servers, **env},
        )
        self.components = components(self.home.path, plan.restart_pause)
        self._engine = create_engine(with_driver(database, "psycopg2"), isolation_level="AUTOCOMMIT")

    def wait_for_all(self, timeout: float) -> None:
        """Wait until both of each are at work."""
        self.wait_for("two schedulers and triggerers", self._are_two, timeout=timeout)
        for name in ("worker-1", "worker-2"):
            log = self.home.path / f"{name}.log"
            self.wait_for(f"Celery worker {name}", lambda log=log: b" ready." in log.read_bytes(), timeout=timeout)

    def stop(self) -> None:
        """Stop all that was started here."""
        super().stop()
        self._engine.dispose()

    def held_by(self, component: str) -> int | None:
        """Count the tasks that run on a worker, or the triggers of a triggerer; None for other components."""
        if component not in HOSTS:
            return None
        query = _RUNNING_TASKS if component.startswith("worker") else _TRIGGERS
        return int(self._ask(query, host=HOSTS[component])[0][0])

    def triggerers(self) -> dict[int, str]:
        """Return the triggerer of each of Airflow's triggerer jobs; a restart is a new job."""
        names = {host: name for name, host in HOSTS.items()}
        return {number: names[host] for number, host in self._ask(_TRIGGERERS)}

    def states(self) -> Counter[tuple[str, str]]:
        """Count the task instances by DAG and state."""
        found = self._ask("SELECT dag_id, coalesce(state, 'none'), count(*) FROM task_instance GROUP BY 1, 2")
        return Counter({(dag_id, state): count for dag_id, state, count in found})

    def unfinished_runs(self) -> int:
        """Count the DAG runs that go on."""
        return int(self._ask("SELECT count(*) FROM dag_run WHERE state IN ('queued', 'running')")[0][0])

    def _are_two(self) -> bool:
        alive = dict(self._ask(_ALIVE))
        return all(alive.get(job, 0) >= 2 for job in ("SchedulerJob", "TriggererJob"))

    def _ask(self, query: str, **values: Any) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(text(query), values))


def components(home: Path, pause: float) -> list[Component]:
    """Return all processes. The logs are read from the folder, so nothing has to serve them."""

    def one(name: str, *arguments: str) -> Component:
        return Component(name, arguments, pause=pause, host=HOSTS.get(name, "127.0.0.1"))

    def worker(name: str) -> Component:
        pid = str(home / f"{name}.celery.pid")
        return one(name, "celery", "worker", "--celery-hostname", f"{name}@%h", "--skip-serve-logs", "--pid", pid)

    return [
        one("api-server", "api-server"),
        one("dag-processor", "dag-processor"),
        one("scheduler-1", "scheduler", "--skip-serve-logs"),
        one("scheduler-2", "scheduler", "--skip-serve-logs"),
        one("triggerer-1", "triggerer", "--skip-serve-logs"),
        one("triggerer-2", "triggerer", "--skip-serve-logs"),
        worker("worker-1"),
        worker("worker-2"),
    ]

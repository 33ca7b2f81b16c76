"""The few calls of Airflow's REST API that it takes to run a DAG and watch it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from scripts.airflow_home import DATABASE_PATIENCE_SECONDS

FINISHED = frozenset({"success", "failed"})
# The API does not announce changes of state. One poll is one small query.
POLL_SECONDS = 0.5


class AirflowApiError(RuntimeError):
    """Airflow's REST API answered with an error; the text holds its reason."""


@dataclass(frozen=True)
class TaskResult:
    """One task instance at the moment of a poll: unmapped tasks have map index -1."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    start_date: datetime | None
    end_date: datetime | None
    duration: float | None


@dataclass(frozen=True)
class DagRunResult:
    """One DAG run at the moment of a poll, its task instances in a stable order."""

    dag_id: str
    run_id: str
    state: str
    tasks: tuple[TaskResult, ...]

    def task(self, task_id: str, map_index: int = -1) -> TaskResult:
        """Return one task instance; KeyError, which names those there are, if it is not among them."""
        for task in self.tasks:
            if (task.task_id, task.map_index) == (task_id, map_index):
                return task
        known = ", ".join(f"{task.task_id}[{task.map_index}]" for task in self.tasks) or "none"
        raise KeyError(f"no task instance {task_id}[{map_index}] in {self.dag_id}; there are: {known}")


class AirflowApi:
    """A logged-in client of one Airflow; see LiveAirflow for one that brings its own Airflow."""

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self.base_url = base_url
        self._user = user
        self._password = password
        # Environment proxies are for the outside world; this Airflow is on loopback.
        self._http = httpx.Client(base_url=base_url, timeout=DATABASE_PATIENCE_SECONDS + 5, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def log_in(self) -> None:
        """Fetch a bearer token as any user of the API would."""
        response = self._http.post("/auth/token", json={"username": self._user, "password": self._password})
        if response.status_code != httpx.codes.CREATED:
            raise AirflowApiError(f"log-in answered {response.status_code}: {response.text[:500]}")
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def health(self) -> dict[str, str | None]:
        """Return each component's status; nothing at all while the API server is not up."""
        try:
            response = self._http.get("/api/v2/monitor/health", timeout=5.0)
        except httpx.TransportError:
            return {}
        if response.status_code != httpx.codes.OK:
            return {}
        return {name: component.get("status") for name, component in response.json().items() if component}

    def dag_ids(self) -> set[str]:
        """Return the DAGs that have been parsed."""
        return {dag["dag_id"] for dag in self._call("GET", "/dags", params={"limit": 100})["dags"]}

    def import_errors(self) -> dict[str, str]:
        """Return the stack trace of each DAG file that could not be imported."""
        found = self._call("GET", "/importErrors", params={"limit": 100})["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in found}

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        logical_date: datetime | None = None,
    ) -> str:
        """Create a run and unpause its DAG; return the run's id."""
        created = self.create_run(dag_id, conf, run_id=run_id, logical_date=logical_date)
        self.unpause(dag_id)
        return created

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs begin."""
        self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def unpause_all(self) -> None:
        """Let the runs of all DAGs begin: one write where many tasks begin at once, see `create_run`."""
        self._call("PATCH", "/dags", params={"dag_id_pattern": "%", "limit": 100}, json={"is_paused": False})

    def create_run(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        logical_date: datetime | None = None,
    ) -> str:
        """Create a run, which waits while its DAG is paused; return its id.

        Several runs are best created before the first DAG is unpaused: Airflow writes its audit log on the API
        server's event loop, and on SQLite that write blocks while a task's own write waits for the same loop. After
        `DATABASE_PATIENCE_SECONDS` a request fails with 500, or the scheduler ends.
        """
        body: dict[str, Any] = {
            "conf": dict(conf or {}),
            "logical_date": logical_date.isoformat() if logical_date else None,
        }
        if run_id:
            body["dag_run_id"] = run_id
        return str(self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def run_ids(self, dag_id: str) -> list[str]:
        """Return the runs of a DAG, whoever created them."""
        return [
            run["dag_run_id"] for run in self._call("GET", f"/dags/{dag_id}/dagRuns", params={"limit": 100})["dag_runs"]
        ]

    def question(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        """Return what a human-in-the-loop task asks and was answered; None if it has not asked yet."""
        found = self._call("GET", f"{_task_path(dag_id, run_id, task_id)}/-1/hitlDetails", missing=None)
        return dict(found) if found else None

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        """Choose an option of a human-in-the-loop task, as its user would under Required actions.

        A 409 says that it was taken all the same, by a request before that Airflow answered with an error.
        """
        path = f"{_task_path(dag_id, run_id, task_id)}/-1/hitlDetails"
        response = self._send("PATCH", path, json={"chosen_options": [option]})
        if response.status_code != httpx.codes.CONFLICT:
            self._check(response)

    def create_pool(self, name: str, slots: int, *, include_deferred: bool = False) -> None:
        """Create a pool of task slots."""
        body = {"name": name, "slots": slots, "include_deferred": include_deferred}
        self._call("POST", "/pools", json=body)

    def create_connection(self, conn_id: str, connection: Mapping[str, Any]) -> None:
        """Create a connection in Airflow's database, where Admin > Connections shows it."""
        self._call("POST", "/connections", json={"connection_id": conn_id, **connection})

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear all tasks of a run, as its user would in the UI."""
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True}
        self._call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def clear_task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Clear one task instance, as its user would in the UI."""
        which = task_id if map_index < 0 else [task_id, map_index]
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": False,
            "reset_dag_runs": True,
            "task_ids": [which],
        }
        self._call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with all that Airflow knows of it."""
        self._call("DELETE", _run_path(dag_id, run_id))

    def get_run(self, dag_id: str, run_id: str) -> DagRunResult:
        """Return the run's state and those of its task instances, now."""
        run = self._call("GET", _run_path(dag_id, run_id))
        found: list[dict[str, Any]] = []
        while True:
            page = self._call(
                "GET", f"{_run_path(dag_id, run_id)}/taskInstances", params={"limit": 100, "offset": len(found)}
            )
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                break
        tasks = [
            TaskResult(
                task_id=task["task_id"],
                map_index=task["map_index"],
                state=task["state"],
                try_number=task["try_number"],
                start_date=_when(task["start_date"]),
                end_date=_when(task["end_date"]),
                duration=task["duration"],
            )
            for task in found
        ]
        far_future = datetime.max.replace(tzinfo=UTC)
        tasks.sort(key=lambda task: (task.start_date or far_future, task.task_id, task.map_index))
        return DagRunResult(dag_id, run_id, run["state"], tuple(tasks))

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout: float,
        on_progress: Callable[[DagRunResult], None] | None = None,
    ) -> DagRunResult:
        """Poll until the run is finished; `on_progress` is called with each poll's result, the last one included."""
        return self.wait_until(
            dag_id, run_id, lambda run: run.state in FINISHED, timeout=timeout, on_progress=on_progress
        )

    def wait_until(
        self,
        dag_id: str,
        run_id: str,
        condition: Callable[[DagRunResult], bool],
        *,
        timeout: float,
        on_progress: Callable[[DagRunResult], None] | None = None,
    ) -> DagRunResult:
        """Poll until the run fulfils a condition, such as a task being deferred."""
        deadline = time.monotonic() + timeout
        while True:
            run = self.get_run(dag_id, run_id)
            if on_progress:
                on_progress(run)
            if condition(run):
                return run
            if time.monotonic() >= deadline:
                states = ", ".join(f"{task.task_id}[{task.map_index}]={task.state}" for task in run.tasks)
                raise TimeoutError(f"{dag_id} / {run_id} is still {run.state} after {timeout:.0f} s ({states})")
            time.sleep(POLL_SECONDS)

    def triggering_events(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the asset events that the finished runs of a DAG were created for, with their `extra`.

        For a run that has not started, Airflow 3.3.2 answers 500: a start_date of None does not fit its own response.
        """
        runs = self._call("GET", f"/dags/{dag_id}/dagRuns", params={"limit": 100})["dag_runs"]
        found: list[dict[str, Any]] = []
        for run in runs:
            if run["state"] in FINISHED:
                path = f"{_run_path(dag_id, run['dag_run_id'])}/upstreamAssetEvents"
                found += self._call("GET", path)["asset_events"]
        return found

    def asset_events(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the asset events that the tasks of a DAG have caused."""
        found = self._call("GET", "/assets/events", params={"source_dag_id": dag_id, "limit": 100})
        return list(found["asset_events"])

    def wait_for(self, what: str, condition: Callable[[], bool], *, timeout: float) -> None:
        """Poll until a condition holds; `what` is waited for, for the message of the TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no {what} after {timeout:.0f} s")
            time.sleep(POLL_SECONDS)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task pushed; None if it pushed nothing under this key."""
        path = f"{_task_path(dag_id, run_id, task_id)}/xcomEntries/{key}"
        params = {"map_index": map_index, "stringify": False}
        entry = self._call("GET", path, params=params, missing=None)
        return entry["value"] if entry else None

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try as the UI shows it, one line an event."""
        response = self._http.get(
            f"/api/v2{_task_path(dag_id, run_id, task_id)}/logs/{try_number}",
            params={"map_index": map_index, "full_content": True},
            headers={"Accept": "application/x-ndjson"},
        )
        self._check(response)
        return "\n".join(_log_line(json.loads(line)) for line in response.text.splitlines() if line)

    def extra_links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """Return the operator's buttons and where they lead."""
        path = f"{_task_path(dag_id, run_id, task_id)}/links"
        return dict(self._call("GET", path, params={"map_index": map_index})["extra_links"])

    def _call(self, method: str, path: str, *, missing: Any = ..., **kwargs: Any) -> Any:
        response = self._send(method, path, **kwargs)
        if missing is not ... and response.status_code == httpx.codes.NOT_FOUND:
            return missing
        self._check(response)
        return response.json() if response.content else None

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send a request, up to five times while the answer is 500, as for a locked database: see `create_run`."""
        for _ in range(5):
            response = self._http.request(method, f"/api/v2{path}", **kwargs)
            if response.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                break
        return response

    @staticmethod
    def _check(response: httpx.Response) -> None:
        if response.is_error:
            request = response.request
            raise AirflowApiError(
                f"{request.method} {request.url.path} answered {response.status_code}: {response.text[:500]}"
            )


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{run_id}"


def _task_path(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}"


def _when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _log_line(event: dict[str, Any]) -> str:
    """Flatten a structured log event without losing a field: a search of the log must see all of it."""
    head = [str(event.pop(key)) for key in ("timestamp", "level", "event") if event.get(key)]
    return " ".join(head + [f"{key}={value}" for key, value in event.items() if value is not None])

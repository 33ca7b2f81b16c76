"""A real Airflow on this machine: API server, scheduler, triggerer, DAG processor and a local executor.

`make run` shows the example on it and the end-to-end tests drive it. It lives in one directory, listens on
loopback only, and leaves no process behind, however its owner ends.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from scripts.airflow_api import POLL_SECONDS, AirflowApi, AirflowApiError, DagRunResult, TaskResult
from scripts.airflow_home import USER, AirflowHome, prepare_home
from scripts.guard import end_session, session_members

__all__ = ["AirflowNotReadyError", "DagRunResult", "LiveAirflow", "TaskResult"]

ASKING = ("awaiting_input", "deferred")  # states of a task that waits for a person; before Airflow 3.3 the second
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
# The guard gives Airflow 15 s to end by itself, then kills it.
GUARD_SECONDS = 25.0


class AirflowNotReadyError(RuntimeError):
    """Airflow did not come up; the text holds what was missing and the end of its log."""


class LiveAirflow(AirflowApi):
    """`airflow standalone` with the interpreter that runs this, and a logged-in client of it.

    `home` is used as AIRFLOW_HOME and should be empty. `wanted` are the DAGs that must be parsed before
    `start` returns. `env` is added to the environment of every Airflow process, AIRFLOW_CONN_... for one. `users` are
    roles of simple auth by name, beside the admin.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path | Sequence[Path],
        *,
        wanted: Iterable[str] = (),
        parallelism: int = 4,
        env: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        folders = [dags_folder] if isinstance(dags_folder, Path) else list(dags_folder)
        self.home: AirflowHome = prepare_home(
            home, folders, parallelism=parallelism, extra_env=env or {}, users=users or {}
        )
        self.wanted = frozenset(wanted)
        self.user = USER
        self.password = self.home.password
        self._guard: subprocess.Popen[bytes] | None = None
        super().__init__(self.home.base_url, self.user, self.password)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 180.0, on_progress: Callable[[str], None] | None = None) -> float:
        """Start Airflow; return, with the seconds it took, once DAGs can run.

        `on_progress` is called at each poll with what is still being waited for.
        """
        started = time.monotonic()
        guard = Path(__file__).with_name("guard.py")
        with self.home.process_log.open("wb") as log:
            self._guard = subprocess.Popen(  # noqa: S603 - this Python, our own scripts
                [sys.executable, str(guard), *self.command()],
                cwd=self.home.path,
                env=self.home.env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the caller, who then stops Airflow in order.
                start_new_session=True,
            )
        try:
            self._wait_until_ready(started + timeout, on_progress or (lambda _stage: None))
        except BaseException:
            self.stop()
            raise
        return time.monotonic() - started

    def command(self) -> list[str]:
        """Return what the guard runs: all of Airflow in one command."""
        return [sys.executable, "-m", "airflow", "standalone"]

    def stop(self) -> None:
        """Stop every process that was started here; raise if one is left. Stopping twice does no harm."""
        self.close()
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if guard.stdin:
            guard.stdin.close()
        try:
            guard.wait(GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()
        # Processes are left only where the guard itself was killed; its session id still finds them.
        if session_members(guard.pid) and (left := end_session(guard.pid, grace=5.0)):
            raise RuntimeError(f"Airflow processes outlived SIGKILL: {left}")

    def answer_when_asked(self, dag_id: str, run_id: str, task_id: str, option: str, timeout: float) -> dict[str, Any]:
        """Wait for a human-in-the-loop task to ask, choose an option, and return the question.

        Airflow fails a task that is resumed before its scheduler heard of the question, so its log is waited for.
        """
        known = f"TaskInstance Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id}, "

        def is_waiting(run: DagRunResult) -> bool:
            tries = [task.try_number for task in run.tasks if task.task_id == task_id and task.state in ASKING]
            heard = [line for line in self.home.process_log.read_text(errors="replace").splitlines() if known in line]
            return any(f"try_number={number}," in line for number in tries for line in heard)

        self.wait_until(dag_id, run_id, is_waiting, timeout=timeout)
        asked = self.question(dag_id, run_id, task_id)
        if asked is None:
            raise AirflowApiError(f"{dag_id}.{task_id} waits for a person, but has asked nothing")
        self.answer(dag_id, run_id, task_id, option)
        return asked

    @property
    def is_running(self) -> bool:
        """Whether Airflow was started and has not ended by itself since."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def session_id(self) -> int:
        """The session that all of this Airflow's processes, and no others, are in."""
        if self._guard is None:
            raise RuntimeError("this Airflow is not running")
        return self._guard.pid

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of what the Airflow processes printed."""
        if not self.home.process_log.exists():
            return "(no log)"
        return "\n".join(self.home.process_log.read_text(errors="replace").splitlines()[-lines:])

    def _wait_until_ready(self, deadline: float, on_progress: Callable[[str], None]) -> None:
        logged_in = False
        while True:
            missing, logged_in = self._missing(logged_in=logged_in)
            if not missing:
                return
            on_progress(missing)
            if self._guard and self._guard.poll() is not None:
                raise self._not_ready(f"Airflow ended with exit code {self._guard.returncode}")
            if time.monotonic() >= deadline:
                raise self._not_ready(f"Airflow is not ready, still missing: {missing}")
            time.sleep(POLL_SECONDS)

    def _missing(self, *, logged_in: bool) -> tuple[str, bool]:
        """Say what is not there yet, if anything, and whether we are logged in."""
        health = self.health()
        if not health:
            return "API server", logged_in
        try:
            if not logged_in:
                self.log_in()
        except (AirflowApiError, httpx.TransportError) as error:
            return f"log-in ({error})", False
        if sick := [name for name in COMPONENTS if health.get(name) != "healthy"]:
            return ", ".join(name.replace("_", " ") for name in sick), True
        if absent := self.wanted - self.dag_ids():
            # A file that was parsed and is broken stays broken.
            if errors := self.import_errors():
                raise self._not_ready(
                    "\n".join(f"{name} cannot be imported:\n{trace}" for name, trace in errors.items())
                )
            return f"DAGs {', '.join(sorted(absent))}", True
        return "", True

    def _not_ready(self, why: str) -> AirflowNotReadyError:
        return AirflowNotReadyError(f"{why}\n\nThe end of {self.home.process_log}:\n{self.log_tail()}")

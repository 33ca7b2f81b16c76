"""The run itself: servers, a sandbox, an Airflow, and kills on the way until everything is done or time is up."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx

from machfive_provider.sandbox import Sandbox
from scripts.airflow_api import AirflowApiError, DagRunResult
from tests.chaos.accounting import Accounts, check_accounts
from tests.chaos.faults import POST
from tests.chaos.kills import component_processes, kill_all
from tests.chaos.task_logs import Endings, read_endings
from tests.distributed.airflow import DistributedAirflow
from tests.distributed.logs import triggers_started, worker_starts
from tests.distributed.people import WATCHED, People
from tests.distributed.plan import HINT, PEOPLE, Plan
from tests.distributed.servers import database_url, redis_url

RUN_ID = "distributed"
START_SECONDS = 420.0
STEP_SECONDS = 0.25
REPORT_SECONDS = 15.0
# Airflow makes a run of the last events once its scheduler comes to it.
EVENT_SECONDS = 90.0


@dataclass(frozen=True)
class Kill:
    """A SIGKILL of a component with all its processes. `held`: its running tasks or triggers, None if it has none."""

    component: str
    batches_done: int
    processes: int
    held: int | None


@dataclass(frozen=True)
class Half:
    """What one half of the batches took."""

    posts: int
    refused: int
    worker_starts: int


@dataclass(frozen=True)
class Outcome:
    """All that is known at the end of a run."""

    plan: Plan
    startup: float  # seconds
    seconds: float
    list_seconds: float
    load: tuple[float, float, float]
    runs: tuple[DagRunResult, ...]
    kills: tuple[Kill, ...]
    ends: Mapping[str, int]
    accounts: Accounts
    endings: Endings
    halves: Mapping[str, Half]
    requests: Mapping[str, int]
    triggers: Mapping[str, int]
    unreported: Mapping[str, set[str]]

    @property
    def unfinished(self) -> list[str]:
        """Name the task instances that are no success."""
        return [
            f"{run.dag_id} {task.task_id}[{task.map_index}]: {task.state}, try {task.try_number}"
            for run in self.runs
            for task in run.tasks
            if task.state != "success"
        ]


class DistributedRun:
    """One run: its servers, its sandbox, its Airflow and its files."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self.folder, self._say = plan, folder, say
        self.results = folder / "results"
        self.results.mkdir(parents=True)
        self.dag_ids = [*(f"distributed_{half}" for half in plan.modes), "distributed_sensors"]
        self._kills: list[Kill] = []
        self._left = list(plan.kills)
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Run everything to its end; what was started is stopped in any case."""
        with Sandbox(self.plan.sandbox_settings()) as sandbox:
            people = People(sandbox, self.plan.sensors)
            with self._airflow(sandbox, people) as airflow:
                startup, self._began = time.monotonic() - self._began, time.monotonic()
                for dag_id in self.dag_ids:
                    airflow.create_run(dag_id, run_id=RUN_ID)
                self._watch(airflow, people, self.plan.list_part * startup)
                seconds = time.monotonic() - self._began
                unreported = {name: self._unreported(airflow, people, name) for name in WATCHED}
                runs = tuple(airflow.get_run(dag_id, RUN_ID) for dag_id in self.dag_ids)
                triggerers, ends = airflow.triggerers(), airflow.ends()
        logs = airflow.home.logs
        return Outcome(
            plan=self.plan,
            startup=startup,
            seconds=seconds,
            list_seconds=self.plan.list_part * startup,
            load=os.getloadavg(),
            runs=runs,
            kills=tuple(self._kills),
            ends=ends,
            accounts=check_accounts(self.plan, sandbox, self.results, {}),
            endings=read_endings(logs),
            halves={half: self._half(sandbox, number, logs) for number, half in enumerate(self.plan.modes)},
            requests=Counter(each.endpoint for each in sandbox.requests),
            triggers=triggers_started(logs, triggerers),
            unreported=unreported,
        )

    def _half(self, sandbox: Sandbox, workspace: int, logs: Path) -> Half:
        campaign_id = sandbox.workspaces[workspace].campaigns[0].id
        posts = [each for each in sandbox.requests_to(POST) if campaign_id in each.path]
        refused = sum(each.status == 429 for each in posts)
        return Half(len(posts), refused, worker_starts(logs, self.dag_ids[workspace]))

    @contextmanager
    def _airflow(self, sandbox: Sandbox, people: People) -> Iterator[DistributedAirflow]:
        workspaces = dict(zip((*self.plan.modes, PEOPLE), sandbox.workspaces, strict=True))
        settings = {
            "campaign_ids": {half: workspaces[half].campaigns[0].id for half in self.plan.modes},
            "list_ids": [*people.lists],
            "watched": WATCHED,
            "results": str(self.results),
            "batches": self.plan.batches,
            "leads": self.plan.leads,
            "poll_interval": self.plan.poll_interval,
            "watch_interval": self.plan.watch_interval,
            "retries": self.plan.retries,
            "retry_delay": self.plan.retry_delay,
        }
        env = {"MACHFIVE_DISTRIBUTED": json.dumps(settings)}
        for name, workspace in workspaces.items():
            connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": workspace.api_key}
            extra = {"extra": {"max_concurrent_batches": self.plan.concurrency}} if name == HINT else {}
            env[f"AIRFLOW_CONN_MACHFIVE_{name.upper()}"] = json.dumps({**connection, **extra})
        wanted = [*self.dag_ids, *(f"distributed_{name}" for name in WATCHED)]
        with database_url() as database, redis_url() as broker:
            home = self.folder / "airflow"
            airflow = DistributedAirflow(home, self.plan, database=database, broker=broker, wanted=wanted, env=env)
            airflow.start(START_SECONDS)
            try:
                airflow.wait_for_all(START_SECONDS)
                # The watchers begin with what ends after their first poll.
                sandbox.wait_for_requests("lists", 6, START_SECONDS)
                self._say(f"Airflow is up after {time.monotonic() - self._began:.0f} s.")
                yield airflow
            finally:
                airflow.stop()

    def _watch(self, airflow: DistributedAirflow, people: People, list_seconds: float) -> None:
        """Kill and let lists end, as the batches get done: Airflow and the files announce nothing."""
        pace, next_report = Event(), self._began
        while time.monotonic() - self._began < self.plan.timeout:
            done = len(list(self.results.glob("*.jsonl")))
            part = done / self.plan.all_batches
            people.step(part)
            _end_batches(people.sandbox, older_than=list_seconds)
            if self._left and part >= self._left[0][0]:
                self._kill(airflow, self._left[0][1], done)
            if not airflow.is_running:
                raise RuntimeError(f"Airflow has ended:\n{airflow.log_tail()}")
            if time.monotonic() >= next_report:
                next_report += REPORT_SECONDS
                self._report(airflow, done)
            if not airflow.unfinished_runs():
                self._report(airflow, done)
                return
            pace.wait(STEP_SECONDS)

    def _kill(self, airflow: DistributedAirflow, component: str, done: int) -> None:
        """Kill a component, a worker or a triggerer not before it has something to do."""
        held = airflow.held_by(component)
        processes = component_processes(airflow, component)
        if held != 0 and processes and kill_all(processes):
            self._kills.append(Kill(component, done, len(processes), held))
            self._left.pop(0)
            self._say(f"{time.monotonic() - self._began:4.0f} s  killed {self._kills[-1]}")

    def _report(self, airflow: DistributedAirflow, done: int) -> None:
        states = airflow.states()
        counts = [
            f"{dag_id.removeprefix('distributed_')}: "
            + ", ".join(f"{count} {state}" for (each, state), count in sorted(states.items()) if each == dag_id)
            for dag_id in self.dag_ids
        ]
        self._say(
            f"{time.monotonic() - self._began:4.0f} s  {done}/{self.plan.all_batches} done; {'; '.join(counts)}; "
            f"load {os.getloadavg()[0]:.1f}"
        )

    def _unreported(self, airflow: DistributedAirflow, people: People, watcher: str) -> set[str]:
        """Wait until every list that ended is in a triggering event of some run; return those that never are."""
        wanted = people.wanted_by(watcher)
        left = set(wanted)

        def all_reported() -> bool:
            nonlocal left
            try:
                events = airflow.triggering_events(f"distributed_{watcher}")
            except (httpx.TransportError, AirflowApiError):
                return False
            left = wanted - {event["extra"]["payload"]["list_id"] for event in events}
            return not left

        try:
            airflow.wait_for("run for every list", all_reported, timeout=EVENT_SECONDS)
        except TimeoutError as error:
            self._say(f"{watcher}: {error}")
        return left


def _end_batches(sandbox: Sandbox, *, older_than: float) -> None:
    """End the lists of batches that are so many seconds old."""
    now = time.time()
    for each in sandbox.lists:
        if each.endpoint == POST and each.forced is None and now - each.created_at >= older_than:
            sandbox.complete(each.id)

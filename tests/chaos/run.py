"""The run itself: a sandbox, an Airflow, faults and kills until every batch is done or time is up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from machfive_provider.sandbox import Sandbox
from scripts.airflow_api import FINISHED, AirflowApiError, DagRunResult
from scripts.restarting_airflow import RestartingAirflow
from tests.chaos.accounting import Accounts, check_accounts
from tests.chaos.faults import FaultInjector
from tests.chaos.kills import Killer
from tests.chaos.people import RETRIES, People, key_of
from tests.chaos.plan import Plan
from tests.chaos.task_logs import Endings, read_endings

POOL = "chaos"
RUN_ID = "chaos"
STEP_SECONDS = 0.1
POLL_SECONDS = 20.0
ENOUGH_DUPLICATES = 9


@dataclass(frozen=True)
class Outcome:
    """All that is known at the end of a run."""

    plan: Plan
    seconds: float
    runs: tuple[DagRunResult, ...]
    injector: FaultInjector
    killer: Killer
    people: People
    accounts: Accounts
    endings: Endings
    component_ends: Mapping[str, int]

    @property
    def unfinished(self) -> list[str]:
        """Name the task instances that are no success."""
        return [
            f"{run.dag_id} {task.task_id}[{task.map_index}]: {task.state}, try {task.try_number}"
            for run in self.runs
            for task in run.tasks
            if task.state != "success"
        ]


class ChaosRun:
    """One run: its sandbox, its Airflow and its files."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.folder = folder
        self.results = folder / "results"
        self.results.mkdir(parents=True)
        self._edits = folder / "edits.json"
        self._say = say
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Run all batches to their end; the sandbox and Airflow are stopped in any case."""
        self._edits.write_text(json.dumps({"retries": RETRIES[0], "batches": {}}), encoding="utf-8")
        with Sandbox(self.plan.sandbox_settings()) as sandbox, self._airflow(sandbox) as airflow:
            injector = FaultInjector(sandbox, self.plan.amounts, self.plan.seed, self.plan.gaps, self.plan.head_start)
            dag_ids = [f"chaos_{mode}" for mode in self.plan.modes]
            airflow.create_pool(POOL, self.plan.in_flight, include_deferred=True)
            for dag_id in dag_ids:
                airflow.create_run(dag_id, run_id=RUN_ID)
            for dag_id in dag_ids:
                airflow.unpause(dag_id)
            self._began = time.monotonic()
            killer = Killer(sandbox, airflow, self.plan.kills, self.plan.seed)
            batches = {
                key_of(self.plan.batches, mode, number): f"{mode}-{number:03d}"
                for mode in self.plan.modes
                for number in range(self.plan.batches)
            }
            people = People(airflow, self.plan.people, self.plan.seed, self._edits, batches)
            runs = self._watch(airflow, dag_ids, injector, killer, people)
            seconds = time.monotonic() - self._began
            ends = airflow.ends()
        endings = read_endings(airflow.home.logs)
        accounts = check_accounts(self.plan, sandbox, self.results, people.asked)
        return Outcome(self.plan, seconds, runs, injector, killer, people, accounts, endings, ends)

    @contextmanager
    def _airflow(self, sandbox: Sandbox) -> Iterator[RestartingAirflow]:
        connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
        settings = {
            "campaign_ids": [each.id for each in sandbox.workspaces[0].campaigns[:2]],
            "edits": str(self._edits),
            "results": str(self.results),
            "modes": self.plan.modes,
            "batches": self.plan.batches,
            "leads": self.plan.leads,
            "pool": POOL,
            "poll_interval": self.plan.poll_interval,
            "retry_delay": self.plan.retry_delay,
            "without_search": self.plan.without_search,
        }
        airflow = RestartingAirflow(
            self.folder / "airflow",
            Path(__file__).with_name("dags"),
            wanted=[f"chaos_{mode}" for mode in self.plan.modes],
            parallelism=self.plan.parallelism,
            env={
                "AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(connection),
                "MACHFIVE_CHAOS": json.dumps(settings),
                **self.plan.airflow_settings(),
            },
        )
        with airflow:
            self._say(f"Airflow is up after {time.monotonic() - self._began:.0f} s.")
            yield airflow

    def _watch(
        self, airflow: RestartingAirflow, dag_ids: list[str], injector: FaultInjector, killer: Killer, people: People
    ) -> tuple[DagRunResult, ...]:
        """Script faults, kill and poll in steps of 0.1 s: Airflow does not announce that a process has started."""
        # Not at once: Airflow's API server starts many tasks then, with few connections to its database.
        pace, next_poll = threading.Event(), time.monotonic() + 15.0
        runs: tuple[DagRunResult, ...] = ()
        while True:
            done = len(list(self.results.glob("*.jsonl"))) / (self.plan.batches * len(self.plan.modes))
            killer.plan_kills(injector.step(done))
            killer.step()
            if not airflow.is_running:
                raise RuntimeError(f"Airflow has ended:\n{airflow.log_tail()}")
            now = time.monotonic()
            if now >= next_poll or (done >= 1 and now >= next_poll - POLL_SECONDS + 2):
                runs = self._poll(airflow, dag_ids) or runs
                self._report(runs, injector, killer, people)
                next_poll = time.monotonic() + (10.0 if people.left else POLL_SECONDS)
                if self._act(people, runs):
                    runs = ()
                if (runs and all(run.state in FINISHED for run in runs)) or self._is_over(killer.sandbox):
                    return runs
            pace.wait(STEP_SECONDS)

    def _act(self, people: People, runs: tuple[DagRunResult, ...]) -> bool:
        try:
            return people.step(runs)
        except (httpx.TransportError, AirflowApiError) as busy:
            self._say(f"Airflow's API did not answer: {busy}")
            return False

    def _is_over(self, sandbox: Sandbox) -> bool:
        """Tell whether time is up, or whether a run without the search has bought twice often enough."""
        if self.plan.without_search and sandbox.duplicates >= ENOUGH_DUPLICATES:
            self._say("Bought twice often enough to show it; stopping here, with batches still running.")
            return True
        return time.monotonic() - self._began > self.plan.timeout

    def _poll(self, airflow: RestartingAirflow, dag_ids: list[str]) -> tuple[DagRunResult, ...]:
        try:
            return tuple(airflow.get_run(dag_id, RUN_ID) for dag_id in dag_ids)
        except (httpx.TransportError, AirflowApiError) as busy:
            self._say(f"Airflow's API did not answer: {busy}")
            return ()

    def _report(self, runs: tuple[DagRunResult, ...], injector: FaultInjector, killer: Killer, people: People) -> None:
        tasks = [task for run in runs for task in run.tasks]
        done = sum(task.state == "success" for task in tasks)
        states = sorted({str(task.state) for task in tasks} - {"success", "None"})
        counts = ", ".join(f"{sum(str(task.state) == state for task in tasks)} {state}" for state in states)
        self._say(
            f"{time.monotonic() - self._began:4.0f} s  {done}/{self.plan.batches * len(self.plan.modes)} done, "
            f"{len(injector.hits)} faults ({injector.left} left), "
            f"{len(killer.kills)} kills ({killer.within_post} within a POST, {killer.left} left), "
            f"{people.done.total()} edits and clears ({people.left} left); {counts}"
        )

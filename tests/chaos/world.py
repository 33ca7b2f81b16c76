"""The run itself: a sandbox, an Airflow, faults and kills until every batch is through or time is up."""

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
from scripts.airflow_parts import PartedAirflow
from tests.chaos.books import Books, audit
from tests.chaos.faults import Feeder
from tests.chaos.kills import Killer
from tests.chaos.plan import Plan
from tests.chaos.task_logs import Endings, read_endings

POOL = "chaos"
RUN_ID = "chaos"
STEP_SECONDS = 0.1
LOOK_SECONDS = 20.0
ENOUGH_DUPLICATES = 9


@dataclass(frozen=True)
class Outcome:
    """All that a run leaves behind."""

    plan: Plan
    seconds: float
    runs: tuple[DagRunResult, ...]
    feeder: Feeder
    killer: Killer
    books: Books
    endings: Endings
    deaths: Mapping[str, int]

    @property
    def unfinished(self) -> list[str]:
        """Name the task instances that are no success."""
        return [
            f"{run.dag_id} {task.task_id}[{task.map_index}]: {task.state}, try {task.try_number}"
            for run in self.runs
            for task in run.tasks
            if task.state != "success"
        ]


class World:
    """Everything that is up while a run lasts."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.folder = folder
        self.results = folder / "results"
        self.results.mkdir(parents=True)
        self._say = say
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Go through with it; what is left running is stopped in any case."""
        with Sandbox(self.plan.sandbox_settings()) as sandbox, self._airflow(sandbox) as airflow:
            feeder = Feeder(sandbox, self.plan.amounts, self.plan.seed, self.plan.gaps, self.plan.head_start)
            dag_ids = [f"chaos_{mode}" for mode in self.plan.modes]
            airflow.create_pool(POOL, self.plan.in_flight, include_deferred=True)
            for dag_id in dag_ids:
                airflow.create_run(dag_id, run_id=RUN_ID)
            for dag_id in dag_ids:
                airflow.unpause(dag_id)
            self._began = time.monotonic()
            killer = Killer(sandbox, airflow, self.plan.kills, self.plan.seed)
            runs = self._watch(airflow, dag_ids, feeder, killer)
            seconds = time.monotonic() - self._began
            deaths = airflow.deaths()
        endings = read_endings(airflow.home.logs)
        return Outcome(
            self.plan, seconds, runs, feeder, killer, audit(self.plan, sandbox, self.results), endings, deaths
        )

    @contextmanager
    def _airflow(self, sandbox: Sandbox) -> Iterator[PartedAirflow]:
        connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
        told = {
            "campaign_id": sandbox.campaign_id,
            "results": str(self.results),
            "modes": self.plan.modes,
            "batches": self.plan.batches,
            "leads": self.plan.leads,
            "pool": POOL,
            "poll_interval": self.plan.poll_interval,
            "retry_delay": self.plan.retry_delay,
            "without_look": self.plan.without_look,
        }
        airflow = PartedAirflow(
            self.folder / "airflow",
            Path(__file__).with_name("dags"),
            wanted=[f"chaos_{mode}" for mode in self.plan.modes],
            parallelism=self.plan.parallelism,
            env={
                "AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(connection),
                "MACHFIVE_CHAOS": json.dumps(told),
                **self.plan.airflow_settings(),
            },
        )
        with airflow:
            self._say(f"Airflow is up after {time.monotonic() - self._began:.0f} s.")
            yield airflow

    def _watch(
        self, airflow: PartedAirflow, dag_ids: list[str], feeder: Feeder, killer: Killer
    ) -> tuple[DagRunResult, ...]:
        """Feed, kill and look, at a steady pace: nothing announces that a process is there to be killed."""
        pace, next_look = threading.Event(), 0.0
        runs: tuple[DagRunResult, ...] = ()
        while True:
            done = len(list(self.results.glob("*.jsonl"))) / (self.plan.batches * len(self.plan.modes))
            killer.appoint(feeder.step(done))
            killer.step()
            if not airflow.is_running:
                raise RuntimeError(f"Airflow has ended:\n{airflow.log_tail()}")
            now = time.monotonic()
            if now >= next_look or (done >= 1 and now >= next_look - LOOK_SECONDS + 2):
                runs = self._look(airflow, dag_ids) or runs
                self._tell(runs, feeder, killer)
                next_look = time.monotonic() + LOOK_SECONDS
                if (runs and all(run.state in FINISHED for run in runs)) or self._is_over(killer.sandbox):
                    return runs
            pace.wait(STEP_SECONDS)

    def _is_over(self, sandbox: Sandbox) -> bool:
        """Tell whether time is up, or whether a run that is to buy twice has done so."""
        if self.plan.without_look and sandbox.duplicates >= ENOUGH_DUPLICATES:
            self._say("Bought twice often enough to show it: stopping here, whatever is not through yet.")
            return True
        return time.monotonic() - self._began > self.plan.timeout

    def _look(self, airflow: PartedAirflow, dag_ids: list[str]) -> tuple[DagRunResult, ...]:
        try:
            return tuple(airflow.look(dag_id, RUN_ID) for dag_id in dag_ids)
        except (httpx.TransportError, AirflowApiError) as busy:
            self._say(f"Airflow's API did not answer: {busy}")
            return ()

    def _tell(self, runs: tuple[DagRunResult, ...], feeder: Feeder, killer: Killer) -> None:
        tasks = [task for run in runs for task in run.tasks]
        done = sum(task.state == "success" for task in tasks)
        states = sorted({str(task.state) for task in tasks} - {"success", "None"})
        counts = ", ".join(f"{sum(str(task.state) == state for task in tasks)} {state}" for state in states)
        self._say(
            f"{time.monotonic() - self._began:4.0f} s  {done}/{self.plan.batches * len(self.plan.modes)} done, "
            f"{len(feeder.hits)} faults ({feeder.left} left), "
            f"{len(killer.kills)} kills ({killer.within_post} within a POST, {killer.left} left); {counts}"
        )

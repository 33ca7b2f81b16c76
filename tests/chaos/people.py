"""What users do while the DAGs run: edit the DAG file, clear tasks at odd moments, follow the advice of failures."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.airflow_api import FINISHED, DagRunResult, TaskResult
from scripts.restarting_airflow import RestartingAirflow

RETRIES = (40, 30, 50)
ADVICE = "clear this task now that it has failed"
CLEARABLE = ("running", "deferred", "up_for_retry", "success")
Key = tuple[str, str, int]  # DAG, task, map index


@dataclass(frozen=True)
class PeoplePlan:
    """How many actions of each kind, the mean seconds between two, and how many tasks are cleared after the end.

    An edit changes the leads or the campaign of one batch, half the time with a clear of its task at once.
    """

    retries: int = 0
    edits: int = 0
    clears: int = 0
    at_the_end: int = 0
    every: float = 6.0


def key_of(batches: int, mode: str, number: int) -> Key:
    """Return which task instance buys a batch (``dags/chaos.py``)."""
    if number % 4 == 0:
        return f"chaos_{mode}", f"batch_{number:03d}", -1
    return f"chaos_{mode}", "batches", [each for each in range(batches) if each % 4].index(number)


@dataclass
class People:
    """Acts as planned; every choice is drawn under the seed.

    :param file: the edits, which the DAG file reads each time that it is parsed
    :param asked: by the name of a batch, how often a clear asked for another purchase of it, because of an edit
    :param repeated: tasks that failed with the advice which had just been followed
    """

    airflow: RestartingAirflow
    plan: PeoplePlan
    seed: int
    file: Path
    batches: dict[Key, str]
    done: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    repeated: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.seed} people")
        self._edits: dict[str, Any] = {"retries": RETRIES[0], "batches": {}}
        self._pending: set[str] = set()  # edited, and not cleared since
        self._followed: dict[Key, int] = {}
        counts = {"retries": self.plan.retries, "edit": self.plan.edits, "clear": self.plan.clears}
        self._left = [kind for kind, count in counts.items() for _ in range(count)]
        self._rng.shuffle(self._left)
        self._ended = self.plan.at_the_end
        self._next = time.monotonic() + 10.0
        self._write()

    @property
    def left(self) -> int:
        """How many actions are still to come."""
        return len(self._left) + self._ended

    def step(self, runs: tuple[DagRunResult, ...]) -> bool:
        """Do what is due; return whether anything was done that changes the runs.

        :param runs: as last polled
        """
        if not self.plan.clears or not runs:
            return False
        if self._follow_advice(runs):
            return True
        if all(run.state in FINISHED for run in runs):
            return self._clear_after_the_end(runs)
        if not self._left or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._rng.expovariate(1 / self.plan.every)
        kind = self._left[-1]
        tasks = [(run, task) for run in runs for task in run.tasks if task.state in CLEARABLE]
        if kind != "retries" and not tasks:
            return False
        self._left.pop()
        self.done[kind] += 1
        if kind == "retries":
            self._edits["retries"] = self._rng.choice(RETRIES)
            self._write()
            return False
        run, task = self._rng.choice(tasks)
        if kind == "edit":
            self._edit(self.batches[run.dag_id, task.task_id, task.map_index])
            if self._rng.random() < 0.5:
                return False
        self._clear(run, task)
        return True

    def _edit(self, batch: str) -> None:
        edit = self._rng.choice(({"company": f"Chaos {len(self._pending)}.{self.left}"}, {"campaign": 1}))
        self._edits["batches"][batch] = {**self._edits["batches"].get(batch, {}), **edit}
        self._pending.add(batch)
        self._write()

    def _clear(self, run: DagRunResult, task: TaskResult) -> None:
        batch = self.batches[run.dag_id, task.task_id, task.map_index]
        if batch in self._pending:
            self._pending.discard(batch)
            self.asked[batch] += 1
        self.done[f"clear, {task.state}"] += 1
        self.airflow.clear_task(run.dag_id, run.run_id, task.task_id, task.map_index)

    def _follow_advice(self, runs: tuple[DagRunResult, ...]) -> bool:
        """Clear each task that has failed, as its message says."""
        acted = False
        for run in runs:
            for task in (each for each in run.tasks if each.state == "failed"):
                key = (run.dag_id, task.task_id, task.map_index)
                if self._followed.get(key) == task.try_number:
                    continue  # cleared a moment ago
                log = self.airflow.task_log(run.dag_id, run.run_id, task.task_id, task.try_number, task.map_index)
                untouched = self.batches[key] not in self._pending
                if ADVICE in log and self._followed.get(key) == task.try_number - 1 and untouched:
                    self.repeated.append(f"{key}: try {task.try_number} ended with the advice that was followed before")
                self._followed[key] = task.try_number
                self._clear(run, task)
                acted = True
        return acted

    def _clear_after_the_end(self, runs: tuple[DagRunResult, ...]) -> bool:
        if not self._ended:
            return False
        for _ in range(self._ended):
            run = self._rng.choice(runs)
            self._clear(run, self._rng.choice(run.tasks))
        self._ended = 0
        return True

    def _write(self) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self._edits), encoding="utf-8")
        part.replace(self.file)

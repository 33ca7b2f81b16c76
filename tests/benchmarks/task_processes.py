"""What the task processes of a live Airflow take: their peak memory, and how long they hold a worker slot."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.live_airflow import LiveAirflow

__all__ = ["TaskProcesses", "cpu_seconds"]

INTERVAL = 0.1
# A task process renames itself right after Airflow has recorded that the task runs (airflow.sdk's task_runner.py).
_TITLE = re.compile(r"airflow worker -- ([0-9a-f-]{36})\s*$")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


@dataclass
class TaskProcess:
    """One process, from its beginning to when it was last seen: epoch seconds. ``peak`` is in bytes."""

    task: str
    began: float
    seen: float
    peak: int


class TaskProcesses:
    """Watches the task processes of an Airflow while it is open.

    The kernel keeps the peak of each process's resident set (VmHWM), so only what happens in a process's last
    tenth of a second is missed.
    """

    def __init__(self, airflow: LiveAirflow) -> None:
        self._airflow = airflow
        self._found: dict[tuple[int, float], TaskProcess] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TaskProcesses:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def peaks(self, dag_id: str) -> dict[str, int]:
        """Return the peak in bytes of each task of a DAG: of its greatest process."""
        found: dict[str, int] = defaultdict(int)
        for task_id, each in self._of(dag_id):
            found[task_id] = max(found[task_id], each.peak)
        return dict(found)

    def seconds(self, dag_id: str) -> float:
        """Return for how long worker slots were held, all processes together."""
        return sum(each.seen - each.began for _, each in self._of(dag_id))

    def starts(self, dag_id: str) -> int:
        """Return how many task processes there were."""
        return len(self._of(dag_id))

    def _of(self, dag_id: str) -> list[tuple[str, TaskProcess]]:
        query = "SELECT id, task_id FROM task_instance WHERE dag_id = ? UNION SELECT task_instance_id, task_id "
        query += "FROM task_instance_history WHERE dag_id = ?"
        with closing(sqlite3.connect(f"file:{self._airflow.home.database}?mode=ro", uri=True)) as database:
            names = {
                str(key).replace("-", ""): str(task_id) for key, task_id in database.execute(query, (dag_id, dag_id))
            }
        found = [(names.get(each.task.replace("-", "")), each) for each in self._found.values()]
        return [(task_id, each) for task_id, each in found if task_id]

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        now = time.time()
        for process in session(self._airflow):
            with contextlib.suppress(psutil.Error, OSError):
                key = (process.pid, process.create_time())
                known = self._found.get(key)
                if known is None:
                    title = _TITLE.search(" ".join(process.cmdline()))
                    if not title:
                        continue
                    known = self._found[key] = TaskProcess(title[1], key[1], now, 0)
                if peak := _PEAK.search(Path(f"/proc/{process.pid}/status").read_text()):
                    known.seen, known.peak = now, int(peak[1]) * 1024


def session(airflow: LiveAirflow) -> list[psutil.Process]:
    """Return all processes of an Airflow."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(pid) == airflow.session_id:
                found.append(psutil.Process(pid))
    return found


def cpu_seconds(airflow: LiveAirflow) -> float:
    """Return the CPU seconds that an Airflow has taken so far: its processes, and those of them that have ended."""
    total = 0.0
    for process in session(airflow):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total

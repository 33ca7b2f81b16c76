"""What the task logs tell: how often a worker began a task, and how many triggers each triggerer ran."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.worker_starts import STARTED

# The triggerer's job is in the file's name; a trigger that is taken over begins anew in another file.
_TRIGGER_LOG = re.compile(r"\.trigger\.(\d+)\.log$")
_TRIGGER_STARTS = re.compile(r'"event":\s*"trigger .* starting"')


def worker_starts(logs: Path, dag_id: str) -> int:
    """Count what a task's process writes first, over all tries and resumes of a DAG's tasks."""
    return sum(_text(log).count(STARTED) for log in (logs / f"dag_id={dag_id}").rglob("attempt=*.log"))


def triggers_started(logs: Path, triggerers: Mapping[int, str]) -> Counter[str]:
    """Count the triggers of tasks that each triggerer has begun.

    :param triggerers: the triggerer of each of Airflow's triggerer jobs
    """
    found: Counter[str] = Counter()
    for log in logs.rglob("attempt=*.trigger.*.log"):
        if match := _TRIGGER_LOG.search(log.name):
            found[triggerers[int(match[1])]] += len(_TRIGGER_STARTS.findall(_text(log)))
    return found


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")

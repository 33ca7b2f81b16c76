"""What 10,000 waiting lists over 100 connections cost one triggerer, beside fewer of both in the same run.

``python -m tests.benchmarks.scale_waiting`` takes six minutes: each row is a process of its own, in turn.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.polling_waiters import Counted, Task, count
from tests.benchmarks.running import run

__all__ = ["measure"]

US, PEER = "MachFive", "dbt Cloud"
COUNTED = 40.0  # seconds
TASKS = {
    "MachFive, 1,000 lists, 10 connections": Task(US, 1_000, counted=COUNTED, connections=10, traced=False),
    "MachFive, 10,000 lists, 100 connections": Task(US, 10_000, counted=COUNTED, connections=100, traced=False),
    "MachFive, 10,000 lists, 1 connection": Task(US, 10_000, counted=COUNTED, traced=False),
    "dbt Cloud, 1,000 runs, 1 connection": Task(PEER, 1_000, counted=COUNTED, traced=False),
}
FEW, MANY, ONE, OTHER = TASKS

HOW = f"""\
As in "Waiting in the triggerer": so many triggers on one event loop, outside Airflow, poll interval 10 s, a server on
loopback in a process of its own; {COUNTED:g} s are counted. The lists are dealt to the connections in turn, each with
an API key and a workspace of its own. The lag is by how much the ticks that are due every 50 ms are late: half of them,
99 of 100, the latest. Memory is by how much the resident set of the process has grown when all had been polled once,
clients and connections included."""


def measure() -> Figure:
    """Run all of them in turn."""
    found, absent = {}, list(environment.absent([PEER]))
    for label, task in TASKS.items():
        if task.subject == PEER and absent:
            continue
        try:
            found[label] = count(task)
        except RuntimeError as error:
            if task.subject == US:
                raise
            absent.append(f"{task.subject}: installed, but {error}")
        else:
            print(f"{label}: {found[label]}", flush=True)
    return Figure(
        name="scale_waiting",
        title="10,000 waiting lists, 100 connections",
        how=HOW,
        columns=(
            "who waits",
            "requests a minute",
            "requests per poll due",
            "CPU, % of a core",
            "lag, half, ms",
            "lag, 99 %, ms",
            "worst lag, ms",
            "MB more",
            "KB a waiter",
        ),
        rows=tuple((label, *_row(TASKS[label], each)) for label, each in found.items()),
        limits=_limits(found),
        plots=(
            Plot("CPU of waiting", "% of a core", {label: _load(TASKS[label], it) for label, it in found.items()}),
            Plot("Requests a minute", "requests", {label: _a_minute(it) for label, it in found.items()}, log=True),
        ),
        absent=tuple(absent),
    )


def _a_minute(found: Counted) -> float:
    return found.requests * 60 / COUNTED


def _load(task: Task, found: Counted) -> float:
    """Return CPU time in percent of the time counted."""
    return 100 * found.cpu / (found.polls_due * task.interval / task.waiters)


def _row(task: Task, found: Counted) -> tuple[float, ...]:
    lags = (*found.lags, found.lag)
    each = found.bytes_each
    return (
        _a_minute(found),
        found.requests / found.polls_due,
        _load(task, found),
        *(1000 * lag for lag in lags),
        each * (task.waiters - 1) / 1e6,
        each / 1000,
    )


def _limits(found: dict[str, Counted]) -> tuple[Limit, ...]:
    few, many, one, peer = found[FEW], found[MANY], found[ONE], found.get(OTHER)

    def requests(it: Counted) -> float:
        return it.requests / it.polls_due

    def cpu(it: Counted) -> float:
        return it.cpu / it.polls_due

    def to_peer(figure: str, of: Callable[[Counted], float]) -> Limit:
        measured = math.nan if peer is None else of(many) / of(peer)
        return Limit(f"{figure}, 10,000 lists, of {PEER}'s with 1,000 runs", measured, 1)

    return (
        Limit("requests per poll due, 10 times the lists and connections", requests(many) / requests(few), 1.2),
        Limit("CPU per poll due, 10 times the lists and connections", cpu(many) / cpu(few), 1.5),
        Limit("memory a waiter, 10 times the lists and connections", many.bytes_each / few.bytes_each, 1.5),
        Limit("CPU of 10,000 lists, 100 connections, of that with 1", cpu(many) / cpu(one), 4),
        to_peer("CPU in all", lambda it: it.cpu),
        to_peer("lag of 99 % of the ticks", lambda it: it.lags[1]),
    )


if __name__ == "__main__":
    sys.exit(run("scale_waiting"))

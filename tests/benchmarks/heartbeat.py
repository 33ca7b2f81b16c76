"""Whether thousands of waiters leave the triggerer its heartbeat: no callback may hold the loop for long.

``python -m tests.benchmarks.heartbeat`` takes three minutes.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.heartbeat_loop import PHASES, Day
from tests.benchmarks.running import run
from tests.benchmarks.waiters import in_fresh_process

__all__ = ["measure"]

LIMIT = 50.0  # ms
OURS = Day("MachFive", "machfive_provider")
PEER = Day("dbt Cloud", "airflow.providers.dbt", survives=False)

HOW = f"""\
{OURS.waiters:,} triggers on one event loop, outside Airflow, poll interval {OURS.interval:g} s: all join, some rounds
pass, {OURS.ending} lists complete at once, the API answers 500 for a round, all are cancelled. Every callback of the
loop is timed by the CPU its thread uses. Counted are those of the provider: functions and coroutines of its package,
and every step of the tasks that run its triggers. Full garbage collections are not in a callback's time (last column):
what they cost is set by all objects of the process, and whose callback they fall into is luck. {PEER.subject}'s
triggers end with the first answer 500, so there is less to do for them in the fourth phase."""


def measure() -> Figure:
    """Live the day with our waiters, then with the peer's."""
    found, absent = {OURS.subject: live(OURS)}, list(environment.absent([PEER.subject]))
    if not absent:
        try:
            found[PEER.subject] = live(PEER)
        except RuntimeError as error:
            absent.append(f"{PEER.subject}: installed, but {error}")
    worst = {(name, phase): _worst(each[phase]) for name, each in found.items() for phase in PHASES}
    mine = max(ms for (name, _), (ms, _) in worst.items() if name == OURS.subject)
    return Figure(
        name="heartbeat",
        title="The triggerer's heartbeat",
        how=HOW,
        columns=("who, and what happens", "longest callback, CPU ms", "which", "callbacks", "CPU s", "collection, ms"),
        rows=tuple(_row(name, phase, each[phase]) for name, each in found.items() for phase in PHASES),
        limits=(Limit("longest callback of MachFive's, CPU", mine, LIMIT, unit="ms"),),
        plots=(Plot("Longest callback", "CPU ms", {f"{a}: {b}": ms for (a, b), (ms, _) in worst.items()}, LIMIT),),
        absent=tuple(absent),
    )


def live(day: Day) -> dict[str, Any]:
    """Live it in a fresh process; print the worst of it."""
    found = in_fresh_process("heartbeat_loop", day.subject, asdict(day), day.waiters, 0, 12 * day.interval + 120)
    for phase, each in found.items():
        top = sorted(each["worst"].items(), key=lambda it: -it[1])[:4]
        named = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in top)
        other = f"{each['worst_other'][1]} {each['worst_other'][0] * 1000:.1f} ms"
        print(f"{day.subject}, {phase}: {named}; not its own: {other}", flush=True)
    return found


def _worst(found: dict[str, Any]) -> tuple[float, str]:
    """Return the longest callback in milliseconds, and its name."""
    return max(((seconds * 1000, name) for name, seconds in found["worst"].items()), default=(0.0, "none"))


def _row(name: str, phase: str, found: dict[str, Any]) -> tuple[str | float, ...]:
    ms, which = _worst(found)
    shown = "a trigger's task" if which == "Waiters._run" else f"`{which}`"
    return f"{name}: {phase}", ms, shown, found["number"], found["total"], found["collection"] * 1000


if __name__ == "__main__":
    sys.exit(run("heartbeat"))

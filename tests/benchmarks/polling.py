"""What it costs to wait: requests, CPU, loop lag and memory of many waiters in one triggerer, beside other providers.

``python -m tests.benchmarks.polling`` takes a quarter of an hour: each row is a process of its own, in turn.
"""

from __future__ import annotations

import math
import sys

from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.peers import SUBJECTS
from tests.benchmarks.polling_waiters import NEVER, TOLD, Counted, Task, count
from tests.benchmarks.running import run

__all__ = ["measure"]

US = "MachFive"
PEER = "dbt Cloud"
MANY, MOST, FOREIGN = 1_000, 10_000, 1_000
# A waiter's event needs a request after the look is due, on a machine that is busy with the others' events.
NOTICED = 1.02
ONE_AN_INTERVAL = 1.01  # a hundredth for the timer's own grain

TASKS = {
    f"{US}, {MANY:,}": Task(US, MANY),
    f"{US}, {MOST:,}": Task(US, MOST),
    f"{US}, 1 beside {FOREIGN:,} foreign": Task(US, 1, FOREIGN),
    **{f"{name}, {MANY:,}": Task(name, MANY) for name in SUBJECTS if name != US},
}
FIRST, LARGEST, ALONE = list(TASKS)[:3]

HOW = f"""\
So many triggers of one provider in one event loop, outside Airflow, made from their serialized arguments with a task
each, as the triggerer makes them; poll interval 10 s, all started at once; a server on loopback, in a process of its
own, that says "still running". After a warm-up of more than an interval, 60 s are counted: requests at the server and
CPU of the loop's process (all its threads), both per poll due (waiters times seconds over interval). Then, over two
intervals, by how much the latest of the ticks that are due every 50 ms is late. Memory is what Python had allocated
more, after a collection, when all had looked once and rested, by the waiters (tracemalloc; the first waiter, with all
the code it loads, is not in it; nor are buffers of C libraries, which flatters providers with a client for each
waiter). At last up to {TOLD} of them complete at random moments: the worst time until the trigger's event, in
intervals ({NEVER:g}: not noticed by then), for which {NOTICED:g} is allowed, because the request itself takes time. The
server knows MachFive's lists newest first, one in twenty of them pending. {PEER}'s hook was made to talk http instead
of https."""


def measure() -> Figure:
    """Run all of them in turn."""
    found, absent = {}, list(environment.absent(SUBJECTS))
    installed = [name for name in SUBJECTS if not any(each.startswith(f"{name}:") for each in absent)]
    for label, task in TASKS.items():
        if task.subject not in installed:
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
        name="polling",
        title="Waiting in the triggerer",
        how=HOW,
        columns=(
            "who waits",
            "requests per poll due",
            "CPU s per 1,000 polls due",
            "worst loop lag, s",
            "KB a waiter",
            "end noticed after, intervals",
        ),
        rows=tuple((_named(label), *_row(each)) for label, each in found.items()),
        limits=_limits(found),
        plots=_plots(found),
        absent=tuple(absent),
    )


def _named(label: str) -> str:
    package = environment.PACKAGES.get(TASKS[label].subject)
    return f"{label} ({environment.version(package)})" if package else label


def _row(found: Counted) -> tuple[float, ...]:
    held = math.nan if found.bytes_each is None else found.bytes_each / 1000
    return requests(found), cpu(found), found.lag, held, max(found.noticed)


def requests(found: Counted) -> float:
    return found.requests / found.polls_due


def cpu(found: Counted) -> float:
    return found.cpu / found.polls_due * 1000


def _limits(found: dict[str, Counted]) -> tuple[Limit, ...]:
    many, most, alone, peer = found[FIRST], found[LARGEST], found[ALONE], found.get(f"{PEER}, {MANY:,}")

    def to_peer(figure: str, of: object, limit: float) -> Limit:
        measured = math.nan if peer is None else of(many) / of(peer)
        return Limit(f"{figure} with {MANY:,} waiting, of {PEER}'s", measured, limit)

    return (
        to_peer("requests per poll due", requests, 1 / 50),
        to_peer("CPU per poll due", cpu, 1 / 20),
        to_peer("worst loop lag", lambda each: each.lag, 1 / 10),
        Limit(f"memory a waiter with {MANY:,} waiting", many.bytes_each / 1000, 10, unit="KB"),
        Limit(
            f"requests per poll due with {MOST:,} waiting, of those with {MANY:,}", requests(most) / requests(many), 1.5
        ),
        Limit(f"CPU per poll due with {MOST:,} waiting, of that with {MANY:,}", cpu(most) / cpu(many), 1.5),
        Limit(
            f"requests an interval with 1 waiting beside {FOREIGN:,} foreign lists", alone.per_interval, ONE_AN_INTERVAL
        ),
        *(
            Limit(f"end noticed after, {each}", max(found[each].noticed), NOTICED, unit="intervals")
            for each in (ALONE, FIRST, LARGEST)
        ),
    )


def _plots(found: dict[str, Counted]) -> tuple[Plot, ...]:
    crowds = {label: each for label, each in found.items() if label != ALONE}
    held = {label: each.bytes_each / 1000 for label, each in crowds.items()}
    peer = found.get(f"{PEER}, {MANY:,}")

    def limit(of: object, part: float) -> float | None:
        return of(peer) * part if peer else None

    return (
        Plot("Requests per poll due", "requests", _each(crowds, requests), limit(requests, 1 / 50), log=True),
        Plot("CPU per 1,000 polls due", "seconds", _each(crowds, cpu), limit(cpu, 1 / 20), log=True),
        Plot("Worst loop lag", "seconds", _each(crowds, lambda it: it.lag), limit(lambda it: it.lag, 1 / 10), log=True),
        Plot("Memory a waiter", "KB", held, 10, log=True),
        Plot("End of the work noticed after", "intervals", _each(found, lambda it: max(it.noticed)), NOTICED),
    )


def _each(found: dict[str, Counted], of: object) -> dict[str, float]:
    return {label: of(each) for label, each in found.items()}


if __name__ == "__main__":
    sys.exit(run("polling"))

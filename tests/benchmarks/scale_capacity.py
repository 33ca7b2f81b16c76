"""What waiting for free slots costs with up to 100 triggerers. Computed: on virtual time, without an Airflow.

``python -m tests.benchmarks.scale_capacity`` takes five minutes.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from dataclasses import dataclass

import httpx

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.running import run
from tests.benchmarks.scale_fleet import LATENCY, Fleet, connection_of, on_virtual_time

__all__ = ["measure"]

TRIGGERERS = (1, 2, 5, 10, 30, 100)
MANY = 1_000
POSTS = {True: 1.1, False: 1.3}  # a batch, refused ones included, by whether there is a hint

HOW = """\
**Computed**, not measured: the real operator, triggers, poller and queue run on virtual time, against the sandbox in
the same process. {batches} mapped batches (in the last row {many:,}), each of which takes {seconds:g} s give or take a
quarter, go through a workspace of {slots}; `poll_interval` {poll_interval:g} s; a response takes {fast:g} to {slow:g}
s, the start of a task's process {start[0]:g} to {start[1]:g} s, {workers} at a time; a trigger is given to any of the
triggerers within {pick_up[1]:g} s. "Hint" means that the connection's `max_concurrent_batches` says {slots}; "pool",
that the tasks are in an Airflow pool of {slots} slots that counts deferred tasks, and there is no hint. The ideal
is the batches' own time, divided by the slots. An empty slot is one that a batch has left and the next has not yet
taken."""


@dataclass(frozen=True)
class Work:
    """Mapped batches of one run, in a workspace that takes few of them at a time.

    :param hint: whether the connection's ``max_concurrent_batches`` names the limit
    :param pool: whether the tasks are in an Airflow pool of as many slots, which deferred tasks keep
    :param spread: by which part of ``seconds`` a batch may take more or less
    """

    triggerers: int
    batches: int = 200
    slots: int = 10
    hint: bool = True
    pool: bool = False
    seconds: float = 120.0
    spread: float = 0.25
    poll_interval: float = 20.0


@dataclass(frozen=True)
class Found:
    """What came of it. Seconds; ``empty`` is the mean over all slots that were freed and used again."""

    makespan: float
    ideal: float
    empty: float
    posts: int
    reads: int
    starts: int


def measure() -> Figure:
    """Go through all numbers of triggerers, with and without the hint, and through many batches."""
    works = [Work(each, hint=hint) for hint in (True, False) for each in TRIGGERERS]
    works += [Work(each, hint=False, pool=True) for each in (1, 10, 100)]
    works.append(Work(1, batches=MANY))
    found = {}
    for work in works:
        found[work] = simulate(work)
        print(f"{label(work)}: {found[work]}", flush=True)
    usual = works[0]
    fast, slow = LATENCY
    return Figure(
        name="scale_capacity",
        title="Computed: free slots with many triggerers",
        how=HOW.format(**{**vars(Fleet(1)), **vars(usual)}, many=MANY, fast=fast, slow=slow, workers=Fleet(1).slots),
        columns=(
            "batches, triggerers",
            "makespan, of the ideal",
            "a slot stays empty, s",
            "POSTs a batch",
            "starts of a process a batch",
            "reads a batch",
            "requests a minute",
        ),
        rows=tuple((label(work), *row(work, each)) for work, each in found.items()),
        limits=limits(found),
        plots=(
            Plot(
                "Computed: POSTs a batch by triggerers",
                "POSTs a batch, refused ones included",
                {f"MachFive, {label(work)}": each.posts / work.batches for work, each in found.items()},
            ),
        ),
    )


def label(work: Work) -> str:
    """Return what a row is called."""
    triggerers = "1 triggerer" if work.triggerers == 1 else f"{work.triggerers} triggerers"
    return f"{work.batches:,} batches, {triggerers}, {'pool' if work.pool else 'hint' if work.hint else 'no hint'}"


def row(work: Work, found: Found) -> tuple[float, ...]:
    """Return the figures of a row."""
    a_minute = (found.posts + found.reads) * 60 / found.makespan
    posts, starts, reads = (each / work.batches for each in (found.posts, found.starts, found.reads))
    return found.makespan / found.ideal, found.empty, posts, starts, reads, a_minute


def limits(found: dict[Work, Found]) -> tuple[Limit, ...]:
    """Return the limits: for one and two triggerers, as most deployments have, for many batches and for pools."""
    kept = []
    for work, each in found.items():
        if work.triggerers > 2 and not work.pool:
            continue
        kept.append(Limit(f"{label(work)}: makespan, of the ideal", each.makespan / each.ideal, 1.15))
        kept.append(Limit(f"{label(work)}: POSTs a batch", each.posts / work.batches, POSTS[work.hint or work.pool]))
    return tuple(kept)


def simulate(work: Work) -> Found:
    """Go through the run in virtual time."""
    settings = SandboxSettings(
        processing_seconds=work.seconds, concurrency=work.slots, credits=work.batches, access_log=False
    )
    sandbox = Sandbox(settings, clock=lambda: time.time())  # noqa: PLW0108 - it is replaced below
    chance, app = random.Random(work.batches), httpx.ASGITransport(sandbox.app)

    async def answer(request: httpx.Request) -> httpx.Response:
        response = await app.handle_async_request(request)
        if request.method == "POST" and response.is_success:
            sandbox.lists[-1].processing_seconds *= chance.uniform(1 - work.spread, 1 + work.spread)
        return response

    fields = {"password": sandbox.api_key, "extra": {"max_concurrent_batches": work.slots} if work.hint else {}}
    connections = dict.fromkeys(("worker", *map(connection_of, range(work.triggerers))), fields)
    tasks = [batch(sandbox, number, work) for number in range(work.batches)]
    fleet = Fleet(work.triggerers, pool=work.slots if work.pool else None)
    on_virtual_time(lambda: fleet.run(tasks), answer, connections)
    return found_in(sandbox, work, fleet.starts)


def batch(sandbox: Sandbox, number: int, work: Work) -> MachFiveGenerateBatchOperator:
    """Return the operator of one mapped task."""
    return MachFiveGenerateBatchOperator(
        task_id="batch",
        leads=[{"email": f"lead@company{number}.example.com"}],
        campaign_id=sandbox.campaign_id,
        machfive_conn_id="worker",
        deferrable=True,
        poll_interval=work.poll_interval,
    )


def found_in(sandbox: Sandbox, work: Work, starts: int) -> Found:
    """Return what the sandbox recorded, and how often the fleet has started a process."""
    begun = sorted(each.created_at for each in sandbox.lists)
    ended = sorted(each.created_at + each.processing_seconds for each in sandbox.lists)
    requests = sandbox.requests
    # The n-th batch after those that filled the workspace takes the slot of the n-th that ended.
    empty = [begin - end for begin, end in zip(begun[work.slots :], ended, strict=False)]
    posts = sum(each.method == "POST" for each in requests)
    return Found(
        makespan=ended[-1] - begun[0],
        ideal=sum(each.processing_seconds for each in sandbox.lists) / work.slots,
        empty=statistics.mean(empty),
        posts=posts,
        reads=len(requests) - posts,
        starts=starts,
    )


if __name__ == "__main__":
    sys.exit(run("scale_capacity"))

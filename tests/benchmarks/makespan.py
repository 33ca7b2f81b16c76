"""How close to ideal many batches go through a workspace that takes few at a time.

One Airflow does the work: bare deferrable tasks first (what Airflow's own hand-over costs here), then this provider
with ``max_concurrent_batches``; by option also without it, and a DAG of HttpOperator and deferrable HttpSensor. The
makespan is taken from the sandbox's records: from the first accepted batch to the end of the last one.

``python -m tests.benchmarks.makespan`` takes a quarter of an hour; with ``--batches 18 --slots 3 --ways
plain,hinted,http`` it takes as long and compares.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.running import run

__all__ = ["measure"]

WAYS = {"plain": "MachFive", "hinted": "MachFive, hint", "http": "HttpOperator and HttpSensor"}
LIMIT = 1.15
POSTS = {"plain": 2.25, "hinted": 1.1}  # a batch, refused ones included
HAND_OVERS_EACH = 5

HOW = """\
{batches} mapped tasks of one DAG, each a batch that takes {seconds:g} s, in a workspace that takes {slots} at a time,
in a real Airflow against the sandbox. "Hint" means that the connection's `max_concurrent_batches` says {slots}. The
ideal is {waves} times {seconds:g} s. No provider can reach it, because a worker has to be started between the end of
one batch and the next: what can be reached, {reachable:.0f} s, has {gaps} times the bare hand-over in it (from a
trigger's moment to a task on a worker: {hand_over:.2f} s on average with {slots} at once, measured just before in the
same Airflow)."""


@dataclass(frozen=True)
class Work:
    """What is to be done, and how."""

    batches: int = 200
    slots: int = 10
    seconds: float = 30.0
    ways: tuple[str, ...] = ("hinted",)
    parallelism: int = 8

    @property
    def waves(self) -> int:
        """How many times the workspace is filled."""
        return -(-self.batches // self.slots)

    @property
    def ideal(self) -> float:
        """Seconds in which a client without any delay would be through."""
        return self.waves * self.seconds


@dataclass(frozen=True)
class Measured:
    """One way to do the work. Seconds; ``posts`` counts refused ones too."""

    makespan: float
    posts: int
    gets: int
    state: str


def measure(**options: object) -> Figure:
    """Run everything in one Airflow."""
    work = Work(**options)
    absent = environment.absent(["HTTP"]) if "http" in work.ways else ()
    ways = [each for each in work.ways if each != "http" or not absent]
    found, hand_over = run_all(work, ways)
    for way, each in found.items():
        if each.state != "success" and way in POSTS:
            raise RuntimeError(f"the DAG of {WAYS[way]!r} ended as {each.state}")
    return figure(work, found, hand_over, absent)


def run_all(work: Work, ways: Sequence[str]) -> tuple[dict[str, Measured], float]:
    """Return what each way took, and the mean bare hand-over in seconds."""
    settings = SandboxSettings(
        workspaces=len(WAYS),
        credits=100_000,
        concurrency=work.slots,
        pending_seconds=0,
        processing_seconds=work.seconds,
        access_log=False,
    )
    with tempfile.TemporaryDirectory(prefix="machfive-bench-") as folder, Sandbox(settings) as sandbox:
        hand_overs = Path(folder) / "hand_overs"
        shared = {
            "ways": ways,
            "batches": work.batches,
            "slots": work.slots,
            "batch_seconds": work.seconds,
            "hand_overs": str(hand_overs),
            "hand_overs_each": HAND_OVERS_EACH,
            "campaigns": {way: sandbox.workspaces[i].campaigns[0].id for i, way in enumerate(WAYS)},
        }
        root = environment.ROOT
        env = {"MACHFIVE_BENCH": json.dumps(shared), "PYTHONPATH": str(root), **connections(sandbox, work.slots)}
        dags = ["bench_hand_over", *(f"bench_{way}" for way in ways)]
        with LiveAirflow(
            Path(folder) / "airflow",
            root / "tests/benchmarks/dags",
            wanted=dags,
            parallelism=work.parallelism,
            env=env,
        ) as airflow:
            wait_for(airflow, "bench_hand_over", 300)
            hand_over = statistics.mean(map(float, hand_overs.read_text().split()))
            print(f"bare hand-over: {hand_over:.2f} s", flush=True)
            found = {}
            for way in ways:
                state = wait_for(airflow, f"bench_{way}", 600 + 3 * work.ideal)
                found[way] = read_records(sandbox, list(WAYS).index(way), state, work.seconds)
                print(f"{way}: {found[way]}", flush=True)
    return found, hand_over


def wait_for(airflow: LiveAirflow, dag_id: str, timeout: float) -> str:
    """Run a DAG to its end and return its state."""
    return airflow.wait(dag_id, airflow.trigger(dag_id), timeout).state


def connections(sandbox: Sandbox, slots: int) -> dict[str, str]:
    """Return a connection for each way, each to a workspace of its own."""
    plain, hinted, http = sandbox.workspaces
    machfive = {"conn_type": "machfive", "host": sandbox.base_url}
    hint = {"max_concurrent_batches": slots}
    given = {
        "MACHFIVE_PLAIN": {**machfive, "password": plain.api_key},
        "MACHFIVE_HINTED": {**machfive, "password": hinted.api_key, "extra": json.dumps(hint)},
        "BENCH_HTTP": {
            "conn_type": "http",
            "host": sandbox.base_url,
            "extra": json.dumps({"Authorization": f"Bearer {http.api_key}"}),
        },
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(fields) for name, fields in given.items()}


def read_records(sandbox: Sandbox, number: int, state: str, seconds: float) -> Measured:
    """Return what one way did in its workspace, as the sandbox recorded it."""
    workspace = sandbox.workspaces[number]
    starts = [each.created_at for each in sandbox.lists if each.workspace.name == workspace.name]
    campaign = workspace.campaigns[0].id
    posts = sum(campaign in each.path for each in sandbox.requests_to("generate-batch"))
    begun = min(each.at for each in sandbox.requests if campaign in each.path)
    gets = sum(each.method == "GET" and each.at >= begun for each in sandbox.requests)
    return Measured(max(starts) + seconds - min(starts), posts, gets, state)


def figure(work: Work, found: dict[str, Measured], hand_over: float, absent: tuple[str, ...]) -> Figure:
    """Return the makespans beside what can be reached."""
    gaps = work.waves - 1
    reachable = work.ideal + gaps * hand_over
    rows = [
        (WAYS[way], each.makespan, each.makespan / work.ideal, each.makespan / reachable, each.posts / work.batches)
        for way, each in found.items()
    ]
    limits = [
        limit
        for way, each in found.items()
        if way in POSTS
        for limit in (
            Limit(f"{WAYS[way]}: makespan, of what can be reached", each.makespan / reachable, LIMIT),
            Limit(f"{WAYS[way]}: POST attempts a batch", each.posts / work.batches, POSTS[way]),
        )
    ]
    bars = {"ideal": work.ideal, "can be reached": reachable, **{WAYS[way]: it.makespan for way, it in found.items()}}
    return Figure(
        name="makespan",
        title="Many batches through a small workspace",
        how=HOW.format(**vars(work), waves=work.waves, gaps=gaps, hand_over=hand_over, reachable=reachable),
        columns=("who", "makespan, s", "of the ideal", "of what can be reached", "POST attempts a batch"),
        rows=tuple(rows),
        limits=tuple(limits),
        plots=(Plot(f"Makespan of {work.batches} batches", "seconds", bars, LIMIT * reachable),),
        absent=absent,
    )


def main() -> int:
    """Run with the options of the command line, as kept results are taken if there are none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Work()
    parser.add_argument("--batches", type=int)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--parallelism", type=int, help=f"tasks on workers at a time; {usual.parallelism}")
    parser.add_argument("--ways", type=lambda text: tuple(text.split(",")), help=f"some of {','.join(WAYS)}")
    options = vars(parser.parse_args())
    return run("makespan", **{name: value for name, value in options.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())

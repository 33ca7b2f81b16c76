"""How close to ideal many batches go through a workspace that takes few at a time, beside the HTTP provider.

One Airflow does the same work in turn: bare deferrable tasks (what Airflow's own hand-over costs here), this
provider without and with ``max_concurrent_batches``, and a DAG of HttpOperator and deferrable HttpSensor.
The makespan is taken from the server's books: from the first accepted batch to the end of the last one.

Usage: ``python -m tests.benchmarks.makespan [--batches 18] [--places 3] [--seconds 30] [--without-peer]``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.benchmarks.environment import ROOT, prepare

PEER = "apache-airflow-providers-http"
MARK = "MACHFIVE_IN_BENCH_ENVIRONMENT"
WAYS = ("plain", "hinted", "http")
LIMIT = 1.15
POSTS = {"plain": 40, "hinted": 22}
TIMEOUT = 1200.0


@dataclass
class Measured:
    """One way to do the work. Seconds; ``posts`` counts refused ones too."""

    makespan: float
    posts: int
    gets: int
    state: str


def measure(options: argparse.Namespace) -> tuple[dict[str, Measured], float]:
    """Run everything in one Airflow; return what each way took, and the mean bare hand-over in seconds."""
    ways = [way for way in WAYS if way != "http" or not options.without_peer]
    settings = SandboxSettings(
        workspaces=len(WAYS),
        credits=10_000,
        concurrency=options.places,
        pending_seconds=0,
        processing_seconds=options.seconds,
        access_log=False,
    )
    with tempfile.TemporaryDirectory(prefix="machfive-bench-") as folder, Sandbox(settings) as sandbox:
        hand_overs = Path(folder) / "hand_overs"
        shared = {
            "batches": options.batches,
            "places": options.places,
            "batch_seconds": options.seconds,
            "hand_overs": str(hand_overs),
            "hand_overs_each": 5,
            "campaigns": {way: sandbox.workspaces[i].campaigns[0].id for i, way in enumerate(WAYS)},
        }
        env = {"MACHFIVE_BENCH": json.dumps(shared), "PYTHONPATH": str(ROOT), **connections(sandbox, options.places)}
        dags = [f"bench_{way}" for way in ways] + ["bench_hand_over"]
        with LiveAirflow(
            Path(folder) / "airflow", ROOT / "tests/benchmarks/dags", wanted=dags, parallelism=6, env=env
        ) as airflow:
            wait_for(airflow, "bench_hand_over")
            found = {}
            for number, way in enumerate(ways):
                state = wait_for(airflow, f"bench_{way}")
                found[way] = books(sandbox, number, state, options.seconds)
                print(f"{way}: {found[way]}", flush=True)
        return found, statistics.mean(map(float, hand_overs.read_text().split()))


def wait_for(airflow: LiveAirflow, dag_id: str) -> str:
    """Run a DAG to its end and return its state."""
    return airflow.wait(dag_id, airflow.trigger(dag_id), TIMEOUT).state


def connections(sandbox: Sandbox, places: int) -> dict[str, str]:
    """Return a connection for each way, each to a workspace of its own."""
    plain, hinted, http = sandbox.workspaces
    machfive = {"conn_type": "machfive", "host": sandbox.base_url}
    hint = {"max_concurrent_batches": places}
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


def books(sandbox: Sandbox, number: int, state: str, seconds: float) -> Measured:
    """Read off the server what one way did in its workspace."""
    workspace = sandbox.workspaces[number]
    starts = [each.created_at for each in sandbox.lists if each.workspace.name == workspace.name]
    campaign = workspace.campaigns[0].id
    posts = sum(campaign in each.path for each in sandbox.requests_to("generate-batch"))
    begun = min(each.at for each in sandbox.requests if campaign in each.path)
    gets = sum(each.method == "GET" and each.at >= begun for each in sandbox.requests)
    return Measured(max(starts) + seconds - min(starts), posts, gets, state)


def report(found: dict[str, Measured], hand_over: float, options: argparse.Namespace) -> bool:
    """Print the table; return whether every limit holds."""
    waves = -(-options.batches // options.places)
    ideal = waves * options.seconds
    reachable = ideal + (waves - 1) * hand_over
    print(
        f"\n{options.batches} batches of {options.seconds:g} s, {options.places} at a time: ideal {ideal:g} s; bare "
        f"hand-over {hand_over:.2f} s, {waves - 1} of them: reachable {reachable:.1f} s; "
        f"Airflow {version('apache-airflow')}, HTTP provider {version(PEER) if 'http' in found else 'absent'}"
    )
    print(f"{'':24}{'makespan':>10}{'of ideal':>10}{'of reachable':>14}{'POSTs':>7}{'limits':>16}")
    names = {"plain": "MachFive", "hinted": "MachFive, hint", "http": "HttpOperator + Sensor"}
    good = True
    for way, each in found.items():
        ratio = each.makespan / reachable
        limits = f"<= {LIMIT}, {POSTS[way]}" if way in POSTS else ""
        holds = each.state == "success" and (way not in POSTS or (ratio <= LIMIT and each.posts <= POSTS[way]))
        good = good and (holds or way not in POSTS)
        verdict = "" if holds else f"  {each.state}, MISSED" if way in POSTS else f"  {each.state}"
        ideal_ratio = each.makespan / ideal
        print(
            f"{names[way]:24}{each.makespan:9.1f}s{ideal_ratio:10.2f}{ratio:14.2f}{each.posts:7}{limits:>16}{verdict}"
        )
    return good


def main() -> int:
    """Run in the benchmarks' environment, where the peer is; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=18)
    parser.add_argument("--places", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--without-peer", action="store_true", help="leave the HTTP provider's DAG out")
    options = parser.parse_args()
    if MARK not in os.environ:
        return subprocess.run(
            [str(prepare()), "-m", "tests.benchmarks.makespan", *sys.argv[1:]],
            cwd=ROOT,
            env={**os.environ, MARK: "1"},
            check=False,
        ).returncode
    found, hand_over = measure(options)
    return 0 if report(found, hand_over, options) else 1


if __name__ == "__main__":
    raise SystemExit(main())

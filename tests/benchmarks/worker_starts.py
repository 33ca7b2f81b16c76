"""How many worker starts a success costs, counted in a live Airflow.

Usage: ``python -m tests.benchmarks.worker_starts [--lists 200] [--others 20]`` (Airflow 3.3 or later)
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from machfive_provider.api import protocol
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.running import run

WAYS = {
    "usual": "a task that defers and resumes",
    "deferrable": "MachFiveListSensor, deferrable, mapped",
    "from_trigger": "MachFiveListSensor, start_from_trigger",
}
TIMEOUT = 420.0
# What the API server writes for each start of a task's process, and what that process then writes in the task's log.
ALLOWED = re.compile(r"method=PATCH path=/execution/task-instances/([0-9a-f-]{36})/run .*status_code=200")
STARTED = '"event":"Worker startup parse complete"'


@dataclass(frozen=True)
class Counted:
    """The starts of one way's tasks, by each of the two counts, and how many tasks succeeded."""

    allowed: tuple[int, ...]
    logged: int
    succeeded: int

    @property
    def each(self) -> float:
        """Starts for each success."""
        return sum(self.allowed) / self.succeeded


def measure(lists: int = 200, others: int = 20) -> Figure:
    """Wait for so many lists each way in one Airflow, and count.

    :param lists: how many the mapped sensor waits for
    :param others: how many each of the other two ways waits for
    """
    settings = SandboxSettings(processing_seconds=float("inf"), credits=10_000, concurrency=10_000, access_log=False)
    with tempfile.TemporaryDirectory(prefix="machfive-bench-") as folder, Sandbox(settings) as sandbox:
        connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
        bought = {way: buy(sandbox, lists if way == "deferrable" else others) for way in WAYS}
        env = {"AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(connection), "MACHFIVE_BENCH": json.dumps(bought)}
        dags = [f"bench_{way}" for way in WAYS]
        with LiveAirflow(
            Path(folder) / "airflow",
            Path(__file__).with_name("worker_starts_dags"),
            wanted=dags,
            parallelism=6,
            env=env,
        ) as airflow:
            for dag_id in dags:
                airflow.create_run(dag_id)
            for dag_id in dags:
                airflow.unpause(dag_id)
            total = lists + 2 * others
            # No list completes before the last task waits for it: none is spared its deferral.
            wait_until(lambda: [state for _, _, state in tasks(airflow)].count("deferred") == total)
            for list_id in chain.from_iterable(bought.values()):
                sandbox.complete(list_id)
            wait_until(lambda: {state for _, _, state in tasks(airflow)} <= {"success", "failed"})
            counted = {way: count(airflow, f"bench_{way}") for way in WAYS}
    return figure(counted, lists, others)


def buy(sandbox: Sandbox, number: int) -> list[str]:
    """Buy lists that stay in work."""
    with closing(MachFiveClient(ClientSettings(sandbox.base_url, sandbox.api_key))) as client:
        call = protocol.generate_batch(sandbox.campaign_id, [Lead("a@example.com")], None)
        return [client.send(call).list_id for _ in range(number)]


def tasks(airflow: LiveAirflow) -> list[tuple[str, str, str | None]]:
    """Return id, DAG and state of every task instance; from the database, so the API server stays free."""
    with closing(sqlite3.connect(f"file:{airflow.home.database}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT id, dag_id, state FROM task_instance").fetchall()
    return [(str(each).replace("-", ""), dag_id, state) for each, dag_id, state in found]


def wait_until(condition: Callable[[], bool]) -> None:
    """Check the condition once a second."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the tasks did not get there in time")
        time.sleep(1)


def count(airflow: LiveAirflow, dag_id: str) -> Counted:
    """Count one DAG's worker starts, at the API server and in the tasks' own logs."""
    allowed = Counter(each.replace("-", "") for each in ALLOWED.findall(airflow.home.process_log.read_text()))
    mine = [(each, state) for each, dag, state in tasks(airflow) if dag == dag_id]
    logs = (airflow.home.logs / f"dag_id={dag_id}").rglob("attempt=*.log")
    return Counted(
        allowed=tuple(allowed[each] for each, _ in mine),
        logged=sum(log.read_text().count(STARTED) for log in logs),
        succeeded=[state for _, state in mine].count("success"),
    )


def figure(counted: dict[str, Counted], lists: int, others: int) -> Figure:
    """Put the counts into a table and hold them to their limits."""
    deferrable, from_trigger = counted["deferrable"], counted["from_trigger"]
    disagreement = max(abs(sum(each.allowed) - each.logged) for each in counted.values())
    return Figure(
        name="worker_starts",
        title="Worker starts for each success",
        how=(
            f"One live Airflow {version('apache-airflow')} (LocalExecutor, SQLite), {lists} mapped lists and twice "
            f"{others} others; no list completed before every task was deferred. Counted at the API server: no task's "
            "process can begin without its permission, which is a line in the access log with the task instance's id. "
            "Counted again by what each process writes in its task's log first; the two must agree."
        ),
        columns=("", "successes", "worker starts", "a success", "most for one task", "by the tasks' logs"),
        rows=tuple(
            (WAYS[way], each.succeeded, sum(each.allowed), each.each, max(each.allowed), each.logged)
            for way, each in counted.items()
        ),
        limits=(
            Limit("lists waited for, deferrable", deferrable.succeeded, lists, at_most=False),
            Limit("worker starts of any one deferrable task", max(deferrable.allowed), 1),
            Limit("worker starts of all deferrable tasks", sum(deferrable.allowed), lists),
            Limit("lists waited for, start_from_trigger", from_trigger.succeeded, others, at_most=False),
            Limit("worker starts, start_from_trigger", sum(from_trigger.allowed), 0),
            # A count that misses starts would keep every limit.
            Limit("worker starts a success of a task that resumes", counted["usual"].each, 2, at_most=False),
            Limit("difference between the two counts", disagreement, 0),
        ),
        plots=(
            Plot(
                "Worker starts for each success",
                "worker starts",
                {WAYS[way]: each.each for way, each in counted.items()},
                limit=1,
            ),
        ),
    )


def main() -> int:
    """Run with the options of the command line, as kept results are taken if there are none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, help="mapped lists; 200")
    parser.add_argument("--others", type=int, help="tasks of each other kind; 20")
    options = vars(parser.parse_args())
    return run("worker_starts", **{name: value for name, value in options.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())

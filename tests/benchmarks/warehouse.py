"""100,000 people from PostgreSQL to emails in PostgreSQL, by this provider and by hand, in one live Airflow.

``python -m tests.benchmarks.warehouse`` takes twelve minutes and needs PostgreSQL's programs;
``--rows 4000 --batch-size 400 --seconds 20`` is a short try.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.running import run
from tests.benchmarks.task_processes import TaskProcesses, cpu_seconds
from tests.database_servers import postgres

__all__ = ["measure"]

WAYS = {
    "machfive": "MachFive",
    "poke": "by hand, sensor pokes",
    "reschedule": "by hand, sensor reschedules",
}
TABLES = {"machfive": "emails", "poke": "emails_poke", "reschedule": "emails_reschedule"}
POOL = "workers"
EMAILS = 3
MB = 1_000_000

HOW = """\
{rows:,} people in a PostgreSQL table, their {emails:,} emails in another: {batches} batches of {batch_size:,} that
take {seconds:g} s each, in a workspace that takes {slots} at a time, in a real Airflow (LocalExecutor, {parallelism}
worker slots) against the sandbox. "MachFive" is `SqlToMachFiveLeadsOperator`, then for each batch
`MachFiveGenerateBatchOperator` (deferrable, with the connection's `max_concurrent_batches`) and
`MachFiveToSqlOperator`. "By hand" is `COPY` to CSV, then for each batch `HttpOperator` with retries (a batch's time
apart), `HttpSensor`, download and `COPY`. The sensor pokes on a worker, as is its default; with the `response_check`
that it needs here it is never deferrable. Both ask every {interval:g} s. All tasks but that sensor share a pool of
{pool} slots; the sensor needs a slot for each batch in work. Worker seconds are those for which a task process
exists; CPU is that of all of Airflow's processes. Memory is the peak of the resident set of a task's greatest
process, above that of a task which does nothing in a DAG file with the same imports ({idle:.0f} MB); a MB is a
million bytes. "Again" is a further run of the same DAG, which finds everybody written already."""


@dataclass(frozen=True)
class Work:
    """What is to be done, and how."""

    rows: int = 100_000
    batch_size: int = 5_000
    slots: int = 10
    seconds: float = 120.0
    interval: float = 10.0
    parallelism: int = 16
    pool: int = 4
    ways: tuple[str, ...] = ("machfive", "poke")

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-self.rows // self.batch_size)

    @property
    def emails(self) -> int:
        """How many emails there are at the end."""
        return self.rows * EMAILS


@dataclass(frozen=True)
class Measured:
    """One run. Seconds; ``starts`` counts task processes."""

    wall: float
    cpu: float
    worker: float
    starts: int


@dataclass(frozen=True)
class Outcome:
    """All runs, and the peak in bytes of each task and of an idle one."""

    runs: dict[str, Measured]
    peaks: dict[str, dict[str, int]]
    idle: int
    again: Measured
    sent_again: int
    changed_again: int


def measure(**options: object) -> Figure:
    """Run everything in one Airflow."""
    work = Work(**options)  # type: ignore[arg-type]
    absent = environment.absent(["HTTP"])
    ways = [each for each in WAYS if each in work.ways and (each == "machfive" or not absent)]
    return figure(work, run_all(work, ways), absent)


def run_all(work: Work, ways: list[str]) -> Outcome:
    """Run each way once, this provider's twice."""
    settings = SandboxSettings(
        workspaces=len(WAYS),
        credits=work.rows,
        concurrency=work.slots,
        processing_seconds=work.seconds,
        access_log=False,
    )
    root = environment.ROOT
    with (
        tempfile.TemporaryDirectory(prefix="machfive-bench-") as folder,
        warehouse(work) as (engine, port),
        Sandbox(settings) as sandbox,
    ):
        shared = {
            "folder": folder,
            "batch_size": work.batch_size,
            "seconds": work.seconds,
            "interval": work.interval,
            "pool": POOL,
            "campaigns": {way: sandbox.workspaces[i].campaigns[0].id for i, way in enumerate(WAYS)},
        }
        env = {
            "MACHFIVE_BENCH": json.dumps(shared),
            "PYTHONPATH": str(root),
            **connections(sandbox, work.slots, port),
        }
        dags = ["bench_idle", *(f"bench_{way}" for way in ways)]
        with (
            LiveAirflow(
                Path(folder) / "airflow",
                root / "tests/benchmarks/warehouse_dags",
                wanted=dags,
                parallelism=work.parallelism,
                env=env,
            ) as airflow,
            TaskProcesses(airflow) as processes,
        ):
            airflow.create_pool(POOL, work.pool)
            return Runs(work, airflow, processes, sandbox, engine).all(ways)


@dataclass(frozen=True)
class Runs:
    """The runs of one Airflow."""

    work: Work
    airflow: LiveAirflow
    processes: TaskProcesses
    sandbox: Sandbox
    engine: Engine

    def all(self, ways: list[str]) -> Outcome:
        """Run an idle task, then each way, then this provider once more."""
        self.run("idle")
        runs = {}
        for way in ways:
            runs[way] = self.run(way)
            self.check(way)
        peaks = {way: self.processes.peaks(f"bench_{way}") for way in ways}
        before, sent = self.content(), len(self.sandbox.purchases)
        again = self.run("machfive")
        return Outcome(
            runs=runs,
            peaks=peaks,
            idle=self.processes.peaks("bench_idle")["idle"],
            again=again,
            sent_again=len(self.sandbox.purchases) - sent,
            changed_again=int(self.content() != before),
        )

    def run(self, way: str) -> Measured:
        """Run a DAG to its end."""
        dag_id = f"bench_{way}"
        cpu, worker, starts = cpu_seconds(self.airflow), self.processes.seconds(dag_id), self.processes.starts(dag_id)
        run_id = self.airflow.trigger(dag_id)
        wall = self.wait(dag_id, run_id, 300 + 3 * self.work.seconds * -(-self.work.batches // self.work.slots))
        found = Measured(
            wall,
            cpu_seconds(self.airflow) - cpu,
            self.processes.seconds(dag_id) - worker,
            self.processes.starts(dag_id) - starts,
        )
        print(f"{way}: {found} {self.processes.peaks(dag_id)}", flush=True)
        return found

    def wait(self, dag_id: str, run_id: str, timeout: float) -> float:
        """Return how long a run took; its state is read from the database, so the API server stays free."""
        query = "SELECT state, start_date, end_date FROM dag_run WHERE dag_id = ? AND run_id = ?"
        deadline = time.monotonic() + timeout
        while True:
            with closing(sqlite3.connect(f"file:{self.airflow.home.database}?mode=ro", uri=True)) as database:
                state, began, ended = database.execute(query, (dag_id, run_id)).fetchone()
            if state == "success":
                return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
            if state == "failed" or time.monotonic() > deadline:
                failed = next(each for each in self.airflow.get_run(dag_id, run_id).tasks if each.state != "success")
                log = self.airflow.task_log(dag_id, run_id, failed.task_id, failed.try_number, failed.map_index)
                raise RuntimeError(f"{dag_id} is {state}: {failed}\n{log[-3000:]}")
            time.sleep(1)

    def check(self, way: str) -> None:
        """See that everybody was bought once and every email is there: else the figures say nothing."""
        name = self.sandbox.workspaces[list(WAYS).index(way)].name
        spent = sum(each.credits for each in self.sandbox.purchases if each.workspace == name)
        with self.engine.connect() as connection:
            query = text(f"SELECT count(*), count(DISTINCT email) FROM {TABLES[way]}")
            emails, people = connection.execute(query).one()
        if (spent, emails, people) != (self.work.rows, self.work.emails, self.work.rows):
            raise RuntimeError(f"{way}: {spent} credits spent, {emails} emails of {people} people in the table")

    def content(self) -> str:
        """Return a digest of all rows that this provider has written."""
        query = "SELECT md5(string_agg(md5(emails::text), '' ORDER BY email, step)) FROM emails"
        with self.engine.connect() as connection:
            return str(connection.execute(text(query)).scalar_one())


@contextmanager
def warehouse(work: Work) -> Iterator[tuple[Engine, int]]:
    """Run a PostgreSQL with the people, and empty tables for their emails."""
    with postgres() as port:
        engine = create_engine(f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE contacts (email text, full_name text, job_title text, company text)"))
            people = (
                "INSERT INTO contacts SELECT 'person' || n || '@company' || n / 9 || '.example.com', "
                "'Zoë Person ' || n, 'Head of Department ' || n % 40, 'Company ' || n / 9 || ' & Söhne' "
                "FROM generate_series(1, :rows) AS n"
            )
            connection.execute(text(people), {"rows": work.rows})
            for table in TABLES.values():
                connection.execute(
                    text(
                        f"CREATE TABLE {table} (list_id varchar(36), email varchar(320), step integer, subject text, "
                        "body text, name text, company text, title text, exported_at timestamptz NOT NULL, "
                        "PRIMARY KEY (list_id, email, step))"
                    )
                )
        yield engine, port
        engine.dispose()


def connections(sandbox: Sandbox, slots: int, port: int) -> dict[str, str]:
    """Return the database's connection, and one for each way to a workspace of its own."""
    machfive, *by_hand = sandbox.workspaces
    given = {
        "WAREHOUSE": {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": port,
            "login": "airflow",
            "schema": "postgres",
        },
        "MACHFIVE_DEFAULT": {
            "conn_type": "machfive",
            "host": sandbox.base_url,
            "password": machfive.api_key,
            "extra": json.dumps({"max_concurrent_batches": slots}),
        },
    }
    for mode, workspace in zip(("POKE", "RESCHEDULE"), by_hand, strict=True):
        given[f"HTTP_{mode}"] = {
            "conn_type": "http",
            "host": sandbox.base_url,
            "extra": json.dumps({"Authorization": f"Bearer {workspace.api_key}"}),
        }
    return {f"AIRFLOW_CONN_{name}": json.dumps(fields) for name, fields in given.items()}


def figure(work: Work, found: Outcome, absent: tuple[str, ...]) -> Figure:
    """Return the runs beside each other."""
    idle = found.idle / MB
    greatest = {way: max(each.values()) / MB - idle for way, each in found.peaks.items()}
    greatest["again"] = float("nan")
    named = {**{way: (WAYS[way], each) for way, each in found.runs.items()}, "again": ("MachFive, again", found.again)}
    rows = [(name, it.wall, it.cpu, it.worker, it.starts, greatest[way]) for way, (name, it) in named.items()]
    limits = [
        Limit(f"MachFive, `{task}`: memory above idle", peak / MB - idle, 150, unit="MB")
        for task, peak in found.peaks["machfive"].items()
    ]
    limits += [
        Limit("MachFive, again: batches sent", found.sent_again, 0),
        Limit("MachFive, again: tables changed", found.changed_again, 0),
    ]
    if poke := found.runs.get("poke"):
        ours = found.runs["machfive"]
        limits += [
            Limit("wall time, of that by hand (sensor pokes)", ours.wall / poke.wall, 1.05),
            Limit("worker seconds, of those by hand (sensor pokes)", ours.worker / poke.worker, 0.1),
        ]
    return Figure(
        name="warehouse",
        title="From a table to a table",
        how=HOW.format(**vars(work), batches=work.batches, emails=work.emails, idle=idle),
        columns=("who", "wall, s", "CPU, s", "worker s", "task processes", "peak MB above idle"),
        rows=tuple(rows),
        limits=tuple(limits),
        plots=(Plot("Worker seconds", "seconds", {WAYS[way]: each.worker for way, each in found.runs.items()}),),
        absent=absent,
    )


def main() -> int:
    """Run with the options of the command line, as kept results are taken if there are none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seconds", type=float, help="that a batch takes")
    parser.add_argument("--ways", type=lambda given: tuple(given.split(",")), help=f"some of {','.join(WAYS)}")
    options = vars(parser.parse_args())
    return run("warehouse", **{name: value for name, value in options.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())

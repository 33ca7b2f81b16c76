"""What a batch costs Airflow's metadata database, beside a run of dbt Cloud's operator in the same Airflow.

``python -m tests.benchmarks.scale_database`` takes eight minutes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.running import run
from tests.database_servers import postgres

__all__ = ["measure"]

PEER = "dbt Cloud"
WAYS = {
    "bare": "a task that defers and resumes",
    "dbt": f"{PEER}, DbtCloudRunJobOperator",
    "machfive": "MachFive, buy, wait, export",
    "limited": "MachFive, wait for capacity too",
    "pooled": "MachFive, in a pool instead",
}
POOL = "machfive"
# Of dbt Cloud's. The last two are mostly the scheduler's own loops: their runs take three times as long.
LIMITS = {"machfive": 1.5, "limited": 4.5, "pooled": 4.5}

HOW = """\
One live Airflow (LocalExecutor) with its metadata in PostgreSQL. {batches} mapped tasks of each kind, one kind after
the other: each starts work that takes {seconds:g} s at a stand-in, waits for it in the triggerer, polling every
{interval:g} s, and finishes on a worker. Statements and rows (read or written) are those of `pg_stat_statements`,
without BEGIN, COMMIT and the like, and without the {idle} kinds of statements that Airflow sends too while no DAG
runs: how often it sends those depends on time and not on tasks. Rows written are inserted, updated and deleted ones;
rows kept, inserted less deleted. What the scheduler asks in each of its loops while a run is active is in all of them,
and so more of it in the last two, which take longer. "Wait for capacity too": the workspace takes {slots} at a
time, and the connection's `max_concurrent_batches` says so. "In a pool instead": the same workspace, without that, and
the tasks are in a pool of {slots} slots that counts deferred tasks: {refused} POSTs were refused. {peer}'s operator
was made to talk http instead of https."""


@dataclass(frozen=True)
class Work:
    """What is to be done."""

    batches: int = 20
    slots: int = 3
    seconds: float = 20.0
    interval: float = 5.0
    idle: float = 60.0  # seconds


@dataclass(frozen=True)
class Load:
    """What a task costs the database.

    :param rows: read or written by the statements
    :param written: of these, inserted, updated and deleted
    :param kept: inserted less deleted
    """

    statements: float
    rows: float
    written: float
    kept: float


@dataclass(frozen=True)
class Counted:
    """What PostgreSQL has counted of one kind of statement."""

    verb: str
    calls: int
    rows: int


Statements = dict[int, Counted]

COUNT = text(
    "SELECT queryid, upper(split_part(ltrim(query), ' ', 1)), sum(calls), sum(rows) FROM pg_stat_statements "
    "GROUP BY 1, 2"
)


def measure() -> Figure:
    """Run all of them in one Airflow."""
    work = Work()
    absent = environment.absent([PEER])
    idle, found, refused = run_all(work, [way for way in WAYS if way != "dbt" or not absent])
    return figure(work, idle, found, refused, absent)


def run_all(work: Work, ways: list[str]) -> tuple[int, dict[str, Load], int]:
    """Return how many kinds of statements an idle Airflow sends, each way's load, and the POSTs refused in a pool."""
    settings = SandboxSettings(processing_seconds=work.seconds, concurrency=1_000)
    limited = SandboxSettings(processing_seconds=work.seconds, concurrency=work.slots)
    with (
        tempfile.TemporaryDirectory(prefix="machfive-bench-") as folder,
        postgres("shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=off") as port,
        Sandbox(settings) as free,
        Sandbox(limited) as narrow,
        dbt_cloud(work.seconds) as dbt_port,
    ):
        url = f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION pg_stat_statements"))
        shared = {
            "batches": work.batches,
            "seconds": work.seconds,
            "interval": work.interval,
            "folder": folder,
            "with_dbt": "dbt" in ways,
            "pool": POOL,
            "campaigns": {
                "machfive": free.campaign_id,
                "limited": narrow.campaign_id,
                "pooled": narrow.campaign_id,
            },
        }
        env = {
            "MACHFIVE_BENCH": json.dumps(shared),
            "PYTHONPATH": str(environment.ROOT),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            **connections(free, narrow, work.slots, dbt_port),
        }
        with LiveAirflow(
            Path(folder) / "airflow",
            environment.ROOT / "tests/benchmarks/database_dags",
            wanted=[f"bench_{way}" for way in ways],
            parallelism=4,
            env=env,
        ) as airflow:
            airflow.create_pool(POOL, work.slots, include_deferred=True)
            idle = while_idle(engine, work.idle)
            print(f"idle: {len(idle)} kinds of statements", flush=True)
            found, seen = {}, 0
            for way in ways:
                seen = len(narrow.requests)
                found[way] = load(airflow, engine, work, way, idle)
        engine.dispose()
        # Those of the last way, which is the pool's.
        refused = sum(each.status == 429 for each in narrow.requests[seen:])
    return len(idle), found, refused


def while_idle(engine: Engine, seconds: float) -> Statements:
    """Return what Airflow sends while no DAG runs, this watcher's own queries included."""
    before, began = count(engine), time.monotonic()
    while time.monotonic() < began + seconds:
        state_of(engine, "none", "none")
        time.sleep(1)
    return {key: each for key, each in count(engine).items() if key not in before or each.calls > before[key].calls}


def load(airflow: LiveAirflow, engine: Engine, work: Work, way: str, idle: Statements) -> Load:
    """Run one DAG; return the load of each of its tasks."""
    before, began = count(engine), time.monotonic()
    run_id = airflow.trigger(f"bench_{way}")
    while (state := state_of(engine, f"bench_{way}", run_id)) not in ("success", "failed"):
        if time.monotonic() > began + 600:
            raise TimeoutError(f"{way} is still {state}")
        time.sleep(1)
    if state == "failed":
        failed = next(each for each in airflow.get_run(f"bench_{way}", run_id).tasks if each.state != "success")
        log = airflow.task_log(f"bench_{way}", run_id, failed.task_id, failed.try_number, failed.map_index)
        raise RuntimeError(f"{way} failed: {log[-2000:]}")
    found = load_between(before, count(engine), idle, work.batches)
    print(f"{way}: {time.monotonic() - began:.0f} s, a task: {found}", flush=True)
    return found


def load_between(before: Statements, after: Statements, idle: Statements, tasks: int) -> Load:
    """Return the load of each of so many tasks, without the kinds of statements that an idle Airflow sends too."""
    calls, rows = Counter[str](), Counter[str]()
    for key, each in after.items():
        if key not in idle:
            was = before.get(key, Counted(each.verb, 0, 0))
            calls[each.verb] += each.calls - was.calls
            rows[each.verb] += each.rows - was.rows
    written = sum(rows[verb] for verb in ("INSERT", "UPDATE", "DELETE"))
    kept = rows["INSERT"] - rows["DELETE"]
    return Load(*(each / tasks for each in (calls.total(), rows.total(), written, kept)))


def count(engine: Engine) -> Statements:
    """Return what has been counted by now."""
    with engine.connect() as connection:
        return {key: Counted(verb, int(calls), int(rows)) for key, verb, calls, rows in connection.execute(COUNT)}


def state_of(engine: Engine, dag_id: str, run_id: str) -> str | None:
    """Return the state of a run, asked of the database and not of Airflow, which would ask it more."""
    query = text("SELECT state FROM dag_run WHERE dag_id = :dag_id AND run_id = :run_id")
    with engine.connect() as connection:
        return connection.execute(query, {"dag_id": dag_id, "run_id": run_id}).scalar()


def connections(free: Sandbox, narrow: Sandbox, slots: int, dbt_port: int) -> dict[str, str]:
    """Return a connection for each way."""
    hint = json.dumps({"max_concurrent_batches": slots})
    given = {
        "MACHFIVE_MACHFIVE": {"conn_type": "machfive", "host": free.base_url, "password": free.api_key},
        "MACHFIVE_LIMITED": {
            "conn_type": "machfive",
            "host": narrow.base_url,
            "password": narrow.api_key,
            "extra": hint,
        },
        "MACHFIVE_POOLED": {"conn_type": "machfive", "host": narrow.base_url, "password": narrow.api_key},
        "BENCH_DBT": {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{dbt_port}", "login": "1", "password": "token"},
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(fields) for name, fields in given.items()}


@contextmanager
def dbt_cloud(seconds: float) -> Iterator[int]:
    """Run a stand-in for dbt Cloud on loopback: each job run takes so many seconds; give its port."""
    began: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            began.append(time.monotonic())
            self._say({"id": len(began), "href": "http://127.0.0.1/run"})

        def do_GET(self) -> None:
            number = int(self.path.partition("?")[0].rstrip("/").rpartition("/")[2])
            done = time.monotonic() > began[number - 1] + seconds
            self._say({"id": number, "status": 10 if done else 3})

        def _say(self, data: dict) -> None:
            content = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def figure(work: Work, idle: int, found: dict[str, Load], refused: int, absent: tuple[str, ...]) -> Figure:
    """Return the loads beside each other."""
    peer = found.get("dbt")
    nan = float("nan")
    return Figure(
        name="scale_database",
        title="Load on Airflow's metadata database",
        how=HOW.format(**{**vars(work), "idle": idle}, peer=PEER, refused=refused),
        columns=(
            "a task",
            "statements",
            f"of {PEER}'s",
            "rows read or written",
            "rows written",
            "rows kept",
        ),
        rows=tuple(
            (
                WAYS[way],
                each.statements,
                each.statements / peer.statements if peer else nan,
                each.rows,
                each.written,
                each.kept,
            )
            for way, each in found.items()
        ),
        limits=tuple(
            Limit(f"{WAYS[way]}: {name}, of {PEER}'s", of(found[way]) / of(peer) if peer else nan, limit)
            for way, limit in LIMITS.items()
            for name, of in (("statements", lambda it: it.statements), ("rows read or written", lambda it: it.rows))
        ),
        plots=(Plot("Statements a task", "statements", {WAYS[way]: each.statements for way, each in found.items()}),),
        absent=absent,
    )


if __name__ == "__main__":
    sys.exit(run("scale_database"))

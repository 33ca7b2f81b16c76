"""From a table to a table in a real Airflow, with a SIGKILL at each of ten moments of the way.

The moments are held, not drawn: in PostgreSQL by advisory locks that this test has, in the sandbox by requests that
get no response. A mapped task that is killed before its POST arrives waits two minutes for a list of the try before:
the chaos run has that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection

from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.restarting_airflow import RestartingAirflow
from tests.chaos.kills import has_started, kill_all, process_with_port, running_tasks, triggerer_processes
from tests.database_servers import postgres

pytestmark = pytest.mark.live
TIMEOUT = 150.0
PEOPLE, BATCHES = 2000, 5
DAG_ID, RUN_ID = "warehouse_kills", "killed"
# The numbers of the advisory locks; the first two are also those of the people at whom the query is held.
FIRST_ROW, BETWEEN_CHUNKS, WRITTEN, INSERT, COMMIT = 1, 1500, 1_000_001, 1_000_002, 1_000_003
MOMENTS = {
    FIRST_ROW: "query: before its first row",
    BETWEEN_CHUNKS: "query: between two chunks",
    WRITTEN: "query: of who is written already",
    INSERT: "table: among the inserts",
    COMMIT: "table: during the commit",
    "generate-batch": "purchase: accepted, not answered",
    "list": "purchase: answered, list not read yet",
    "export": "table: export asked for",
}
TRIGGERER, RESUMED = "wait: the triggerer", "wait: resumed after it"
DAGS = """
import os
from datetime import timedelta

from airflow.sdk import DAG, task_group

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.transfers.list_to_sql import MachFiveToSqlOperator
from machfive_provider.transfers.sql_to_leads import SqlToMachFiveLeadsOperator

with DAG("warehouse_kills", schedule=None, default_args={"retries": 8, "retry_delay": timedelta(0)}):
    people = SqlToMachFiveLeadsOperator(
        task_id="find_new_people",
        sql_conn_id="warehouse",
        sql="SELECT email, full_name FROM contacts",
        skip_already_written="written",
        leads_folder=os.environ["MACHFIVE_LEADS"],
        batch_size=400,
    )

    @task_group
    def batch(leads_path):
        bought = MachFiveGenerateBatchOperator(
            task_id="write_emails",
            leads_path=leads_path,
            campaign_name="Spring Outreach",
            email_count=3,
            email_signature="Alex Morgan",
            deferrable=True,
            poll_interval=1,
        )
        MachFiveToSqlOperator(task_id="save_emails", list_id=bought.output, sql_conn_id="warehouse", table="emails")

    batch.expand(leads_path=people.output)
"""
TABLES = f"""
CREATE FUNCTION hold(moment integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(moment); RETURN true; END $$;

CREATE TABLE people AS SELECT n AS id, 'person' || n || '@example.com' AS email, 'Person ' || n AS full_name
FROM generate_series(1, {PEOPLE}) AS n;
CREATE VIEW contacts AS SELECT email, full_name FROM people
WHERE CASE WHEN id IN ({FIRST_ROW}, {BETWEEN_CHUNKS}) THEN hold(id) ELSE true END;

CREATE TABLE emails (
    list_id varchar(36), email varchar(320), step integer, subject text, body text, name text, company text, title text,
    exported_at timestamptz NOT NULL, PRIMARY KEY (list_id, email, step)
);
CREATE VIEW written AS SELECT email, subject, body FROM emails
UNION ALL SELECT 'nobody@example.com', 'Subject', 'Body' WHERE hold({WRITTEN});
CREATE FUNCTION hold_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM hold(TG_ARGV[0]::integer); RETURN NEW; END $$;
CREATE TRIGGER held_insert BEFORE INSERT ON emails FOR EACH ROW
WHEN (NEW.email = 'person300@example.com' AND NEW.step = 2) EXECUTE FUNCTION hold_row({INSERT});
CREATE CONSTRAINT TRIGGER held_commit AFTER INSERT ON emails DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (NEW.email = 'person700@example.com' AND NEW.step = 1) EXECUTE FUNCTION hold_row({COMMIT});
"""
WAITING = """
SELECT pg_locks.objid, pg_stat_activity.client_port FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND NOT granted
"""
DIGEST = "SELECT md5(string_agg(md5(emails::text), '' ORDER BY email, step)) FROM emails"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox whose lists end by hand."""
    with Sandbox(SandboxSettings(processing_seconds=float("inf"), concurrency=BATCHES)) as running:
        yield running


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def database(port: int) -> Iterator[Connection]:
    """Give a connection that holds the moments in the database; the tables are there."""
    engine = create_engine(f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(TABLES)
        for moment in (FIRST_ROW, BETWEEN_CHUNKS, WRITTEN, INSERT, COMMIT):
            connection.execute(text("SELECT pg_advisory_lock(:moment)"), {"moment": moment})
        yield connection
    engine.dispose()


@pytest.fixture(scope="module")
def live(
    sandbox: Sandbox, database: Connection, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RestartingAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    (dags / "warehouse_kills.py").write_text(DAGS)
    warehouse = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "airflow", "schema": "postgres"}
    machfive = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
    env = {
        "AIRFLOW_CONN_WAREHOUSE": json.dumps(warehouse),
        "AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(machfive),
        "MACHFIVE_LEADS": str(tmp_path_factory.mktemp("leads")),
        # Seconds without a heartbeat after which another triggerer takes over.
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
    }
    airflow = RestartingAirflow(tmp_path_factory.mktemp("airflow"), dags, wanted=(DAG_ID,), env=env, parallelism=6)
    with airflow:
        yield airflow


class Killer:
    """Kills the task process that is held at a moment, and lets the moment go."""

    def __init__(self, live: RestartingAirflow, sandbox: Sandbox, database: Connection, port: int) -> None:
        self.live, self.sandbox, self.database, self.port = live, sandbox, database, port
        self.killed: list[str] = []

    def kill_at(self, *moments: int | str) -> None:
        """Kill once at each of these moments, in whatever order tasks come to them."""
        left = set(moments)
        deadline = time.monotonic() + TIMEOUT
        while left:
            assert time.monotonic() < deadline, f"nothing came to {[MOMENTS[each] for each in left]}"
            for moment, process in self._held():
                if moment in left and process in [task.child for task in running_tasks(self.live)]:
                    assert kill_all([process])
                    left.remove(moment)
                    self.killed.append(MOMENTS[moment])
                    if isinstance(moment, int):
                        self.database.execute(text("SELECT pg_advisory_unlock(:moment)"), {"moment": moment})
            time.sleep(0.05)

    def _held(self) -> Iterator[tuple[int | str, psutil.Process]]:
        found: list[tuple[int | str, int | None, int]] = [
            (moment, client, self.port) for moment, client in self.database.execute(text(WAITING))
        ]
        held = [each for each in self.sandbox.requests if each.fault == "hang" and each.status is None]
        found += [(each.endpoint, each.client_port, self.sandbox.port) for each in held]
        for moment, client, server in found:
            if process := process_with_port(client or 0, server):
                yield moment, process

    def kill_triggerer(self) -> None:
        """Kill the triggerer, which is started again."""
        assert kill_all(triggerer_processes(self.live))
        self.killed.append(TRIGGERER)

    def kill_any_task(self, moment: str) -> None:
        """Kill the next task process that is seen."""
        deadline = time.monotonic() + TIMEOUT
        while moment not in self.killed:
            assert time.monotonic() < deadline, f"nothing came to {moment}"
            with suppress(psutil.Error):  # one that has just ended
                for task in running_tasks(self.live):
                    if has_started(task) and kill_all([task.child]):
                        self.killed.append(moment)
                        break
            time.sleep(0.02)


def states(live: RestartingAirflow, task_id: str) -> list[str | None]:
    return [task.state for task in live.get_run(DAG_ID, RUN_ID).tasks if task.task_id == f"batch.{task_id}"]


def test_whichever_task_is_killed_the_rows_are_complete_and_bought_once(
    live: RestartingAirflow, sandbox: Sandbox, database: Connection, port: int
) -> None:
    killer = Killer(live, sandbox, database, port)
    sandbox.fault("hang", "generate-batch", accepted=True)
    sandbox.fault("hang", "list")
    live.trigger(DAG_ID, run_id=RUN_ID)

    killer.kill_at(FIRST_ROW)
    killer.kill_at(BETWEEN_CHUNKS)
    killer.kill_at(WRITTEN)
    killer.kill_at("generate-batch", "list")
    live.wait_for("wait", lambda: states(live, "write_emails") == ["deferred"] * BATCHES, timeout=TIMEOUT)
    sandbox.fault("hang", "export")
    killer.kill_triggerer()
    for each in sandbox.lists:
        sandbox.complete(each.id)
    killer.kill_any_task(RESUMED)
    killer.kill_at("export", INSERT, COMMIT)
    result = live.wait(DAG_ID, RUN_ID, TIMEOUT)

    assert sorted(killer.killed) == sorted([*MOMENTS.values(), TRIGGERER, RESUMED])
    assert result.state == "success", result.tasks
    assert bought(sandbox) == {"batches": BATCHES, "credits": PEOPLE, "duplicates": 0}
    rows = "SELECT count(*), count(DISTINCT (email, step)), count(DISTINCT list_id), count(body) FROM emails"
    assert tuple(database.execute(text(rows)).one()) == (3 * PEOPLE, 3 * PEOPLE, BATCHES, 3 * PEOPLE)


def test_a_further_run_sends_nothing_and_changes_nothing(
    live: RestartingAirflow, sandbox: Sandbox, database: Connection
) -> None:
    before, sent = database.execute(text(DIGEST)).scalar_one(), bought(sandbox)
    result = live.wait(DAG_ID, live.trigger(DAG_ID), TIMEOUT)
    assert result.state == "success"
    assert {task.state for task in result.tasks if task.task_id != "find_new_people"} == {"skipped"}
    assert (database.execute(text(DIGEST)).scalar_one(), bought(sandbox)) == (before, sent)


def bought(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "batches": len(sandbox.purchases),
        "credits": sum(each.credits for each in sandbox.purchases),
        "duplicates": sandbox.duplicates,
    }

"""DAGs in a real Airflow: scheduler, triggerer, workers in processes of their own.

All runs are triggered at once and each test waits for its own, so the suite takes little longer than the
slowest run.
"""

from __future__ import annotations

import csv
import json
import shutil
import socket
import sqlite3
from collections.abc import Callable
from configparser import ConfigParser
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import airflow
import psutil
import pytest
from cryptography.fernet import Fernet
from packaging.version import Version
from sqlalchemy import text
from sqlalchemy.engine import Engine

from machfive_provider.sandbox import Sandbox
from scripts.airflow_api import FINISHED
from scripts.guard import session_members
from scripts.live_airflow import DagRunResult, LiveAirflow
from tests.e2e.conftest import DAG_IDS, ROOT

pytestmark = pytest.mark.live
TIMEOUT = 150.0
LEADS = ROOT / "example_dags" / "data" / "leads.csv"
MEANT_TO_FAIL = ("e2e_payment_required", "e2e_forbidden", "e2e_rejected", "e2e_approval_timeout")
ANSWERS = (
    ("machfive_approval", "approve", "Approve"),
    ("e2e_pipeline", "machfive.approve", "Approve"),
    ("e2e_rejected", "machfive.approve", "Reject"),
)
BY_AN_EVENT = "machfive_drop_folder"
Finish = Callable[[str], DagRunResult]


@pytest.fixture(scope="module")
def faults(sandbox: Sandbox) -> dict[str, Any]:
    """The faults scripted before anything runs, each for the leads of one DAG."""
    return {
        "402": sandbox.fault(
            "status",
            endpoint="generate-batch",
            status=402,
            code="INSUFFICIENT_CREDITS",
            times=None,
            contains="payment_required@",
        ),
        "403": sandbox.fault(
            "status",
            endpoint="generate-batch",
            status=403,
            code="FORBIDDEN",
            times=None,
            contains="forbidden@",
        ),
        # Until the test completes the list.
        "stuck": sandbox.fault("stuck", endpoint="generate-batch", contains="server_error_on_poll@"),
    }


@pytest.fixture(scope="module")
def run_ids(live: LiveAirflow, faults: dict[str, Any], warehouse: Any, results: Path) -> dict[str, str]:
    """Create all runs, but for those that a file, a list or the schedule starts."""
    (results / "drop").mkdir()
    shutil.copy(LEADS, results / "drop" / "leads.csv")
    (results / "drop" / "READY").touch()
    (results / "opt-outs.csv").write_text("email\nnobody@example.net\n", encoding="utf-8")
    known = sorted({*DAG_IDS} - {BY_AN_EVENT} - ({"machfive_warehouse"} if warehouse is None else set()))
    # The interval of a run is that before its logical date.
    dates = {"machfive_warehouse": datetime.now(UTC)}
    created = {dag_id: live.create_run(dag_id, logical_date=dates.get(dag_id)) for dag_id in known}
    live.unpause_all()
    return created


@pytest.fixture(scope="module")
def answers(live: LiveAirflow, run_ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Answer what people are asked, and return it by DAG. For late tests: by then most runs have ended."""
    return {
        dag_id: live.answer_when_asked(dag_id, run_ids[dag_id], task_id, option, TIMEOUT)
        for dag_id, task_id, option in ANSWERS
    }


@pytest.fixture(scope="module")
def finish(live: LiveAirflow, run_ids: dict[str, str]) -> Finish:
    """Wait for a DAG's run to end, or for a retry: no scenario here has a retry."""

    def finish(dag_id: str) -> DagRunResult:
        if dag_id not in run_ids:
            live.wait_for(f"run of {dag_id}", lambda: bool(live.run_ids(dag_id)), timeout=TIMEOUT)
            (run_ids[dag_id],) = live.run_ids(dag_id)
        run = live.wait_until(
            dag_id,
            run_ids[dag_id],
            lambda run: run.state in FINISHED or any(task.state == "up_for_retry" for task in run.tasks),
            timeout=TIMEOUT,
        )
        for task in run.tasks:
            if task.state == "up_for_retry" or (task.state == "failed" and dag_id not in MEANT_TO_FAIL):
                log = live.task_log(dag_id, run.run_id, task.task_id, task.try_number, task.map_index)
                pytest.fail(f"{dag_id}.{task.task_id} is {task.state}. The end of its log:\n{log[-3000:]}")
        return run

    return finish


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wait_until_deferred(live: LiveAirflow, dag_id: str, run_id: str) -> DagRunResult:
    return live.wait_until(
        dag_id, run_id, lambda run: any(task.state == "deferred" for task in run.tasks), timeout=TIMEOUT
    )


def trigger_rows(live: LiveAirflow) -> list[str]:
    """Return the arguments of the waiting triggers, from the metadata database, where Airflow may encrypt them."""
    config = ConfigParser(interpolation=None)
    config.read(live.home.path / "airflow.cfg")
    fernet = Fernet(config["core"]["fernet_key"])
    with closing(sqlite3.connect(f"file:{live.home.database}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT kwargs FROM trigger").fetchall()
    return [kwargs if kwargs.startswith("{") else fernet.decrypt(kwargs.encode()).decode() for (kwargs,) in rows]


def test_a_link_leads_to_the_page_while_the_task_is_deferred(live: LiveAirflow, run_ids: dict[str, str]) -> None:
    dag_id = "machfive_batch"
    run = wait_until_deferred(live, dag_id, run_ids[dag_id])
    assert run.task("write_emails").state == "deferred"
    links = live.extra_links(dag_id, run.run_id, "write_emails")
    row = quote(f"{dag_id}|{run.run_id}|write_emails|-1", safe="")
    assert links == {"MachFive list": f"/plugin/machfive/machfive/?row={row}"}


def test_batch_is_written_while_no_worker_waits(finish: Finish, live: LiveAirflow, run_ids: dict[str, str]) -> None:
    run = finish("machfive_batch")
    assert (run.state, run.task("write_emails").try_number) == ("success", 1)
    export = live.xcom("machfive_batch", run.run_id, "write_emails", "machfive_export")
    written = read_jsonl(Path(export["path"].removeprefix("file://")))
    assert (len(written), export["leads"], export["missing"]) == (58, 58, 0)
    assert export["emails"] == sum(len(lead["sequence"]) for lead in written) == 3 * 58
    batch = live.xcom("machfive_batch", run.run_id, "write_emails", "machfive_batch")
    assert batch["list_id"] == live.xcom("machfive_batch", run.run_id, "write_emails")


def test_shards_are_mapped_and_each_buys_its_own_batch(finish: Finish, live: LiveAirflow, sandbox: Sandbox) -> None:
    run = finish("machfive_sharded_batches")
    shards = [task for task in run.tasks if task.task_id == "write_emails"]
    assert [task.state for task in shards] == ["success"] * 3
    lists = {live.xcom(run.dag_id, run.run_id, "write_emails", map_index=number) for number in range(3)}
    assert len(lists) == 3


def test_a_query_becomes_rows_and_nobody_is_bought_twice(
    finish: Finish, live: LiveAirflow, sandbox: Sandbox, warehouse: Engine | None
) -> None:
    """Unpaused, the DAG has a scheduled run beside the one that was triggered, with the same interval."""
    if warehouse is None:
        pytest.skip("PostgreSQL is not installed")
    finish("machfive_warehouse")
    runs = [live.wait("machfive_warehouse", each, TIMEOUT) for each in live.run_ids("machfive_warehouse")]
    assert [run.state for run in runs] == ["success"] * 2
    with warehouse.connect() as database:
        (found,) = database.execute(
            text("SELECT count(*), count(DISTINCT email), count(DISTINCT list_id) FROM emails")
        ).fetchall()
    assert found == (3 * 599, 599, 2)
    bought = [email for each in sandbox.purchases for email in each.emails if email.endswith("@warehouse.example.com")]
    assert (len(bought), len(set(bought))) == (599, 599)
    told = [live.xcom(run.dag_id, run.run_id, "machfive.summary", "machfive_summary") for run in runs]
    figures = sorted((each["leads_given"], each["already_written"], each["credits"], each["table"]) for each in told)
    assert figures == [(600, 0, 599, "emails"), (600, 599, 0, None)]


def test_single_lead_deferrable(finish: Finish, live: LiveAirflow) -> None:
    run = finish("machfive_single_lead")
    assert run.state == "success"
    assert live.xcom(run.dag_id, run.run_id, "count_emails") == 3


def test_sensor_deferrable(finish: Finish, results: Path) -> None:
    assert finish("machfive_wait_for_list").state == "success"
    assert "dana.reyes@example.com" in (results / "two-leads.csv").read_text(encoding="utf-8")


def test_sensors_started_in_the_triggerer_need_no_worker(finish: Finish, live: LiveAirflow) -> None:
    run = finish("e2e_start_from_trigger")
    assert [task.state for task in run.tasks] == ["success"] * 6
    # A worker writes to a file of its own, beside the triggerer's.
    logs = {task.task_id: worker_logs(live, run, task.task_id) for task in run.tasks}
    assert (len(logs["submit"]), len(logs["mapped"])) == (1, 1)
    assert "start_from_trigger has no effect" in logs["mapped"][0]
    if Version(airflow.__version__).release >= (3, 3):
        assert [logs[name] for name in ("plain", "params", "run_id", "several")] == [[]] * 4


def worker_logs(live: LiveAirflow, run: DagRunResult, task_id: str) -> list[str]:
    folder = live.home.logs / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task_id}"
    return [
        path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("attempt=*.log"))
        if ".trigger." not in path.name
    ]


def test_batch_on_a_worker(finish: Finish, results: Path) -> None:
    run = finish("e2e_batch_on_worker")
    assert (run.state, run.task("write_emails").try_number) == ("success", 1)
    written = read_jsonl(results / "on-worker.jsonl")
    assert {lead["email"]: len(lead["sequence"]) for lead in written} == {
        "ada@example.com": 2,
        "bob@example.com": 2,
    }


def test_single_lead_on_a_worker(finish: Finish, live: LiveAirflow) -> None:
    run = finish("e2e_single_on_worker")
    assert run.state == "success"
    result = live.xcom(run.dag_id, run.run_id, "write_sequence")
    assert len(result["sequence"]) == 2
    assert result["lead_id"]


def test_sensor_on_a_worker_rescheduled(finish: Finish, results: Path) -> None:
    assert finish("e2e_sensor_on_worker").state == "success"
    assert "dora@example.com" in (results / "sensor.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("dag_id", "status", "error"),
    [("e2e_payment_required", "402", "InsufficientCreditsError"), ("e2e_forbidden", "403", "ForbiddenError")],
)
def test_permanent_errors_fail_after_one_try(
    dag_id: str, status: str, error: str, finish: Finish, live: LiveAirflow, faults: dict[str, Any]
) -> None:
    run = finish(dag_id)
    task = run.task("write_emails")
    assert (run.state, task.state, task.try_number) == ("failed", "failed", 1)
    assert error in live.task_log(dag_id, run.run_id, "write_emails", 1)
    assert faults[status].used == 1


def test_export_waits_for_a_list_that_is_not_ready(finish: Finish, results: Path) -> None:
    run = finish("e2e_not_ready")
    assert (run.state, run.task("export").try_number) == ("success", 1)
    assert "not_ready@example.com" in (results / "not-ready.json").read_text(encoding="utf-8")


def test_server_errors_while_polling_and_a_late_export_heal(
    finish: Finish, live: LiveAirflow, run_ids: dict[str, str], sandbox: Sandbox
) -> None:
    dag_id = "e2e_server_error_on_poll"
    wait_until_deferred(live, dag_id, run_ids[dag_id])
    list_id = live.xcom(dag_id, run_ids[dag_id], "write_emails", "machfive_batch")["list_id"]
    rows = trigger_rows(live)
    assert any(list_id in row for row in rows)
    assert [row for row in rows for workspace in sandbox.workspaces if workspace.api_key in row] == []

    polls = sandbox.fault("status", endpoint="list", status=500, times=3, contains=list_id)
    export = sandbox.fault("status", endpoint="export", status=409, code="NOT_READY", contains=list_id)
    sandbox.wait_until(lambda: polls.used == 3, timeout=TIMEOUT)
    sandbox.complete(list_id)

    run = finish(dag_id)
    assert (run.state, run.task("write_emails").try_number) == ("success", 1)
    assert export.used == 1
    assert len([bought for bought in sandbox.purchases if bought.list_id == list_id]) == 1


def test_an_approved_batch_is_bought(finish: Finish, answers: dict[str, Any]) -> None:
    assert answers["machfive_approval"]["subject"] == "58 credits for emails?"
    assert "58 leads for 58 credits in 1 batch, campaign 'Spring Outreach'" in answers["machfive_approval"]["body"]
    assert finish("machfive_approval").state == "success"


@pytest.mark.parametrize("dag_id", ["e2e_rejected", "e2e_approval_timeout"])
def test_rejected_or_unanswered_nothing_is_bought(
    dag_id: str, finish: Finish, answers: dict[str, Any], sandbox: Sandbox
) -> None:
    run = finish(dag_id)
    assert run.state == "failed"
    assert (run.task("machfive.approve").state, run.task("machfive.approve").try_number) == ("failed", 1)
    assert run.task("machfive.batch.write_emails").state == "upstream_failed"
    assert [each for each in sandbox.purchases if dag_id in (each.list_name or "")] == []


def test_no_question_is_asked_again_that_is_no_longer_true(
    finish: Finish, live: LiveAirflow, answers: dict[str, Any], results: Path
) -> None:
    """Airflow shows the first question of a run again: its approval would bind what the check has found since."""
    run = finish("e2e_rejected")
    with (results / "opt-outs.csv").open("a", encoding="utf-8") as opted_out:
        opted_out.write("chloe.dubois@reyeslogistics.example.com\n")
    live.clear(run.dag_id, run.run_id)
    again = live.wait(run.dag_id, run.run_id, TIMEOUT)
    assert again.task("machfive.approve").state == "failed"
    assert "Airflow keeps the first question of a run" in worker_logs(live, again, "machfive.approve")[-1]
    assert again.task("machfive.batch.write_emails").state == "upstream_failed"


def test_a_pipeline_delivers_one_file(
    finish: Finish, live: LiveAirflow, answers: dict[str, Any], results: Path
) -> None:
    asked = "Spend 57 credits on 57 leads, campaign Spring Outreach?"
    assert answers["e2e_pipeline"]["subject"] == asked
    run = finish("e2e_pipeline")
    assert run.state == "success"
    told = live.xcom(run.dag_id, run.run_id, "machfive.summary", "machfive_summary")
    (path,) = results.glob("pipeline/*.csv")
    expected = {
        "leads_given": 60,
        "skipped": 2,
        "suppressed": 1,
        "already_written": 0,
        "credits": 57,
        "bought": 2,
        "leads_written": 57,
        "emails": 2 * 57,
        "missing": 0,
        "suppressed_later": 0,
        "missing_path": None,
        "table": None,
        "paths": [str(path)],
        "lists": told["lists"],
    }
    assert told == expected
    with path.open(encoding="utf-8", newline="") as file:
        assert len({row["email"] for row in csv.DictReader(file)}) == 57


def test_a_dropped_file_starts_a_run(finish: Finish, results: Path) -> None:
    assert finish(BY_AN_EVENT).state == "success"
    (path,) = results.glob("drop/emails/*.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        assert [row["body_3"] != "" for row in csv.DictReader(file)] == [True] * 58
    assert sorted(each.name for each in (results / "drop").iterdir()) == ["emails", "taken"]


def test_nothing_listens_beyond_loopback(live: LiveAirflow, run_ids: dict[str, str]) -> None:
    listening = set()
    for process in session_members(live.session_id):
        with suppress(psutil.NoSuchProcess):  # a task's process may have ended since
            listening |= {
                connection.laddr.ip
                for connection in process.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN and connection.family in (socket.AF_INET, socket.AF_INET6)
            }
    assert listening
    assert listening <= {"127.0.0.1", "::1"}


def test_key_is_nowhere(
    finish: Finish,
    live: LiveAirflow,
    run_ids: dict[str, str],
    answers: dict[str, Any],
    sandbox: Sandbox,
    results: Path,
) -> None:
    """Neither in a log, nor in the database with its XComs, rendered templates, connections and triggers."""
    for dag_id in {*run_ids, BY_AN_EVENT}:
        finish(dag_id)
    keys = [workspace.api_key.encode() for workspace in sandbox.workspaces]
    files = [path for folder in (live.home.path, results) for path in folder.rglob("*") if path.is_file()]
    assert live.home.database in files
    assert any(path.is_relative_to(live.home.logs) and ".trigger." in path.name for path in files)
    assert [path for path in files if any(key in bytes_of(path) for key in keys)] == []


def bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # SQLite removes its -wal, Airflow its process ids
        return b""


def test_a_cleared_pipeline_delivers_again_and_buys_nothing(
    finish: Finish, live: LiveAirflow, answers: dict[str, Any], sandbox: Sandbox, results: Path
) -> None:
    run = finish("e2e_pipeline")
    (path,) = results.glob("pipeline/*.csv")
    bought, before = len(sandbox.purchases), path.read_bytes()
    told = live.xcom(run.dag_id, run.run_id, "machfive.summary", "machfive_summary")
    path.unlink()
    live.clear(run.dag_id, run.run_id)
    # What the run has bought is found only after the check: it asks as if nothing were bought yet.
    asked = live.answer_when_asked(run.dag_id, run.run_id, "machfive.approve", "Approve", TIMEOUT)
    assert asked["subject"] == answers["e2e_pipeline"]["subject"]
    assert live.wait(run.dag_id, run.run_id, TIMEOUT).state == "success"
    again = live.xcom(run.dag_id, run.run_id, "machfive.summary", "machfive_summary")
    assert (again, path.read_bytes()) == ({**told, "bought": 0}, before)
    assert len(sandbox.purchases) == bought

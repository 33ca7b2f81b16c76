"""The DAGs that the documentation gives for its five jobs do them in a real Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from machfive_provider.sandbox import Sandbox
from scripts.live_airflow import LiveAirflow
from tests.docs.pages import blocks

pytestmark = pytest.mark.live
TIMEOUT = 150.0
# What each leaves in the folder that stands in place of /data.
CREATED = {"first_emails": "first*", "wait_for_list": "emails/*.csv", "approved_emails": "emails/manual*.csv"}
SCHEDULED = {"emails_from_file": "emails/scheduled*.jsonl", "emails_to_warehouse": "machfive/emails_to_warehouse"}
WATCHER = "on_finished_list"


@pytest.fixture(scope="module")
def runs(live: LiveAirflow, known_list: str, warehouse: Engine | None) -> dict[str, str]:
    """Create all runs, but for those that the schedule or a list starts; approve what asks."""
    confs = {"wait_for_list": {"list_id": known_list}}
    created = {dag_id: live.create_run(dag_id, confs.get(dag_id)) for dag_id in CREATED}
    for dag_id in (*created, *SCHEDULED, WATCHER):
        if warehouse or dag_id != "emails_to_warehouse":
            live.unpause(dag_id)
    live.answer_when_asked("approved_emails", created["approved_emails"], "machfive.approve", "Approve", TIMEOUT)
    return created


@pytest.mark.parametrize("dag_id", [*CREATED, *SCHEDULED])
def test_the_dag_leaves_its_emails(
    dag_id: str, live: LiveAirflow, runs: dict[str, str], data: Path, warehouse: Engine | None
) -> None:
    if dag_id == "emails_to_warehouse" and warehouse is None:
        pytest.skip("PostgreSQL is not installed")
    live.wait_for(f"run of {dag_id}", lambda: bool(live.run_ids(dag_id)), timeout=TIMEOUT)
    (run_id,) = live.run_ids(dag_id)
    run = live.wait(dag_id, run_id, TIMEOUT)
    assert run.state == "success", "\n".join(
        live.task_log(dag_id, run_id, task.task_id, task.try_number, task.map_index)[-3000:]
        for task in run.tasks
        if task.state == "failed"
    )
    assert list(data.glob((CREATED | SCHEDULED)[dag_id]))


def test_the_warehouse_has_the_rows_that_the_page_shows(warehouse: Engine | None) -> None:
    """After the test of its DAG above."""
    if warehouse is None:
        pytest.skip("PostgreSQL is not installed")
    with warehouse.connect() as database:
        rows = database.exec_driver_sql(blocks("docs/warehouse.md", "sql")[1].text).fetchall()
    people = ("dana.reyes@example.com", "li.wei@example.org")
    assert [row[:2] for row in rows] == [(email, step) for email in people for step in (1, 2, 3)]


def test_the_watcher_exports_what_the_hook_has_bought(
    live: LiveAirflow, runs: dict[str, str], sandbox: Sandbox, connect: Callable[..., None], data: Path
) -> None:
    connect(sandbox)
    (_, code, _) = blocks("docs/events.md", "python")
    exec(code.text, {})
    path = data / "finished" / f"{sandbox.purchases[-1].list_id}.jsonl"
    live.wait_for("export of the list", path.exists, timeout=TIMEOUT)
    assert [json.loads(line)["email"] for line in path.read_text(encoding="utf-8").splitlines()] == [
        "dana.reyes@example.com"
    ]

"""Each operator and the sensor under ``dag.test()``, which is Airflow's own way to try a DAG, in a process of its own.

Both modes of each run in a real Airflow: tests/e2e/test_live_airflow.py.

A process of its own, because Airflow reads its settings once; what it prints is checked like a person would.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings

DAGS = '''
"""The DAGs of this test, one for each operator."""

import os

import pendulum
from airflow.sdk import DAG, task

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.pipeline.task_group import machfive_pipeline
from machfive_provider.sensors.lead_list import MachFiveListSensor

RESULTS = os.environ["MACHFIVE_RESULTS"]
LEADS = [{"email": "dana.reyes@example.com", "name": "Dana Reyes"}, {"email": "li.wei@example.org"}]
COMMON = {"campaign_name": "{{ params.campaign }}"}


def dag(name):
    return DAG(
        name,
        schedule=None,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        params={"campaign": os.environ["MACHFIVE_CAMPAIGN"]},
    )


fast = {"deferrable": True, "poll_interval": 1}

with dag("single_worker") as single_worker:
    written = MachFiveGenerateOperator(task_id="write", lead=LEADS[0], deferrable=False, poll_interval=1, **COMMON)

    @task
    def count(result):
        return len(result["sequence"])

    count(written.output)

with dag("chain_deferrable") as chain_deferrable:
    submit = MachFiveGenerateBatchOperator(task_id="submit", leads=LEADS, wait_for_completion=False, **COMMON)
    wait = MachFiveListSensor(task_id="wait", list_id=submit.output, deferrable=True, poke_interval=1)
    export = MachFiveExportListOperator(
        task_id="export", list_id=submit.output, export_to=f"{RESULTS}/chain.csv", expected_leads=2, **fast
    )
    wait >> export

with dag("pipeline") as pipeline:
    machfive_pipeline(
        leads_path=f"{RESULTS}/three.csv",
        leads_folder=f"{RESULTS}/folder",
        batch_size=2,
        to_table="emails",
        to_sql_conn_id="warehouse",
        export_to=f"{RESULTS}/three.parquet",
        poll_interval=1,
        **COMMON,
    )

with dag("nobody") as nobody:
    machfive_pipeline(
        leads_path=f"{RESULTS}/nobody.csv",
        leads_folder=f"{RESULTS}/folder",
        export_to=f"{RESULTS}/nobody.json",
        **COMMON,
    )

with dag("refused") as refused:
    MachFiveGenerateBatchOperator(task_id="write", leads=LEADS, retries=3, deferrable=True, **COMMON)
'''
RUNNER = """
import json, sys
from airflow.configuration import conf
sys.path.insert(0, conf.get("core", "dags_folder"))
import machfive_dags
results = {}
for name in sys.argv[2:]:
    run = getattr(machfive_dags, name).test()
    results[name] = {
        "state": str(run.state),
        "tasks": {f"{ti.task_id}{ti.map_index if ti.map_index >= 0 else ''}": str(ti.state)
                  for ti in run.get_task_instances()},
        "tries": {ti.task_id: ti.try_number for ti in run.get_task_instances()},
    }
open(sys.argv[1], "w").write(json.dumps(results))
"""
NAMES = ["single_worker", "chain_deferrable"]


class Outcome:
    """What the runs left behind."""

    def __init__(self, sandbox: Sandbox, results: dict[str, Any], folder: Path, output: str) -> None:
        self.sandbox, self.results, self.folder, self.output = sandbox, results, folder, output


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Migrate a database and run all DAGs once."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "results").mkdir()
    (home / "dags" / "machfive_dags.py").write_text(DAGS)
    (home / "run.py").write_text(RUNNER)
    settings = SandboxSettings(processing_seconds=0.4, concurrency=100)
    with Sandbox(settings) as sandbox:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(
                {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
            ),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(home / "warehouse.db")}),
            "MACHFIVE_CAMPAIGN": sandbox.workspaces[0].campaigns[0].name,
            "MACHFIVE_RESULTS": str(home / "results"),
        }

        def python(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, cwd=home, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            return done.stdout + done.stderr

        python("-m", "airflow", "db", "migrate")
        (home / "results" / "three.csv").write_text("email\n" + "".join(f"{each}@example.com\n" for each in "abc"))
        (home / "results" / "nobody.csv").write_text("email,name\n")
        output = python("run.py", "results.json", *NAMES, "pipeline", "nobody")
        results = json.loads((home / "results.json").read_text())
        sandbox.workspaces[0].credits = 0
        output += python("run.py", "refused.json", "refused")
        results |= json.loads((home / "refused.json").read_text())
        yield Outcome(sandbox, results, home / "results", output)


@pytest.mark.parametrize("name", [*NAMES, "pipeline"])
def test_the_run_succeeds(outcome: Outcome, name: str):
    assert outcome.results[name]["state"] == "success"
    assert set(outcome.results[name]["tasks"].values()) == {"success"}


def test_the_file_is_there(outcome: Outcome):
    assert "li.wei@example.org" in (outcome.folder / "chain.csv").read_text()


def test_the_pipeline_writes_the_table_and_one_file(outcome: Outcome):
    shards = {"machfive.batch.save_emails0", "machfive.batch.save_emails1"}
    assert shards <= set(outcome.results["pipeline"]["tasks"])
    with closing(sqlite3.connect(outcome.folder.parent / "warehouse.db")) as database:
        rows = database.execute("SELECT list_id, email, step, body FROM emails").fetchall()
    table = pyarrow.parquet.read_table(outcome.folder / "three.parquet").to_pylist()
    assert [(each["list_id"], each["email"], each["step"], each["body"]) for each in table] == sorted(
        rows, key=lambda row: row[1:3]
    )
    assert {each["email"] for each in table} == {"a@example.com", "b@example.com", "c@example.com"}


def test_a_pipeline_without_anybody_ends_well(outcome: Outcome):
    tasks = {name.removeprefix("machfive."): state for name, state in outcome.results["nobody"]["tasks"].items()}
    assert outcome.results["nobody"]["state"] == "success"
    assert tasks == {
        "freeze_leads": "success",
        "check_leads": "success",
        "batch.write_emails": "skipped",
        "summary": "success",
    }
    assert not (outcome.folder / "nobody.json").exists()


def test_every_purchase_is_made_once(outcome: Outcome):
    names = [purchase.list_name for purchase in outcome.sandbox.purchases]
    assert len(names) == len(set(names)) == len(NAMES) + 2
    sent = [request for request in outcome.sandbox.requests if request.method == "POST"]
    assert len(sent) == len(names) + 1  # the refused one


def test_a_refusal_takes_one_try_of_four(outcome: Outcome):
    assert outcome.results["refused"]["state"] == "failed"
    assert outcome.results["refused"]["tries"] == {"write": 1}
    assert "You have 0 credits remaining" in outcome.output


def test_deferral_happened(outcome: Outcome):
    assert "in the triggerer; this worker is free" in outcome.output


def test_nobody_is_in_the_log(outcome: Outcome):
    said = [line for line in outcome.output.splitlines() if "machfive_provider" in line]
    assert said
    assert not [line for line in said if "Dana" in line or "dana.reyes" in line or "li.wei" in line]

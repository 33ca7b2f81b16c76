"""What operators tell OpenLineage, without a run around them; real runs are in tests/jobs/test_backends.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions, lineage
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.transfers.file_to_leads import FileToMachFiveLeadsOperator
from machfive_provider.transfers.list_to_sql import MachFiveToSqlOperator
from tests.tasks import LEADS, UNKNOWN_ID, Run, batch

Connect = Callable[..., None]
PRIVATE = "https://user:{0}@files.example.com/a.csv?token={0}".format("made-up")


def named(task: Any) -> tuple[list[str], list[str]]:
    """Return the inputs and outputs that a task tells at its end, each as one text."""
    told = task.get_openlineage_facets_on_complete(None)
    inputs, outputs = ([f"{each.namespace} {each.name}" for each in way] for way in (told.inputs, told.outputs))
    return inputs, outputs


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/people.csv", "file /data/people.csv"),
        ("file:///data/people.csv", "file /data/people.csv"),
        ("/data/book.xlsx#Sheet2", "file /data/book.xlsx"),
        ("s3://aws_default@crm/in/people.csv", "s3://crm in/people.csv"),
        (PRIVATE, "https://files.example.com a.csv"),
        ("abfs://conn@container/people.csv", "abfs://container people.csv"),
    ],
)
def test_files_and_objects(path: str, expected: str):
    found = lineage.file(path)
    assert f"{found.namespace} {found.name}" == expected


@pytest.mark.parametrize("path", [None, "", " ", {"not": "a path"}])
def test_what_is_no_path_is_left_out(path: Any):
    assert lineage.file(path) is None


def test_a_batch_that_is_not_waited_for(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    run = Run(batch(sandbox, wait_for_completion=False))
    run()
    machfive = f"machfive://{sandbox.base_url.removeprefix('http://')}"
    list_id = sandbox.purchases[0].list_id
    assert named(run.left) == ([f"{machfive} campaign/{sandbox.campaign_id}"], [f"{machfive} list/{list_id}"])


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_a_single_lead(deferrable: bool, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    name = sandbox.workspaces[0].campaigns[0].name
    run = Run(MachFiveGenerateOperator(task_id="write", lead=LEADS[0], campaign_name=name, deferrable=deferrable))
    run()
    machfive = f"machfive://{sandbox.base_url.removeprefix('http://')}"
    list_id = sandbox.purchases[0].list_id
    assert named(run.left) == ([f"{machfive} campaign/{sandbox.campaign_id}"], [f"{machfive} list/{list_id}"])


def test_a_task_that_fails_after_it_wrote_its_file(sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    sandbox.fault("lose_leads")
    run = Run(batch(sandbox, export_to=str(tmp_path / "emails.parquet")))
    with pytest.raises(exceptions.IncompleteExportError):
        run()
    _, (_, export) = named(run.left)
    assert export == f"file {tmp_path / 'emails.parquet'}"
    written = run.left.get_openlineage_facets_on_complete(None).outputs[1].outputFacets["outputStatistics"]
    assert written.rowCount > 2  # a row an email


def test_shards(tmp_path: Path):
    (tmp_path / "people.csv").write_text("email\na@example.com\nb@example.com\n")
    task = FileToMachFiveLeadsOperator(
        task_id="people", leads_path=str(tmp_path / "people.csv"), leads_folder=str(tmp_path / "leads"), batch_size=1
    )
    assert named(task) == ([f"file {tmp_path / 'people.csv'}"], [])
    run = Run(task)
    shards = run()
    assert named(run.left) == ([f"file {tmp_path / 'people.csv'}"], [f"file {each}" for each in shards])


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ("postgres://airflow@db.example.com/crm", ["postgres://db.example.com:5432 crm.sales.emails"]),
        ("sqlite:////tmp/crm.db", []),
    ],
)
def test_tables(connection: str, expected: list[str], sandbox: Sandbox, connect: Connect, monkeypatch: Any):
    """Nothing is asked of the database, which is not there."""
    connect(sandbox)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", connection)
    task = MachFiveToSqlOperator(task_id="save", list_id=UNKNOWN_ID, sql_conn_id="warehouse", table="sales.emails")
    machfive = f"machfive://{sandbox.base_url.removeprefix('http://')}"
    assert named(task) == ([f"{machfive} list/{UNKNOWN_ID}"], expected)


@pytest.mark.parametrize("operator", [MachFiveGenerateBatchOperator, FileToMachFiveLeadsOperator])
def test_a_mapped_task_keeps_airflows_defaults(operator: Any):
    """With the mixin before ``BaseOperator`` this was None, and Airflow 3.3.2 could start no mapped task."""
    mapped = operator.partial(task_id="mapped").expand(leads_path=["a.csv", "b.csv"])
    assert mapped.inlets == mapped.outlets == []

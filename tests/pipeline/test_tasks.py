"""The pipeline's own tasks: its check, the question to a person, its summary."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from machfive_provider.exceptions import ConfigurationError, IncompleteExportError, MachFivePermanentError
from machfive_provider.pipeline.approval import ask_for_approval
from machfive_provider.pipeline.tasks import PipelineCheckOperator, PipelineSummaryOperator
from machfive_provider.sandbox import Sandbox
from tests.tasks import LEADS, UNKNOWN_ID, Logs, Run

SOURCE = {"rows": 9, "leads": 6, "skipped": 2, "already_written": 1, "shards": 3}
CHECK = {"leads": 3, "credits": 3, "suppressed": 3, "already_written": 1}
TABLE = {"table": "people", "sql_conn_id": "crm", "one_row_per": "email", "create_table": True}
SKIPPED = {"phase": "skipped", "credits": 0}


class Pulls:
    """The XComs of the tasks before: an unmapped task's value, and a list of a mapped one's, as Airflow gives them."""

    def __init__(self, batches: Any, exports: Any) -> None:
        self.found = {
            ("freeze", "machfive_leads"): SOURCE,
            ("check", "return_value"): CHECK,
            ("buy", "machfive_batch"): batches,
            ("save", "machfive_export"): exports,
        }
        self.pushed: dict[str, Any] = {}

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        return self.found[task_ids, key]

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = json.loads(json.dumps(value))


def bought(number: int, **told: Any) -> dict[str, Any]:
    return {"phase": "completed", "list_id": f"list-{number}", "credits": 2, "bought": True, **told}


def export(folder: Path, *leads: dict[str, Any], **figures: Any) -> dict[str, Any]:
    path = folder / f"{leads[0]['email']}.jsonl"
    path.write_text("".join(f"{json.dumps(lead)}\n" for lead in leads))
    known = {"path": str(path), "leads": len(leads), "emails": len(leads), "missing": 0, "suppressed_later": 0}
    return {**known, "missing_path": None, **figures}


def summary(pulls: Pulls, **arguments: Any) -> dict[str, Any]:
    names = {"task_id": "summary", "source_id": "freeze", "check_id": "check", "batch_id": "buy", "delivery_id": "save"}
    operator = PipelineSummaryOperator(**{**names, **arguments})
    context: Any = {"ti": pulls}
    operator.execute(context)
    return pulls.pushed["machfive_summary"]


def test_the_figures_of_all_batches_and_one_file(tmp_path: Path):
    result = tmp_path / "all.jsonl"
    exports = [export(tmp_path, LEADS[0], LEADS[1], suppressed_later=1), export(tmp_path, LEADS[2])]
    batches = [bought(1), SKIPPED, bought(2, bought=False, credits=1)]
    found = summary(Pulls(batches, exports), export_to=str(result), suppress=[LEADS[1]["email"]])
    assert found == {
        "leads_given": 9,
        "skipped": 2,
        "suppressed": 3,
        "already_written": 2,
        "credits": 3,
        "bought": 1,
        "leads_written": 2,
        "emails": None,
        "missing": 0,
        "suppressed_later": 2,
        "missing_path": None,
        "lists": ["list-1", "list-2"],
        "paths": [str(result)],
        "table": None,
    }
    emails = [json.loads(line)["email"] for line in result.read_text().splitlines()]
    assert emails == [LEADS[0]["email"], LEADS[2]["email"]]


def test_one_batch_a_table_and_what_is_not_known(tmp_path: Path):
    # A single XCom of a mapped task comes without a list around it.
    found = summary(Pulls(bought(1, credits=None), export(tmp_path, LEADS[0], missing=None)), table="crm.emails")
    assert (found["credits"], found["missing"], found["leads_written"]) == (None, None, 1)
    assert (found["table"], found["paths"]) == ("crm.emails", [])
    files = summary(Pulls(bought(1), export(tmp_path, LEADS[0])))
    assert files["paths"] == [str(tmp_path / f"{LEADS[0]['email']}.jsonl")]


@pytest.mark.parametrize("batches", [None, [SKIPPED, SKIPPED]])
def test_nobody_left_writes_nothing_and_ends_well(batches: Any, tmp_path: Path):
    found = summary(Pulls(batches, None), export_to=str(tmp_path / "all.csv"), table="emails")
    assert (found["lists"], found["paths"], found["table"], found["credits"]) == ([], [], None, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("policy", ["fail", "warn", "ignore"])
def test_missing_leads_are_told_when_everything_is_delivered(policy: Any, tmp_path: Path, logs: Logs):
    beside = tmp_path / "part.missing.csv"
    beside.write_text("email\nx@example.com\n")
    pulls = Pulls([bought(1)], [export(tmp_path, LEADS[0], missing=1, missing_path=str(beside))])
    result = tmp_path / "all.jsonl"
    said = f"1 lead that were paid for have no emails. They are listed in {result}.missing.csv"
    expected = pytest.raises(IncompleteExportError, match=re.escape(said)) if policy == "fail" else nullcontext()
    with expected:
        summary(pulls, export_to=str(result), on_missing_leads=policy)
    assert (said in "".join(logs.warnings)) == (policy == "warn")
    assert pulls.pushed["machfive_summary"]["missing_path"] == f"{result}.missing.csv"
    assert "x@example.com" in Path(f"{result}.missing.csv").read_text()
    assert result.exists()


def test_nothing_is_merged_from_half_of_the_exports(tmp_path: Path):
    pulls = Pulls([bought(1), bought(2)], [export(tmp_path, LEADS[0])])
    with pytest.raises(MachFivePermanentError, match=r"2 lists and of 1 export\. Nothing was written"):
        summary(pulls, export_to=str(tmp_path / "all.jsonl"))
    assert not (tmp_path / "all.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"export_to": "{folder}"}, "is a folder"),
        ({"to_table": TABLE}, "'people' has no list_id, step"),
    ],
)
def test_a_result_that_cannot_be_written_is_refused_before_money_is_spent(
    arguments: dict[str, Any],
    message: str,
    sandbox: Sandbox,
    connect: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    connect(sandbox)
    with closing(sqlite3.connect(tmp_path / "crm.db")) as database:
        database.execute("CREATE TABLE people (email)")
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "crm.db")}))
    given = {name: str(tmp_path) if name == "export_to" else value for name, value in arguments.items()}
    check = PipelineCheckOperator(
        task_id="check", leads=list(LEADS), campaign_id=sandbox.campaign_id, export_format="csv", **given
    )
    with pytest.raises(ConfigurationError, match=message):
        Run(check)()
    assert sandbox.requests == []


def before_asking(credits_needed: int, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin the task that asks, in an Airflow that has kept a question of this text from an earlier try."""
    task = ask_for_approval(SimpleNamespace(task_id="check"), "approve", None)
    task.subject, task.body = "Spend 3 credits?", "Write to 3 leads."
    kept = SimpleNamespace(subject=stored, body=task.body)
    supervisor = SimpleNamespace(send=lambda _question: kept)
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", supervisor, raising=False)
    ti = SimpleNamespace(id=UUID(UNKNOWN_ID), xcom_pull=lambda task_ids: {"credits": credits_needed})
    context: Any = {"ti": ti, "task": task}
    task._pre_execute_hook(context)


@pytest.mark.parametrize(
    ("leads", "credits_needed", "question"),
    [
        (1, 1, "Spend 1 credit on 1 lead, campaign Spring Outreach?"),
        (57, 114, "Spend 114 credits on 57 leads, campaign Spring Outreach?"),
    ],
)
def test_a_person_is_asked_in_a_sentence(leads: int, credits_needed: int, question: str):
    found = {"leads": leads, "credits": credits_needed, "campaign_name": "Spring Outreach"}
    task = ask_for_approval(SimpleNamespace(task_id="check"), "approve", None)
    ti = SimpleNamespace(xcom_pull=lambda task_ids: found)
    assert task.render_template(task.subject, {"ti": ti}) == question


def test_nobody_is_asked_about_nothing(monkeypatch: pytest.MonkeyPatch):
    before_asking(3, "Spend 3 credits?", monkeypatch)
    with pytest.raises(AirflowSkipException, match="nobody is asked"):
        before_asking(0, "Spend 3 credits?", monkeypatch)


def test_nobody_is_shown_an_old_question(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(AirflowFailException, match="approve what nobody has read"):
        before_asking(3, "Spend 1 credits?", monkeypatch)

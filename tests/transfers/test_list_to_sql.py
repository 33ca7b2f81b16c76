"""From a list to a table, on real databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import Asset

from machfive_provider import exceptions
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from machfive_provider.transfers.list_to_sql import MachFiveToSqlOperator
from machfive_provider.ui.link import MachFiveListLink
from tests.clock import Clock
from tests.tasks import LEADS, PERSONAL, Logs, Run, leaks
from tests.transfers.conftest import ONLY_SQLITE, Database

Connect = Callable[..., None]
TABLES = {"email": "emails", "lead": "leads"}


def bought(sandbox: Sandbox) -> str:
    with MachFiveHook() as hook:
        return hook.generate_batch(sandbox.campaign_id, [Lead(**lead) for lead in LEADS]).list_id


def transfer(list_id: str, **arguments: Any) -> MachFiveToSqlOperator:
    known = {"task_id": "write", "list_id": list_id, "sql_conn_id": "warehouse", "table": "emails"}
    return MachFiveToSqlOperator(**{**known, **arguments})


def exported(list_id: str) -> list[Any]:
    with MachFiveHook() as hook:
        return json.loads(b"".join(hook.stream_export(list_id, "json")))["leads"]


def emails(database: Database, list_id: str, table: str = "emails") -> list[tuple[Any, ...]]:
    columns = "email, step, subject, body, name, company, title"
    return database.run(f"SELECT {columns} FROM {table} WHERE list_id = '{list_id}' ORDER BY email, step")


def test_one_row_an_email(database: Database, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    list_id, other = bought(sandbox), bought(sandbox)
    run = Run(transfer(list_id))
    assert run() == "emails"
    Run(transfer(other))()
    sent = [
        (lead["email"], each["step"], each["subject"], each["body"], *map(lead.get, ("name", "company", "title")))
        for lead in exported(list_id)
        for each in lead["sequence"]
    ]
    assert emails(database, list_id) == sorted(sent)
    assert run.xcoms["machfive_export"] == {
        "path": "warehouse:emails",
        "bytes": None,
        "leads": 3,
        "emails": 9,
        "missing": 0,
        "extra": 0,
        "short": None,
        "odd": 0,
        "suppressed_later": 0,
        "missing_path": None,
    }
    assert run.xcoms["machfive_batch"].items() >= {"phase": "completed", "list_id": list_id, "leads_count": 3}.items()
    database.run(f"UPDATE emails SET subject = 'changed' WHERE list_id = '{list_id}'")
    database.run(f"DELETE FROM emails WHERE email = 'li.wei@example.org' AND list_id = '{list_id}'")
    Run(transfer(list_id, create_table=False))()
    assert emails(database, list_id) == sorted(sent)
    assert len(emails(database, other)) == 9
    ((moment,),) = database.run("SELECT DISTINCT max(exported_at) FROM emails")
    assert str(moment).startswith("20")
    assert not leaks(PERSONAL, *(line for line in logs.text.splitlines() if "machfive_provider" in line))


def test_one_row_a_lead(database: Database, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    list_id = bought(sandbox)
    for _ in range(2):
        Run(transfer(list_id, one_row_per="lead", table="leads"))()
    rows = database.run("SELECT list_id, email, emails, name, company, title, sequence FROM leads ORDER BY email")
    facts = ("email", "name", "company", "title")
    assert [row[:-1] for row in rows] == [
        (list_id, lead["email"], 3, *map(lead.get, facts[1:])) for lead in exported(list_id)
    ]
    assert [json.loads(row[-1]) for row in rows] == [lead["sequence"] for lead in exported(list_id)]


@ONLY_SQLITE
def test_waiting_first(database: Database, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    list_id = bought(slow_sandbox)
    run = Run(transfer(list_id, deferrable=True), between=lambda _: slow_sandbox.complete(list_id))
    assert run() == "emails"
    assert len(run.triggers) == 1
    assert len(emails(database, list_id)) == 9


@ONLY_SQLITE
def test_an_export_that_is_not_ready_is_waited_for(
    database: Database, sandbox: Sandbox, connect: Connect, clock: Clock
):
    connect(sandbox)
    list_id = bought(sandbox)
    Run(transfer(list_id))()
    sandbox.fault("status", endpoint="export", times=2, status=409)
    Run(transfer(list_id))()
    assert len(sandbox.requests_to("export")) == 4
    assert len(emails(database, list_id)) == 9


@ONLY_SQLITE
def test_what_was_taken_out_of_a_text_is_told(database: Database, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    with MachFiveHook() as hook:
        list_id = hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com", company="A\0cme")]).list_id
    Run(transfer(list_id))()
    assert {row[5] for row in emails(database, list_id)} == {"Acme"}
    assert [line for line in logs.warnings if f"texts of list {list_id} held characters" in line]


@ONLY_SQLITE
def test_an_asset_event_tells_where_the_emails_are(database: Database, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    asset = Asset("emails")
    list_id = bought(sandbox)
    run = Run(transfer(list_id, outlets=[asset]))
    run()
    extra = run.context["outlet_events"][asset].extra
    assert extra.items() >= {"list_id": list_id, "path": "warehouse:emails", "emails": 9, "leads_count": 3}.items()


def test_a_button_leads_to_the_list():
    assert MachFiveToSqlOperator in MachFiveListLink.operators


@ONLY_SQLITE
def test_a_failed_list_changes_nothing(database: Database, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    list_id = bought(slow_sandbox)
    slow_sandbox.fail(list_id)
    run = Run(transfer(list_id))
    with pytest.raises(exceptions.ListFailedError):
        run()
    assert run.xcoms["machfive_batch"]["error"]["class"] == "ListFailedError"


@ONLY_SQLITE
@pytest.mark.parametrize("policy", ["fail", "warn", "ignore"])
def test_missing_leads(policy: str, database: Database, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    sandbox.fault("lose_leads", count=2)
    list_id = bought(sandbox)
    run = Run(transfer(list_id, expected_leads=list(LEADS), on_missing_leads=policy))
    if policy == "fail":
        with pytest.raises(exceptions.IncompleteExportError, match="lacks 2 of the 3 leads") as caught:
            run()
        said = str(caught.value)
    else:
        run()
        said = "\n".join(logs.warnings)
    if policy != "ignore":
        assert "leaves out who has an email in warehouse:emails (skip_already_written) submits them again" in said
    assert run.xcoms["machfive_export"].items() >= {"leads": 1, "missing": 2, "missing_path": None}.items()
    assert len(emails(database, list_id)) == 3


# The steps in the table of the lead that is odd, and what is counted: leads, missing, short, odd.
ODD = {
    "null_sequence": ([], (2, 1, None, 0)),
    "no_sequence": ([], (2, 1, None, 0)),
    "empty_sequence": ([], (2, 1, None, 0)),
    "null_entry": ([2, 3], (3, 0, 1, 0)),
    "null_subject": ([1, 2, 3], (3, 0, 1, 0)),
    "no_body": ([1, 2, 3], (3, 0, 1, 0)),
    "text_step": ([1, 2, 3], (3, 0, None, 0)),
    "null_email": ([], (2, 1, None, 1)),
    "no_email": ([], (2, 1, None, 1)),
    "no_object": ([], (2, 1, None, 1)),
}


@ONLY_SQLITE
@pytest.mark.parametrize("oddity", ODD)
def test_odd_leads_withhold_nothing(oddity: str, database: Database, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    sandbox.fault("odd_leads", oddity=oddity)
    list_id = bought(sandbox)
    run = Run(transfer(list_id, on_missing_leads="warn"))
    run()
    rows = emails(database, list_id)
    assert [row[1] for row in rows if row[0] == "dana.reyes@example.com"] == ODD[oddity][0]
    assert len([row for row in rows if row[0] != "dana.reyes@example.com"]) == 6
    counted = run.xcoms["machfive_export"]
    assert tuple(counted[name] for name in ("leads", "missing", "short", "odd")) == ODD[oddity][1]
    if counted["odd"]:
        assert "since the table has no row for it" in "\n".join(logs.warnings)
    Run(transfer(list_id, on_missing_leads="ignore", table="leads", one_row_per="lead"))()
    assert len(database.run("SELECT * FROM leads")) == 3 - counted["odd"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"one_row_per": "step"}, "one_row_per is 'step'"),
        ({"on_missing_leads": "skip"}, "on_missing_leads is 'skip'"),
        ({"poll_interval": 0}, "poll_interval must be"),
        ({"timeout": float("nan")}, "timeout must be"),
    ],
)
def test_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str):
    with pytest.raises(exceptions.ConfigurationError, match=message):
        transfer("{{ ti }}", **arguments)


@ONLY_SQLITE
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"list_id": "none"}, "list_id"),
        ({"sql_conn_id": "nobody"}, "connection 'nobody' does not exist"),
        ({"table": "crm."}, "must be 'table' or 'schema.table'"),
        ({"expected_leads": 1.5}, "expected_leads must be"),
        ({"create_table": False}, "'emails' does not exist and create_table is False"),
    ],
)
def test_refused_before_waiting(
    arguments: dict[str, Any], message: str, database: Database, slow_sandbox: Sandbox, connect: Connect
):
    connect(slow_sandbox)
    with pytest.raises(exceptions.ConfigurationError, match=message):
        Run(transfer(**{"list_id": bought(slow_sandbox), "deferrable": True, **arguments}))()


def test_a_mapped_instance_is_called_by_its_list():
    assert transfer("7f073687").label == "7f073687"


@ONLY_SQLITE
def test_who_opted_out_gets_no_row(database: Database, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    list_id = bought(sandbox)
    run = Run(transfer(list_id, expected_leads=list(LEADS), suppress=[LEADS[0]["email"]]))
    run()
    assert {row[0] for row in emails(database, list_id)} == {lead["email"] for lead in LEADS[1:]}
    assert run.xcoms["machfive_export"].items() >= {"leads": 2, "missing": 0, "suppressed_later": 1}.items()

"""From a query to shards of leads, on real databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from airflow.sdk.io import attach
from hypothesis import example, given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.sandbox import Sandbox
from machfive_provider.transfers.shards import folder_name
from machfive_provider.transfers.sql_to_leads import SqlToMachFiveLeadsOperator
from tests.clock import Clock
from tests.tasks import Logs, Run, batch
from tests.transfers.conftest import ONLY_SQLITE, Database

TEXT = "VARCHAR(100)"


@pytest.fixture
def store() -> Iterator[None]:
    """Empty fsspec's own object store in memory."""
    fs = fsspec.filesystem("memory")
    attach(protocol="memory", conn_id="store", fs=fs)
    yield
    fs.store.clear()


def source(folder: Any, sql: str = "SELECT email FROM people ORDER BY email", **arguments: Any) -> Any:
    return SqlToMachFiveLeadsOperator(
        **{"task_id": "people", "sql": sql, "sql_conn_id": "warehouse", "leads_folder": str(folder), **arguments}
    )


def address(number: int) -> str:
    return f"p{number}@example.com"


def people(database: Database, *numbers: int) -> None:
    database.people(*({"email": address(each)} for each in numbers), email=TEXT)


def frozen(paths: list[str]) -> list[dict[str, str]]:
    return [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]


def who(paths: list[str]) -> list[int]:
    return [int(lead["email"].partition("@")[0][1:]) for lead in frozen(paths)]


# --- what is read


def test_rows_become_shards(database: Database, tmp_path: Path, logs: Logs):
    names = ("email", "first_name", "last_name", "firm", "grade")
    odd = (" Zoë@Example.COM", "Zoë", "O'Brien\t🌍", 'Say "100%" GmbH', 37)
    rows = [odd, *((address(each), "", None, None, None) for each in range(4))]
    types = dict.fromkeys(names, TEXT) | {"grade": "INTEGER"}
    database.people(*(dict(zip(names, row, strict=True)) for row in rows), **types)
    columns = {"company": "firm", "title": "grade"}
    run = Run(source(tmp_path, "SELECT * FROM people ORDER BY grade IS NULL, email", columns=columns, batch_size=2))
    paths = run()
    assert [len(frozen([path])) for path in paths] == [2, 2, 1]
    assert frozen(paths) == [
        {"email": "Zoë@example.com", "name": "Zoë O'Brien 🌍", "title": "37", "company": 'Say "100%" GmbH'},
        *({"email": address(each)} for each in range(4)),
    ]
    assert run.xcoms["machfive_leads"] == {"rows": 5, "leads": 5, "skipped": 0, "already_written": 0, "shards": 3}
    assert "@" not in "".join(line for line in logs.text.splitlines() if "machfive_provider" in line)


def test_rows_that_cannot_be_used(database: Database, tmp_path: Path):
    people(database, 1, 2, 1)
    database.run("INSERT INTO people VALUES ('no address'), (NULL)")
    with pytest.raises(exceptions.InvalidLeadsError, match="2 of 5 leads cannot be used") as caught:
        Run(source(tmp_path))()
    assert "no address" not in str(caught.value)
    with pytest.raises(exceptions.InvalidLeadsError, match="1 of 5 leads are duplicates"):
        Run(source(tmp_path, on_invalid_lead="skip"))()
    assert not list(tmp_path.rglob("*.jsonl"))
    run = Run(source(tmp_path, on_invalid_lead="skip", on_duplicate_lead="first"))
    assert who(run()) == [1, 2]
    assert run.xcoms["machfive_leads"].items() >= {"rows": 5, "leads": 2, "skipped": 3}.items()


@pytest.mark.parametrize("database", ["postgres", "mariadb"], indirect=True)
def test_a_date_is_no_title(database: Database, tmp_path: Path):
    database.people({"email": address(1), "since": "2026-01-01"}, email=TEXT, since="DATE")
    with pytest.raises(exceptions.InvalidLeadsError, match="title is a value of type date, not a text"):
        Run(source(tmp_path, "SELECT * FROM people", columns={"title": "since"}))()


@ONLY_SQLITE
def test_two_columns_of_one_name(database: Database, tmp_path: Path):
    people(database, 1)
    with pytest.raises(exceptions.InvalidLeadsError, match="several columns called 'email'"):
        Run(source(tmp_path, "SELECT a.email, b.email FROM people a, people b"))()


@ONLY_SQLITE
def test_what_was_frozen_is_what_a_batch_reads(
    database: Database, tmp_path: Path, sandbox: Sandbox, connect: Callable[..., None], logs: Logs
):
    """A value that only ``columns`` accepts is left out when the shard is written, not when it is read."""
    connect(sandbox)
    page = "https://linkedin.com/in/zoe"
    row = {"email": address(1), "firm": "Zoë & Co", "place": page, "contact": "https://example.com"}
    database.people(row, email=TEXT, firm=TEXT, place=TEXT, contact=TEXT)
    columns = {"company_website": "place", "company": "firm", "name": "contact"}
    paths = Run(source(tmp_path, "SELECT * FROM people", columns=columns))()
    assert "1 lead: columns= names a value" in logs.text
    for path in paths:
        Run(batch(sandbox, leads_path=path))()
    assert [lead.fields for lead in sandbox.lists[0].leads] == frozen(paths)


@pytest.mark.parametrize("sql", ["SELECT email FROM people WHERE email LIKE 'p%'", "SELECT email FROM people;"])
def test_percent_signs_and_semicolons_are_left_alone(database: Database, tmp_path: Path, sql: str):
    people(database, 1)
    assert who(Run(source(tmp_path, sql))()) == [1]


# --- nobody


def test_an_empty_result_is_no_error(database: Database, tmp_path: Path, logs: Logs):
    people(database)
    run = Run(source(tmp_path))
    assert run() == []
    assert run.xcoms["machfive_leads"] == {"rows": 0, "leads": 0, "skipped": 0, "already_written": 0, "shards": 0}
    assert "Nobody is left to write to" in logs.text
    database.run("INSERT INTO people VALUES ('p1@example.com')")
    assert run() == []  # a retry of this run reads the same nobody


def test_who_is_already_written_is_left_out(database: Database, tmp_path: Path):
    people(database, 1, 2, 3, 4)
    left: list[list[int]] = []

    def read(run_id: str) -> None:
        left.append(who(Run(source(tmp_path, skip_already_written="results"), run_id=run_id)()))

    read("no table")
    database.run(f"CREATE TABLE results (email {TEXT}, step INTEGER, subject {TEXT}, body {TEXT})")
    read("nobody in it")
    rows = [
        {"email": "P1@Example.com", "step": 1, "subject": "a", "body": "b"},
        {"email": "P1@Example.com", "step": 2, "subject": "a", "body": "b"},
        {"email": address(2), "step": 1, "subject": None, "body": None},
        {"email": address(3), "step": 1, "subject": "", "body": "b"},
        {"email": None, "step": 1, "subject": "", "body": "b"},
    ]
    database.run("INSERT INTO results VALUES (:email, :step, :subject, :body)", *rows)
    read("some")
    database.run("DROP TABLE results")
    database.run(f"CREATE TABLE results (email {TEXT}, emails INTEGER)")
    database.run("INSERT INTO results VALUES ('p1@example.com', 3), ('p2@example.com', 0)")
    read("one row a lead")
    database.run("DELETE FROM people WHERE email <> 'p1@example.com'")
    read("nobody left")
    assert left == [[1, 2, 3, 4], [1, 2, 3, 4], [2, 4], [2, 3, 4], []]


@ONLY_SQLITE
def test_a_table_of_results_without_addresses(database: Database, tmp_path: Path):
    people(database, 1)
    database.run("CREATE TABLE results (mail TEXT)")
    with pytest.raises(exceptions.ConfigurationError, match=r"'results' has no column 'email'\. It has 'mail'"):
        Run(source(tmp_path, skip_already_written="results"))()


# --- the shards of a run


@ONLY_SQLITE
@pytest.mark.parametrize("policy", ["reuse", "query"])
def test_a_run_keeps_its_people(policy: str, database: Database, tmp_path: Path, logs: Logs):
    people(database, 1, 2)
    operator = source(tmp_path, on_existing_shards=policy, retries=2)
    run = Run(operator)
    paths = run()
    database.run("UPDATE people SET email = 'p3@example.com' WHERE email = 'p2@example.com'")
    again = Run(operator, try_number=2)
    assert again() == paths
    assert again.xcoms == run.xcoms
    assert "The source is not read again" in logs.text
    cleared = Run(operator, try_number=2, clears=1)()
    assert who(cleared) == ([1, 2] if policy == "reuse" else [1, 3])
    assert Run(operator, try_number=3, clears=1)() == cleared
    assert who(paths) == [1, 2]  # a batch that still reads them is not disturbed


@ONLY_SQLITE
def test_shards_without_a_manifest_were_left_by_a_killed_try(database: Database, tmp_path: Path):
    people(database, 1)
    (first,) = Run(source(tmp_path))()
    Path(first).with_name("manifest.json").unlink()
    database.run("UPDATE people SET email = 'p2@example.com'")
    (second,) = Run(source(tmp_path))()
    assert first != second
    assert who([second]) == [2]


@ONLY_SQLITE
@pytest.mark.usefixtures("store")
def test_each_instance_has_a_folder_wherever_it_is(database: Database):
    people(database, 1)
    run_id = "manual__2026-11-20T00:00:00+00:00"
    folder = "memory://store@crm/leads/"
    (unmapped,) = Run(source(folder), run_id=run_id)()
    assert unmapped.startswith("memory://store@crm/leads/crm/people/manual__2026-11-20T00=3A00=3A00=2B00=3A00/2")
    (mapped,) = Run(source(folder), run_id=run_id, map_index=3)()
    assert "=2B00=3A00/3/2" in mapped
    assert Run(source(folder), run_id=run_id)() == [unmapped]
    assert Run(source(folder), run_id=run_id, map_index=3)() == [mapped]
    (other,) = Run(source(folder), run_id=f"{run_id}0")()
    assert len({unmapped, mapped, other}) == 3


@given(st.text(min_size=1), st.text(min_size=1))
@example("..", "=2E.")
@example("run/" * 60, "run/" * 61)
@example("é" * 60, "é" * 60)
def test_names_of_folders_are_safe_and_tell_ids_apart(one: str, other: str):
    assert set(folder_name(one)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=._-")
    assert not folder_name(one).startswith(".")
    assert len(folder_name(one)) < 180
    assert (folder_name(one) == folder_name(other)) == (one == other)


@ONLY_SQLITE
def test_shards_of_runs_long_past_are_removed(database: Database, tmp_path: Path, clock: Clock, logs: Logs):
    people(database, 1)
    keep = {"keep_for": timedelta(days=2), "on_existing_shards": "query"}

    def runs() -> set[str]:
        return {each.name for each in (tmp_path / "crm" / "people").iterdir()}

    Run(source(tmp_path, **keep), run_id="first")()
    Run(source(tmp_path, **keep), run_id="first", map_index=1)()
    (beside := tmp_path / "crm" / "people" / "notes" / "2001").mkdir(parents=True)
    (beside / "mine.txt").touch()
    clock.ahead += 86400
    Run(source(tmp_path, **keep), run_id="second")()
    Run(source(tmp_path, **keep), run_id="cleared")()
    clock.ahead += 86401
    Run(source(tmp_path, **keep), run_id="first")()  # a retry: its own are old, and stay
    assert runs() == {"first", "second", "cleared", "notes"}
    Run(source(tmp_path, **keep), run_id="cleared", clears=1)()
    assert runs() == {"second", "cleared", "notes"}
    clock.ahead += 86401
    Run(source(tmp_path, **keep), run_id="third")()
    assert runs() == {"cleared", "third", "notes"}
    assert "Removed the shards of 1 run" in logs.text


# --- what must not happen


def test_nothing_is_written_into_the_query(database: Database, tmp_path: Path):
    people(database, 1, 2)
    sql = f"SELECT email FROM people WHERE email = {database.placeholder.format('who')}"
    attack = "x' OR '1'='1'; DROP TABLE people; --"
    assert Run(source(tmp_path, sql, parameters={"who": attack}), run_id="1")() == []
    assert who(Run(source(tmp_path, sql, parameters={"who": address(2)}), run_id="2")()) == [2]
    listed = sql.replace(database.placeholder.format("who"), "?" if database.kind == "sqlite" else "%s")
    assert who(Run(source(tmp_path, listed, parameters=[address(1)]), run_id="3")()) == [1]


@pytest.mark.parametrize("name", ["r; DROP TABLE people", 'r" ; DROP TABLE people; --', "r` ; DROP TABLE people; --"])
def test_a_table_name_is_a_name(name: str, database: Database, tmp_path: Path):
    people(database, 1)
    assert who(Run(source(tmp_path, skip_already_written=name))()) == [1]
    with pytest.raises(exceptions.InvalidLeadsError, match="columns names"):
        Run(source(tmp_path, columns={"title": name}), run_id="2")()
    assert database.run("SELECT count(*) FROM people") == [(1,)]


def test_a_query_that_is_none(database: Database, tmp_path: Path):
    people(database, 1)
    with pytest.raises(exceptions.ConfigurationError, match=r"returns no rows|syntax error"):
        Run(source(tmp_path, "UPDATE people SET email = 'p2@example.com'"))()
    with pytest.raises(exceptions.MachFiveError, match=r"The query failed in the database \(\w+") as caught:
        Run(source(tmp_path, "SELECT nothing FROM people"))()
    assert "nothing" in str(caught.value)
    # The drivers of MySQL call a wrong column an OperationalError, as they do a lost connection.
    assert caught.value.retryable == (database.kind == "mariadb")
    assert database.run("SELECT email FROM people") == [(address(1),)]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_an_address_in_what_the_database_says_is_not_repeated(database: Database, tmp_path: Path):
    people(database, 1)
    with pytest.raises(exceptions.ConfigurationError, match=r'type integer: "\(an address\)"') as caught:
        Run(source(tmp_path, "SELECT email::integer AS email FROM people"))()
    assert "p1" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"on_invalid_lead": "drop"}, "on_invalid_lead is 'drop'"),
        ({"on_duplicate_lead": "last"}, "on_duplicate_lead is 'last'"),
        ({"on_existing_shards": "adopt"}, "on_existing_shards is 'adopt'"),
        ({"keep_for": timedelta(0)}, "keep_for must be"),
        ({"columns": {"phone": "tel"}}, "has no field 'phone'"),
    ],
)
def test_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str):
    with pytest.raises(exceptions.ConfigurationError, match=message):
        source("leads", **arguments)


@ONLY_SQLITE
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sql_conn_id": "nobody"}, "connection 'nobody' does not exist"),
        ({"sql_conn_id": "machfive_default"}, "of type 'machfive', is no SQL database"),
        ({"sql_conn_id": "unknown_type"}, "of type 'abacus', is no SQL database"),
        ({"sql": None}, "sql must be a query"),
        ({"parameters": "a text"}, "parameters must be a mapping or a list"),
        ({"skip_already_written": "crm."}, "must be 'table' or 'schema.table'"),
        ({"skip_already_written": "a\0b"}, "must be the name of a table"),
        ({"leads_folder": " "}, "leads_folder must be a path"),
        ({"leads_folder": "nosuch://bucket"}, "leads_folder 'nosuch://bucket' cannot be used"),
        ({"leads_folder": "/dev/null/leads"}, "leads_folder '/dev/null/leads' cannot be used"),
    ],
)
def test_refused_by_the_task(
    arguments: dict[str, Any], message: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    people(database, 1)
    monkeypatch.setenv("AIRFLOW_CONN_MACHFIVE_DEFAULT", json.dumps({"conn_type": "machfive"}))
    monkeypatch.setenv("AIRFLOW_CONN_UNKNOWN_TYPE", json.dumps({"conn_type": "abacus"}))
    with pytest.raises(exceptions.ConfigurationError, match=message):
        Run(source(tmp_path, **arguments))()


# --- lineage


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_openlineage_hears_of_the_tables_of_the_query_and_of_the_shards(database: Database, tmp_path: Path):
    """Of the query itself nothing: it may name people."""
    people(database, 1)
    run = Run(source(tmp_path, f"SELECT email FROM people WHERE email = '{address(1)}'"))
    paths = run()
    told = run.left.get_openlineage_facets_on_complete(None)
    connection = database.connection
    host = f"postgres://{connection['host']}:{connection['port']}"
    tables = [(each.namespace, each.name) for each in told.inputs]
    assert tables == [(host, f"{connection['schema']}.public.people")]
    assert [each.name for each in told.outputs] == paths
    assert address(1) not in repr(told)

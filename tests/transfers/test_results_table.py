"""The table of results: what each database keeps of odd leads, and what a broken-off write leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event, text

from machfive_provider import exceptions
from machfive_provider.api.models import usable_emails
from machfive_provider.delivery.count import Figures
from machfive_provider.transfers.results_table import ResultsTable
from tests.tasks import Killed
from tests.transfers.conftest import ONLY_SQLITE, Database

LIST = "7f073687-c913-42ff-8267-adb23dfba4b8"
SHAPES = pytest.mark.parametrize("one_row_per", ["email", "lead"])


def email(step: Any = 1, subject: Any = "Hello", body: Any = "Dear you") -> dict[str, Any]:
    return {"step": step, "subject": subject, "body": body}


def lead(address: str, *sequence: Any, **fields: Any) -> dict[str, Any]:
    return {"email": address, **fields, "sequence": list(sequence)}


def table(database: Database, name: str = "emails", one_row_per: str = "email") -> ResultsTable:
    made = ResultsTable(database.engine, name, one_row_per)
    if not made.check(create=True):
        made.create()
    return made


def kept(database: Database, columns: str = "email, step, subject, body") -> list[tuple[Any, ...]]:
    return database.run(f"SELECT {columns} FROM emails ORDER BY email, {columns.split(', ')[1]}")


# --- what is kept


def test_texts_come_back_as_they_were_sent(database: Database):
    long = "ä🌍'\"%\\n\\\r\n" * 20_000  # 64 KB is where a TEXT of MySQL ends
    fields = {"name": "Zoë 🌍", "company": "%s & {0} :x", "title": "'; DROP TABLE emails; --"}
    table(database).write(LIST, [lead("zoë@example.com", email(1, "🌍", long), email(2, "", "b"), **fields)])
    (first, second) = kept(database, "email, step, subject, body, name, company, title")
    assert first == ("zoë@example.com", 1, "🌍", long, *fields.values())
    assert second[:4] == ("zoë@example.com", 2, "", "b")


@SHAPES
def test_characters_that_no_database_takes(one_row_per: str, database: Database):
    sent = [lead("z\0oe@example.com", email(1, "zero\0byte", "half \ud83c pair"), name="\0")]
    figures, changed = table(database, one_row_per=one_row_per).write(LIST, sent)
    assert (figures.leads, changed) == (1, 4)
    if one_row_per == "email":
        assert kept(database) == [("zoe@example.com", 1, "zerobyte", "half ? pair")]
    else:
        ((address, sequence),) = kept(database, "email, sequence")
        assert (address, json.loads(sequence)) == ("zoe@example.com", [email(1, "zerobyte", "half ? pair")])


def test_addresses_that_differ_a_little_are_different(database: Database):
    near = ["jose@example.com", "josé@example.com", "josë@example.com", "jose@example.co"]
    figures, _ = table(database).write(LIST, [lead(each, email()) for each in near])
    assert figures.leads == 4
    assert sorted(row[0] for row in kept(database)) == sorted(near)


def test_an_address_that_fits_nowhere_is_odd(database: Database):
    figures, _ = table(database).write(
        LIST, [lead("a" * 5000, email()), lead(" ", email()), lead("b@example.com", email())]
    )
    assert (figures.odd, figures.leads) == ([1, 2], 1)
    assert [row[0] for row in kept(database)] == ["b@example.com"]


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ([1, 2, 3], [1, 2, 3]),
        (["1", 2, "3"], [1, 2, 3]),
        ([0, 5], [0, 5]),
        ([1, 1, 2], [1, 2, 3]),
        ([None, 1], [1, 2]),
        ([True, 7], [1, 2]),
        ([2.0, 7], [1, 2]),
        ([-1, 2**31], [1, 2]),
        (["²", "x"], [1, 2]),
    ],
    ids=str,
)
@ONLY_SQLITE
def test_steps_are_kept_if_they_are_a_key(sent: list[Any], written: list[int], database: Database):
    table(database).write(LIST, [lead("a@example.com", *map(email, sent))])
    assert [row[1] for row in kept(database)] == written


SEQUENCES = st.lists(
    st.sampled_from([email(), email(2, "again"), email(3, None), email(4, "x", " "), None]), max_size=3
)
SENT = st.lists(st.tuples(st.sampled_from(["a@x.org", "A@x.org", "b@x.org", "c@x.org"]), SEQUENCES), max_size=12)


@settings(max_examples=150)
@given(SENT, st.sampled_from(["email", "lead"]))
def test_of_a_lead_that_comes_again_the_better_one_is_kept(sent: list[Any], one_row_per: str):
    def rank(sequence: list[Any]) -> int:
        usable = len(usable_emails(sequence))
        return 0 if not usable else 1 if usable < len(sequence) else 2

    best: dict[str, tuple[str, list[Any]]] = {}
    figures = Figures()
    for position, (address, sequence) in enumerate(sent, 1):
        figures.count_sent(position, lead(address, *sequence))
        if address.lower() not in best or rank(sequence) > rank(best[address.lower()][1]):
            best[address.lower()] = (address, sequence)
    engine = create_engine("sqlite://")
    made = ResultsTable(engine, "emails", one_row_per)
    made.create()
    written, _ = made.write(LIST, [lead(address, *sequence) for address, sequence in sent])
    assert written == figures
    with engine.connect() as connection:
        if one_row_per == "lead":
            rows = {
                row[0]: json.loads(row[1]) for row in connection.execute(text("SELECT email, sequence FROM emails"))
            }
            assert rows == dict(best.values())
        else:
            rows = {tuple(row) for row in connection.execute(text("SELECT email, subject, body FROM emails"))}
            expected = {(a, e["subject"], e["body"]) for a, sequence in best.values() for e in sequence if e}
            assert rows == expected
    engine.dispose()


# --- what must not happen


@pytest.mark.parametrize("error", [Killed, exceptions.TransportError("cut")], ids=["killed", "cut"])
def test_a_write_that_breaks_off_changes_nothing(error: Any, database: Database):
    made = table(database)
    made.write(LIST, [lead("a@example.com", email()), lead("b@example.com", email())])
    before = kept(database)

    def leads() -> Iterator[Any]:
        for number in range(1500):  # the first chunk has been sent by then
            yield lead(f"c{number}@example.com", email())
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        made.write(LIST, leads())
    assert kept(database) == before


def test_two_tasks_that_create_the_table_at_once(database: Database):
    """The other task creates it after this one has seen that there is none."""
    other = create_engine(database.url)
    mine, theirs = (ResultsTable(engine, "emails", "email") for engine in (database.engine, other))
    created = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def first(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "CREATE TABLE" in statement and not created:
            created.append(True)
            theirs.create()

    assert not mine.check(create=True)
    mine.create()
    assert created
    for list_id, made in (("1", mine), ("2", theirs)):
        made.write(list_id, [lead("a@example.com", email())])
    assert database.run("SELECT list_id FROM emails ORDER BY list_id") == [("1",), ("2",)]
    other.dispose()


@pytest.mark.parametrize(
    "name",
    ["a; DROP TABLE emails; --", 'a" (x INT); DROP TABLE emails; --', "a` (x INT); DROP TABLE emails; --", "%s :x"],
)
def test_a_name_is_a_name(name: str, database: Database):
    table(database).write(LIST, [lead("a@example.com", email())])
    table(database, name).write("other", [lead("b@example.com", email())])
    assert [row[0] for row in kept(database)] == ["a@example.com"]
    assert ResultsTable(database.engine, name, "email").check(create=False)


@pytest.mark.parametrize("name", ["none.emails", 'x" ; DROP TABLE emails; --.emails'])
def test_a_schema_is_never_created(name: str, database: Database):
    table(database)
    with pytest.raises(exceptions.MachFiveError, match=r"Creating the table .* failed in the database|Looking for"):
        table(database, name)
    assert kept(database) == []


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_table_in_a_schema(database: Database):
    database.run("CREATE SCHEMA crm")
    table(database, "crm.emails").write(LIST, [lead("a@example.com", email())])
    assert database.run("SELECT email FROM crm.emails") == [("a@example.com",)]
    with pytest.raises(exceptions.ConfigurationError, match="too long: a table's name has at most 63 bytes"):
        table(database, "x" * 64)


WRONG_SHAPES = {
    "no body": (
        "list_id VARCHAR(36), email VARCHAR(320), step INTEGER, subject TEXT",
        "has no body, name, company, title, exported_at: one row per email has the columns list_id, email, step",
    ),
    "must be filled": ("{all}, owner INTEGER NOT NULL", "must be filled and that MachFive has nothing for: owner"),
    "short key": (
        "{all}, PRIMARY KEY (list_id, email)",
        "primary key .*, email, list_id, is too short for one row per email",
    ),
}
ALL = (
    "list_id VARCHAR(36), email VARCHAR(320), step INTEGER, subject TEXT, body TEXT, name TEXT, company TEXT, "
    "title TEXT, exported_at TIMESTAMP"
)


@pytest.mark.parametrize("shape", WRONG_SHAPES)
def test_a_table_of_another_shape_is_left_alone(shape: str, database: Database):
    columns, message = WRONG_SHAPES[shape]
    database.run(f"CREATE TABLE emails ({columns.format(all=ALL)})")
    with pytest.raises(exceptions.ConfigurationError, match=message):
        table(database)


def test_a_table_of_ones_own_may_have_more_columns(database: Database):
    key = "INTEGER PRIMARY KEY" if database.kind == "sqlite" else "SERIAL PRIMARY KEY"
    database.run(f"CREATE TABLE emails (id {key}, {ALL}, sent BOOLEAN, state VARCHAR(9) DEFAULT 'new' NOT NULL)")
    table(database).write(LIST, [lead("a@example.com", email())])
    assert database.run("SELECT email, sent, state FROM emails") == [("a@example.com", None, "new")]


@pytest.mark.parametrize("database", ["postgres", "mariadb"], indirect=True)
def test_what_the_database_refuses_is_told_without_the_lead(database: Database):
    database.run(f"CREATE TABLE emails ({ALL.replace('name TEXT', 'name INTEGER')})")
    with pytest.raises(
        exceptions.ConfigurationError, match=r"Writing to the table 'emails' failed in the database"
    ) as caught:
        table(database).write(LIST, [lead("dana@example.com", email(), name="Dana Reyes")])
    assert "ana" not in str(caught.value).replace("'emails'", "")
    assert caught.value.__suppress_context__

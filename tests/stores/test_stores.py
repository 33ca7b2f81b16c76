"""Everything that operators read from an object store or write there, on S3, Google Cloud Storage and Azure."""

from __future__ import annotations

import csv
import gc
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from fsspec.spec import AbstractBufferedFile

from machfive_provider import exceptions
from machfive_provider.delivery.destination import Destination
from machfive_provider.delivery.written import find_results
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.transfers.sql_to_leads import SqlToMachFiveLeadsOperator
from tests.clock import Clock
from tests.stores.conftest import Store, child_environment
from tests.tasks import LEADS, Run, batch

# Of aiohttp, about the parts that gcsfs and adlfs send.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
MIB = 2**20
LARGE = 20  # MiB: several parts of an upload
ADDRESSES = [lead["email"] for lead in LEADS]
FORMS = pytest.mark.parametrize("form", ["jsonl", "csv", "json", "parquet"])


@pytest.fixture
def sandbox(sandbox: Sandbox, connect: Callable[..., None]) -> Sandbox:
    connect(sandbox)
    return sandbox


def sent(sandbox: Sandbox) -> list[list[str]]:
    return [[lead["email"] for lead in each.json["leads"]] for each in sandbox.requests_to("generate-batch")]


def export(store: Store, list_id: str, name: str, **arguments: Any) -> Run:
    return Run(MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=store.url(name), **arguments))


def as_csv() -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["email", "name", "title", "company"])
    writer.writeheader()
    writer.writerows(LEADS)
    return text.getvalue()


def addresses(form: str, data: bytes) -> list[str]:
    """Return who is in a result, each once."""
    if form == "parquet":
        from pyarrow.parquet import read_table

        rows: Any = read_table(io.BytesIO(data)).to_pylist()
    elif form == "csv":
        rows = csv.DictReader(io.StringIO(data.decode()))
    else:
        rows = json.loads(data)["leads"] if form == "json" else map(json.loads, data.splitlines())
    return list(dict.fromkeys(row["email"] for row in rows))


# --- leads in, results out


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_leads_and_opt_outs_come_from_the_store_and_results_go_there(store: Store, sandbox: Sandbox, form: str):
    """A daily job: only who is new, and never who has opted out."""
    text = as_csv() if form == "csv" else "\n".join(map(json.dumps, LEADS))
    arguments = {
        "leads_path": store.put(f"leads.{form}", text),
        "suppress": store.put("opt-outs.csv", f"email\n{ADDRESSES[0].upper()}\n"),
        "skip_already_written": store.url("emails/*.jsonl"),
    }
    store.put("emails/day-1.jsonl", json.dumps({"email": ADDRESSES[1], "sequence": [{"subject": "a", "body": "b"}]}))
    Run(batch(sandbox, **arguments, export_to=store.url("emails/day-2.jsonl")))()
    assert sent(sandbox) == [ADDRESSES[2:]]
    assert addresses("jsonl", store.read("emails/day-2.jsonl")) == ADDRESSES[2:]
    with pytest.raises(AirflowSkipException):
        Run(batch(sandbox, **arguments, export_to=store.url("emails/day-3.jsonl")), run_id="manual__3")()
    assert len(sent(sandbox)) == 1
    assert store.names() == sorted([f"leads.{form}", "opt-outs.csv", "emails/day-1.jsonl", "emails/day-2.jsonl"])


def test_a_store_is_reached_without_a_connection(store: Store, sandbox: Sandbox):
    """By what its client library finds in the environment of the worker."""
    store.put("leads.csv", as_csv())
    store.put("emails/1.csv", f"email,subject\n{ADDRESSES[0]},a\n")
    store.put("emails/2.csv", f"email,subject\n{ADDRESSES[1]},a\n")
    folder = store.without_connection
    arguments = {"leads_path": f"{folder}/leads.csv", "skip_already_written": f"{folder}/emails/*.csv"}
    Run(batch(sandbox, **arguments, export_to=f"{folder}/emails/3.csv"))()
    assert sent(sandbox) == [ADDRESSES[2:]]
    assert addresses("csv", store.read("emails/3.csv")) == ADDRESSES[2:]
    with pytest.raises(AirflowSkipException):
        Run(batch(sandbox, **arguments, export_to=f"{folder}/emails/4.csv"), run_id="manual__2")()


@FORMS
def test_each_format_is_written_and_read_back(store: Store, sandbox: Sandbox, form: str):
    sandbox.fault("lose_leads")
    path = store.url(f"out.{form}")
    run = Run(batch(sandbox, export_to=path, on_missing_leads="warn"))
    run()
    assert addresses(form, store.read(f"out.{form}")) == ADDRESSES[:2]
    beside = f"out.{form}.missing.csv"
    assert run.xcoms["machfive_export"]["missing_path"] == store.url(beside)
    assert store.names() == [f"out.{form}", beside]
    # Who is in the result is not bought again, who is missing can be.
    rest = batch(sandbox, leads_path=store.url(beside), skip_already_written=store.url(f"*.{form}"))
    Run(rest, run_id="manual__2")()
    assert sent(sandbox)[1:] == [ADDRESSES[2:]]
    with pytest.raises(AirflowSkipException):
        Run(batch(sandbox, leads=list(LEADS[:2]), skip_already_written=path), run_id="manual__3")()
    # A list without missing leads takes the file of an earlier one away.
    Run(batch(sandbox, export_to=path), run_id="manual__4")()
    assert store.names() == [f"out.{form}"]


def test_a_result_that_is_there_is_kept(store: Store, sandbox: Sandbox):
    list_id = Run(batch(sandbox))()
    export(store, list_id, "out.csv", overwrite=False)()
    export(store, list_id, "out.csv", overwrite=False)()  # the very same bytes
    store.put("out.csv", b"precious")
    with pytest.raises(exceptions.ConfigurationError, match="exists with other content"):
        export(store, list_id, "out.csv", overwrite=False)()
    with pytest.raises(exceptions.ConfigurationError, match="nothing was bought or fetched"):
        Run(batch(sandbox, export_to=store.url("out.csv"), overwrite=False), run_id="manual__2")()
    assert (store.read("out.csv"), len(sent(sandbox))) == (b"precious", 1)
    export(store, list_id, "out.csv")()
    assert addresses("csv", store.read("out.csv")) == ADDRESSES


def test_what_others_have_written_meanwhile_is_seen(store: Store, sandbox: Sandbox):
    """File systems keep listings, and a task may wait for hours between looking and writing."""

    def listed(*names: str) -> bool:
        return find_results(store.url("*.csv")) == [store.url(name) for name in names]

    store.put("1.csv", b"email\n")
    assert listed("1.csv")
    destination = Destination(store.url("2.csv"), overwrite=False)
    store.put("2.csv", b"theirs")
    with pytest.raises(exceptions.ConfigurationError, match="exists with other content"), destination.open() as writer:
        writer.write(b"ours")
    assert store.read("2.csv") == b"theirs"
    assert listed("1.csv", "2.csv")
    store.put("3.csv", as_csv())
    assert listed("1.csv", "2.csv", "3.csv")
    store.put("4.csv", as_csv())
    store.put("1.csv", f"{ADDRESSES[0]}\n{ADDRESSES[1]}\n")
    Run(batch(sandbox, leads_path=store.url("4.csv"), suppress=store.url("1.csv")))()
    assert sent(sandbox) == [ADDRESSES[2:]]


def test_a_folder_is_no_file(store: Store, sandbox: Sandbox):
    store.put("emails/1.csv", b"email\n")
    with pytest.raises(exceptions.ConfigurationError, match="is a folder"):
        Run(batch(sandbox, export_to=store.url("emails"), export_format="csv"))()
    assert sent(sandbox) == []


def test_what_cannot_be_read_stops_the_task(store: Store, sandbox: Sandbox):
    with pytest.raises(exceptions.InvalidLeadsError, match=r"leads\.csv' cannot be read"):
        Run(batch(sandbox, leads_path=store.url("leads.csv")))()
    with pytest.raises(exceptions.InvalidLeadsError, match=r"opt-outs\.csv' cannot be read"):
        Run(batch(sandbox, suppress=store.url("opt-outs.csv")))()
    assert sent(sandbox) == []


# --- whole or not at all


def contents(size: int) -> Iterator[bytes]:
    """Yield so many different MiB, and a rest."""
    yield from (bytes([number]) * MIB for number in range(size))
    yield b"rest"


def test_a_large_result_arrives_in_parts(store: Store):
    with Destination(store.url("large.csv")).open() as writer:
        for chunk in contents(LARGE):
            writer.write(chunk)
        assert store.read("large.csv") is None
        assert store.open_uploads() in (1, None)
    assert store.read("large.csv") == b"".join(contents(LARGE))
    assert store.open_uploads() in (0, None)


def break_off(store: Store, name: str, size: int, error: type[BaseException]) -> None:
    with Destination(store.url(name)).open() as writer:
        for chunk in contents(size):
            writer.write(chunk)
        raise error


@pytest.mark.parametrize("before", [None, b"before"], ids=["new", "existing"])
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_aborted_write_leaves_what_there_was(
    store: Store, before: bytes | None, size: int, error: type[BaseException]
):
    if before:
        store.put("out.csv", before)
    with pytest.raises(error):
        break_off(store, "out.csv", size, error)
    close_forgotten_files()
    assert store.read("out.csv") == before
    assert store.open_uploads() in (0, None)
    with Destination(store.url("out.csv")).open() as writer:
        writer.write(b"whole")
    assert store.read("out.csv") == b"whole"


def close_forgotten_files() -> None:
    """Close them as the end of a process does, which would commit them or wait for ever."""

    for left in [each for each in gc.get_objects() if isinstance(each, AbstractBufferedFile)]:
        left.close()


def test_an_export_that_breaks_off_leaves_what_there_was(store: Store, sandbox: Sandbox):
    list_id = Run(batch(sandbox))()
    store.put("out.json", b"before")
    body = '{"leads": [{"email": "dana.reyes@example.com"},'
    sandbox.fault("status", endpoint="export", status=200, body=body, content_type="application/json")
    with pytest.raises(exceptions.ProtocolError):
        export(store, list_id, "out.json")()
    assert (store.names(), store.read("out.json")) == (["out.json"], b"before")


KILLED = """
import sys
from machfive_provider.delivery.destination import Destination
with Destination(sys.argv[1]).open() as new, Destination(sys.argv[2]).open() as existing:
    for writer in (new, existing):
        for _ in range(int(sys.argv[3])):
            writer.write(b"x" * 2**20)
    print("written", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_leaves_what_there_was(store: Store):
    store.put("existing.csv", b"before")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        KILLED,
        store.url("new.csv"),
        store.url("existing.csv"),
        str(LARGE),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
    )
    try:
        assert any("written" in line for line in process.stdout)
        assert store.open_uploads() in (2, None)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -9
    assert (store.names(), store.read("existing.csv")) == (["existing.csv"], b"before")
    for name in ("new.csv", "existing.csv"):
        with Destination(store.url(name)).open() as writer:
            writer.write(b"whole")
        assert store.read(name) == b"whole"


# --- shards of a query


def test_shards_are_kept_in_the_store(
    store: Store, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    database = tmp_path / "people.db"
    connection = {"conn_type": "sqlite", "host": str(database)}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    with sqlite3.connect(database) as people:
        people.execute("CREATE TABLE people (email TEXT)")
        people.executemany("INSERT INTO people VALUES (?)", [(each,) for each in ADDRESSES])
    people.close()

    def shards(run_id: str) -> list[str]:
        operator = SqlToMachFiveLeadsOperator(
            task_id="people",
            sql="SELECT email FROM people ORDER BY email",
            sql_conn_id="warehouse",
            leads_folder=store.url("leads"),
            batch_size=2,
            keep_for=timedelta(days=2),
        )
        return Run(operator, run_id=run_id)()

    def runs() -> set[str]:
        return {name.split("/")[3] for name in store.names()}

    paths = shards("manual__2026-11-26T09:00:00+00:00")
    assert [path.rpartition("/")[2] for path in paths] == ["leads-00001.jsonl", "leads-00002.jsonl"]
    assert all(path.startswith(store.url("leads/crm/people/")) for path in paths)
    for number, path in enumerate(paths):
        Run(batch(sandbox, leads_path=path), map_index=number)()
    assert sent(sandbox) == [ADDRESSES[:2], ADDRESSES[2:]]
    with sqlite3.connect(database) as people:
        people.execute("DELETE FROM people")
    people.close()
    assert shards("manual__2026-11-26T09:00:00+00:00") == paths, "a retry reads the same people"
    clock.ahead += 86400
    shards("second")
    assert len(runs()) == 2
    clock.ahead += 86401
    shards("third")
    assert runs() == {"second", "third"}

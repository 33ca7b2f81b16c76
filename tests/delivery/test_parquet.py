"""Parquet: a row an email under a schema that no odd value breaks, in row groups of bounded size."""

from __future__ import annotations

import io
import json
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from pyarrow import parquet

from machfive_provider.api.models import LeadList
from machfive_provider.delivery.destination import Destination, Writer
from machfive_provider.delivery.export import write_export
from machfive_provider.delivery.parquet import write_parquet
from machfive_provider.delivery.shapes import EmailRow, email_rows
from machfive_provider.exceptions import ConfigurationError, TransportError
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.sandbox import Sandbox
from tests.delivery.test_export import Api
from tests.delivery.test_shapes import odd_leads
from tests.tasks import LEADS, Run, batch, task_context

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
SCHEMA = pyarrow.schema(
    {
        "list_id": pyarrow.string(),
        "position": pyarrow.int64(),
        "email": pyarrow.string(),
        "name": pyarrow.string(),
        "company": pyarrow.string(),
        "title": pyarrow.string(),
        "step": pyarrow.int32(),
        "subject": pyarrow.string(),
        "body": pyarrow.string(),
        "other": pyarrow.string(),
    }
)


def written(leads: Any) -> parquet.ParquetFile:
    parts: list[bytes] = []
    write_parquet(email_rows("l1", leads), Writer(parts.append))
    return parquet.ParquetFile(io.BytesIO(b"".join(parts)))


def row(position: int, **cells: Any) -> dict[str, Any]:
    """Return a row as pyarrow reads it: None, but for these cells; ``other`` as an object."""
    other = cells.pop("other", None)
    text = json.dumps(other, separators=(",", ":")) if other else None
    return {**dict.fromkeys(SCHEMA.names), "list_id": "l1", "position": position, "other": text, **cells}


ODD: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "right": (
        {
            "email": "Zoë@example.com",
            "name": "Zoë 🦆",
            "sequence": [{"step": 1, "subject": "S", "body": "B\r\n\0"}, {"step": 2, "subject": "", "body": "C"}],
        },
        [
            {"email": "Zoë@example.com", "name": "Zoë 🦆", "step": 1, "subject": "S", "body": "B\r\n\0"},
            {"email": "Zoë@example.com", "name": "Zoë 🦆", "step": 2, "subject": "", "body": "C"},
        ],
    ),
    "more fields": (
        {"email": "a@x.io", "score": 1.5, "sequence": [{"step": 3, "subject": "S", "body": "B", "cta": "Demo"}]},
        [
            {
                "email": "a@x.io",
                "step": 3,
                "subject": "S",
                "body": "B",
                "other": {"lead": {"score": 1.5}, "email": {"cta": "Demo"}},
            }
        ],
    ),
    "steps that are none": (
        {"email": "a@x.io", "sequence": [{"step": step} for step in ("7", "x", None, True, 2**31, -1, 1.5)]},
        [{"email": "a@x.io", "step": step} for step in (7, 2, 3, 4, 5, 6, 7)],
    ),
    "an email that is null": (
        {"email": "a@x.io", "sequence": [None, {"step": 2, "subject": None, "body": "B"}]},
        [{"email": "a@x.io", "step": 1}, {"email": "a@x.io", "step": 2, "body": "B"}],
    ),
    "an email that is a text": (
        {"email": "a@x.io", "sequence": ["Hi"]},
        [{"email": "a@x.io", "step": 1, "other": {"email": "Hi"}}],
    ),
    "texts that are none": (
        {"email": {"a": 1}, "company": 7, "sequence": [{"step": 1, "subject": ["S"], "body": False}]},
        [
            {
                "step": 1,
                "other": {"lead": {"email": {"a": 1}, "company": 7}, "email": {"subject": ["S"], "body": False}},
            }
        ],
    ),
    "no sequence": ({"email": "a@x.io", "title": None}, [{"email": "a@x.io"}]),
    "no emails": ({"email": "a@x.io", "sequence": []}, [{"email": "a@x.io"}]),
    "a sequence that is none": (
        {"email": "a@x.io", "sequence": {"step": 1}},
        [{"email": "a@x.io", "other": {"lead": {"sequence": {"step": 1}}}}],
    ),
    "a lead that is a text": ("a@x.io", [{"other": {"lead": "a@x.io"}}]),
    "a lead that is null": (None, [{}]),
}


def test_each_lead_whatever_was_sent_has_its_rows():
    """No odd lead keeps another from being written, and what has no column of its own is in ``other``."""
    file = written([sent for sent, _ in ODD.values()])
    assert file.schema_arrow == SCHEMA
    rows = file.read().to_pylist()
    for position, (case, (_, expected)) in enumerate(ODD.items(), 1):
        found = [each for each in rows if each["position"] == position]
        assert found == [row(position, **cells) for cells in expected], case


@given(odd_leads)
def test_any_leads_are_a_file_of_the_same_schema(sent: list[Any]):
    file = written(sent)
    assert file.schema_arrow == SCHEMA
    sequences = [lead.get("sequence") if isinstance(lead, dict) else None for lead in sent]
    counts = [len(each) if isinstance(each, list) and each else 1 for each in sequences]
    positions = [position for position, count in enumerate(counts, 1) for _ in range(count)]
    assert file.read().column("position").to_pylist() == positions


def test_half_a_surrogate_pair_is_written_as_json_has_it():
    (found,) = written([{"email": "a@x.io", "sequence": [{"subject": "\ud83d", "cta": "\udc80"}]}]).read().to_pylist()
    assert (found["subject"], found["other"]) == ("\\ud83d", '{"email":{"cta":"\\udc80"}}')


def test_an_export_is_never_held_whole():
    """Memory is that of a row group: of 48 MiB of leads no more than a third is there at any time."""
    words, bound = random.Random(0), 16 * 1024 * 1024
    held: list[int] = []

    def leads() -> Iterator[dict[str, Any]]:
        for number in range(48):
            body = words.randbytes(512 * 1024).hex()
            held.append(tracemalloc.get_traced_memory()[0] + pyarrow.total_allocated_bytes() - before)
            yield {"email": f"l{number}@example.com", "sequence": [{"step": 1, "subject": "S", "body": body}]}

    with Path("/dev/null").open("wb") as nowhere:
        writer = Writer(nowhere.write)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0] + pyarrow.total_allocated_bytes()
            write_parquet(email_rows("l1", leads()), writer)
            held.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert writer.written > bound
    assert max(held) < bound


def test_row_groups_end_by_their_text_and_by_their_rows():
    long = {"email": "a@x.io", "sequence": [{"subject": "S", "body": "x" * 1024 * 1024}]}
    about = written([long] * 20).metadata
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    assert [group.num_rows for group in groups] == [4, 4, 4, 4, 4]
    assert written([None] * 100_000).metadata.num_row_groups > 1


def export(path: Path, *chunks: bytes | Exception, **options: Any) -> Any:
    api = Api(json=list(chunks))
    return write_export(api, LeadList("l1", "completed"), Destination(str(path), **options), "parquet")


def as_json(*emails: str) -> bytes:
    sequence = [{"step": 1, "subject": "S", "body": "B"}]
    return json.dumps({"leads": [{"email": email, "sequence": sequence} for email in emails]}).encode()


def test_an_existing_file_is_compared(tmp_path: Path):
    path, content = tmp_path / "out.parquet", as_json("a@x.io", "b@x.io")
    export(path, content)
    before = path.read_bytes()
    assert export(path, content, overwrite=False).bytes == len(before)
    with pytest.raises(ConfigurationError, match="exists with other content"):
        export(path, as_json("a@x.io"), overwrite=False)
    # The ending that pyarrow then writes is not compared.
    with pytest.raises(TransportError):
        export(path, content[:60], TransportError("reset"), overwrite=False)
    assert path.read_bytes() == before


def test_a_list_without_leads_has_a_schema(tmp_path: Path):
    path = tmp_path / "out.parquet"
    figures = export(path, b'{"leads": []}')
    assert (figures.leads, figures.bytes) == (0, path.stat().st_size)
    table = parquet.read_table(path)
    assert (table.num_rows, table.schema) == (0, SCHEMA)


@MODES
def test_a_batch_is_written_as_parquet(deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path):
    """An odd lead is counted as in any format, and the file holds what was sent of it."""
    connect(sandbox)
    sandbox.fault("odd_leads", oddity="null_subject")
    target, again = tmp_path / "emails.parquet", tmp_path / "again.parquet"
    run = Run(batch(sandbox, export_to=str(target), email_count=2, deferrable=deferrable))
    list_id = run()
    told = run.xcoms["machfive_export"]
    assert [told[name] for name in ("leads", "emails", "missing", "short", "odd")] == [3, 5, 0, 1, 0]
    assert told["bytes"] == target.stat().st_size
    with MachFiveHook() as hook:
        served = json.loads(b"".join(hook.stream_export(list_id, "json")))["leads"]
        assert hook.export_list(list_id, again).leads == 3
    nobody = dict.fromkeys(("name", "company", "title"))
    assert parquet.read_table(target).to_pylist() == [
        {"list_id": list_id, "position": position, "other": None, **nobody}
        | {name: value for name, value in {**lead, **email}.items() if name != "sequence"}
        for position, lead in enumerate(served, 1)
        for email in lead["sequence"]
    ]
    assert again.read_bytes() == target.read_bytes()


def test_without_pyarrow_nothing_is_bought_or_fetched(
    sandbox: Sandbox, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A DAG that is only parsed needs no pyarrow."""
    connect(sandbox)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    path = tmp_path / "out.parquet"
    list_id = "00000000-0000-4000-8000-000000000000"
    buys = batch(sandbox, export_to=str(path), leads=list(LEADS))
    exports = MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=str(path))
    needs = r"pyarrow.*Install 'airflow-provider-machfive\[parquet\]'"
    for task in (buys, exports):
        with pytest.raises(ConfigurationError, match=needs):
            task.execute(task_context(task))
    with MachFiveHook() as hook, pytest.raises(ConfigurationError, match=needs):
        hook.export_list(list_id, path)
    assert sandbox.requests == []
    assert list(tmp_path.iterdir()) == []
    Run(batch(sandbox, export_to=str(tmp_path / "out.csv")))()


def test_the_columns_are_those_of_a_row():
    assert tuple(SCHEMA.names) == EmailRow._fields

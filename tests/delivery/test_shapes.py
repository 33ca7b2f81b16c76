"""Rows that are made from leads: flat ones, as sending tools import them, and cells that no spreadsheet calculates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api.models import LeadList
from machfive_provider.delivery.destination import Destination, Writer
from machfive_provider.delivery.export import write_export
from machfive_provider.delivery.shapes import flat, write_flat_csv
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.sandbox import Sandbox
from tests.delivery.test_export import Api
from tests.tasks import LEADS, Run, batch, task_context

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
FORMULAS = ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1")

SENT: list[Any] = [
    {"email": "zoë@example.com", "sequence": [{"step": 1, "subject": "One", "body": 'Hi "Zoë",\r\n\nüni\u2028'}]},
    {
        "email": "bob@example.com",
        "title": None,
        "company": "B, Inc.",
        "score": 1.5,
        "tags": ["a", "b"],
        "sequence": [{"subject": "One", "body": "Hi"}, None, {"subject": None, "body": "Three"}, "Four"],
    },
    {"email": None, "name": 7, "sequence": "none"},
    {"email": "eve@example.com", "score": True, "body_1": "mine", "sequence": None},
    "ann@example.com",
]


def export(tmp_path: Path, form: str, leads: Any, **options: Any) -> str:
    path = tmp_path / "out"
    if isinstance(leads, bytes):
        api = Api(csv=leads, json=b'{"leads": []}')
    else:
        api = Api(json=json.dumps({"leads": leads}).encode())
    figures = write_export(api, LeadList("l1", "completed", emails_created=1), Destination(str(path)), form, **options)
    assert figures.bytes == path.stat().st_size
    return path.read_bytes().decode("utf-8", "surrogateescape")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_flat_csv_is_one_row_a_lead(tmp_path: Path):
    """Also of odd leads: what is no text is JSON, and nothing that was paid for is left out."""
    rows = rows_of(export(tmp_path, "csv", SENT, shape="flat"))
    fields = ["email", "name", "company", "title", "score", "tags", "sequence", "lead"]
    assert list(rows[0]) == [*fields, *(f"{text}_{number}" for number in (1, 2, 3, 4) for text in ("subject", "body"))]
    assert [{name: cell for name, cell in row.items() if cell} for row in rows] == [
        {"email": "zoë@example.com", "subject_1": "One", "body_1": 'Hi "Zoë",\r\n\nüni\u2028'},
        {
            "email": "bob@example.com",
            "company": "B, Inc.",
            "score": "1.5",
            "tags": '["a","b"]',
            "subject_1": "One",
            "body_1": "Hi",
            "body_3": "Three",
            "body_4": "Four",
        },
        {"name": "7", "sequence": "none"},
        {"email": "eve@example.com", "score": "true", "body_1": "mine"},
        {"lead": "ann@example.com"},
    ]


def test_flat_jsonl_keeps_values_as_they_were_sent(tmp_path: Path):
    *lines, after = export(tmp_path, "jsonl", SENT, shape="flat").split("\n")
    assert after == ""
    assert list(map(json.loads, lines)) == [
        {"email": "zoë@example.com", "subject_1": "One", "body_1": 'Hi "Zoë",\r\n\nüni\u2028'},
        {
            "email": "bob@example.com",
            "title": None,
            "company": "B, Inc.",
            "score": 1.5,
            "tags": ["a", "b"],
            "subject_1": "One",
            "body_1": "Hi",
            "subject_2": None,
            "body_2": None,
            "subject_3": None,
            "body_3": "Three",
            "subject_4": None,
            "body_4": "Four",
        },
        {"email": None, "name": 7, "sequence": "none"},
        {"email": "eve@example.com", "score": True, "body_1": "mine"},
        {"lead": "ann@example.com"},
    ]


def test_a_list_without_leads_has_a_header(tmp_path: Path):
    assert export(tmp_path, "csv", [], shape="flat") == "email,name,company,title\r\n"
    assert export(tmp_path, "jsonl", [], shape="flat") == ""


@pytest.mark.parametrize("shape", ["api", "flat"])
def test_cells_that_a_spreadsheet_would_calculate_get_an_apostrophe(tmp_path: Path, shape: str):
    sent: list[Any] = [{"email": "a@x.io", "=name": formula, "sequence": []} for formula in (*FORMULAS, "a=1")]
    as_rows = "email,=name\r\n" + "".join(f'a@x.io,"{formula}"\r\n' for formula in (*FORMULAS, "a=1"))
    content = as_rows.encode() if shape == "api" else sent
    plain = rows_of(export(tmp_path, "csv", content, shape=shape))
    escaped = rows_of(export(tmp_path, "csv", content, shape=shape, escape_formulas=True))
    assert [row["=name"] for row in plain] == [*FORMULAS, "a=1"]
    assert [row["'=name"] for row in escaped] == [*(f"'{formula}" for formula in FORMULAS), "a=1"]


def test_all_else_in_an_escaped_csv_of_the_api_stays_as_it_was_sent(tmp_path: Path):
    """Its mark at the beginning, blank lines, short rows, and bytes that are no UTF-8."""
    sent = b'\xef\xbb\xbf"email","body, 1"\r\n\r\n=a@x.io,"Hi ""you"",\r\n\nbye"\r\nb@x.io\r\n\xff\x80,\xe2\x82\xac\r\n'
    expected = sent.replace(b'"email"', b"email").replace(b"=a@", b"'=a@")
    for size in (1, 2, 7, 999):
        chunks = [sent[start : start + size] for start in range(0, len(sent), size)]
        api, path = Api(csv=chunks, json=b'{"leads": []}'), tmp_path / "out.csv"
        lead_list = LeadList("l1", "completed", emails_created=3)
        figures = write_export(api, lead_list, Destination(str(path)), "csv", escape_formulas=True)
        assert path.read_bytes() == expected
        assert (figures.bytes, len(figures.delivered), figures.odd) == (len(expected), 3, [])
    assert export(tmp_path, "csv", sent) == sent.decode("utf-8", "surrogateescape")
    assert export(tmp_path, "csv", b"", escape_formulas=True) == ""


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
emails = st.fixed_dictionaries({}, optional={"step": values, "subject": values, "body": values, "cta": values})
odd_leads = st.lists(
    values
    | st.fixed_dictionaries(
        {}, optional={"email": values, "name": values, "sequence": values | st.lists(emails | values, max_size=3)}
    ),
    max_size=4,
)


@given(odd_leads, st.booleans())
def test_any_leads_are_written_a_row_each(sent: list[Any], escape_formulas: bool):
    """No column is there twice, and every text of the flat objects comes back as it was sent."""
    parts: list[bytes] = []
    write_flat_csv(sent, Writer(parts.append), escape_formulas=escape_formulas)
    header, *_ = csv.reader(io.StringIO(b"".join(parts).decode(), newline=""))
    assert len(header) == len(set(header))
    rows = rows_of(b"".join(parts).decode())
    assert len(rows) == len(sent)
    if escape_formulas:
        return
    for row, lead in zip(rows, map(flat, sent), strict=True):
        assert {name: row[name] for name, value in lead.items() if isinstance(value, str)} == {
            name: value for name, value in lead.items() if isinstance(value, str)
        }
        assert {name for name, cell in row.items() if cell} <= set(lead)


@MODES
def test_a_batch_is_written_flat(deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    target, again = tmp_path / "emails.csv", tmp_path / "emails.jsonl"
    run = Run(batch(sandbox, export_to=str(target), export_shape="flat", email_count=2, deferrable=deferrable))
    list_id = run()
    # The sandbox's own csv happens to look the same.
    assert [request.query for request in sandbox.requests_to("export")] == [{"format": "json"}]
    assert {name: run.xcoms["machfive_export"][name] for name in ("leads", "emails", "missing", "short")} == {
        "leads": 3,
        "emails": 6,
        "missing": 0,
        "short": 0,
    }
    Run(
        MachFiveExportListOperator(
            task_id="again", list_id=list_id, export_to=str(again), export_shape="flat", deferrable=deferrable
        )
    )()
    with MachFiveHook() as hook:
        served = json.loads(b"".join(hook.stream_export(list_id, "json")))["leads"]
    rows = rows_of(target.read_bytes().decode())
    assert [row["email"] for row in rows] == [lead["email"] for lead in LEADS]
    assert rows == [
        dict.fromkeys(("email", "name", "company", "title"), "")
        | {name: value for name, value in lead.items() if name != "sequence"}
        | {f"{text}_{each['step']}": each[text] for each in lead["sequence"] for text in ("subject", "body")}
        for lead in served
    ]
    assert [json.loads(line) for line in again.read_text().splitlines()] == [
        {name: cell for name, cell in row.items() if cell} for row in rows
    ]


def test_a_batch_escapes_formulas(sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    leads = [{**LEADS[0], "name": "=HYPERLINK(1)"}]
    for number, shape in enumerate(("api", "flat")):
        how = {"export_shape": shape, "escape_formulas": True}
        first, again = tmp_path / f"first-{shape}.csv", tmp_path / f"again-{shape}.csv"
        list_id = Run(batch(sandbox, leads=leads, export_to=str(first), **how), run_id=f"manual__{number}")()
        Run(MachFiveExportListOperator(task_id="again", list_id=list_id, export_to=str(again), **how))()
        for target in (first, again):
            assert [row["name"] for row in rows_of(target.read_bytes().decode())] == ["'=HYPERLINK(1)"]


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("json", {"export_shape": "flat"}, "export_shape 'flat' is one row a lead in csv or jsonl"),
        ("parquet", {"export_shape": "flat"}, "the export is written as parquet"),
        ("jsonl", {"escape_formulas": True}, "escape_formulas is about cells of a csv"),
    ],
)
def test_what_a_template_turns_out_to_be_is_refused_before_anything_is_sent(
    kind: str, options: dict[str, Any], says: str, sandbox: Sandbox, connect: Connect, tmp_path: Path
):
    connect(sandbox)
    operator = batch(sandbox, export_to="{{ params.path }}", **options)
    operator.export_to = str(tmp_path / f"out.{kind}")
    with pytest.raises(ConfigurationError, match=says):
        operator.execute(task_context(operator))
    assert sandbox.requests == []

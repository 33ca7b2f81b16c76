"""The exports of several lists become one result."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from machfive_provider.delivery.destination import Destination
from machfive_provider.delivery.merge import merge_missing, merge_results, part_format
from machfive_provider.exceptions import ConfigurationError

ANN = {"email": "ann@example.com", "name": "Ann", "sequence": [{"step": 1, "subject": "=1+1", "body": "One\nTwo"}]}
BOB = {"email": "Bob@Example.org", "name": "Zoë 🌍", "sequence": [{"subject": "", "body": "Hi"}, {"body": "\ud800"}]}
ODD = ["no", {"lead": None}]
OTHERS = [[ANN], [], [BOB, ODD]]


def parts(folder: Path, *contents: str) -> list[tuple[str, str]]:
    made = []
    for number, content in enumerate(contents):
        path = folder / f"part-{number}"
        path.write_text(content, encoding="utf-8", newline="")
        made.append((f"list-{number}", str(path)))
    return made


def lines(leads: list[Any]) -> str:
    return "".join(f"{json.dumps(lead)}\n" for lead in leads)


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


@pytest.mark.parametrize(
    ("form", "shape"),
    [("json", "api"), ("jsonl", "api"), ("csv", "api"), ("parquet", "api"), ("jsonl", "flat"), ("csv", "flat")],
)
def test_each_format_has_every_lead_once_and_in_order(form: str, shape: str, tmp_path: Path):
    result = tmp_path / f"all.{form}"
    if part_format(form, shape) == "csv":
        pieces = ["email,subject_1\nann@example.com,=1+1\n", "email,subject_1\n", "email,subject_1\nBob@Example.org,\n"]
    else:
        pieces = list(map(lines, OTHERS))
    assert merge_results(parts(tmp_path, *pieces), Destination(str(result)), form, shape=shape) == 0
    leads = [ANN, BOB, ODD]
    if (form, shape) == ("json", "api"):
        assert json.loads(result.read_text()) == {"leads": leads}
    elif (form, shape) == ("jsonl", "api"):
        assert [json.loads(line) for line in result.read_text().splitlines()] == leads
    elif form == "jsonl":
        flat = [json.loads(line) for line in result.read_text().splitlines()]
        assert [each.get("body_1") for each in flat] == ["One\nTwo", "Hi", None]
    elif form == "csv":
        found = [row[0] for row in rows(result)]
        assert found == ["email", "ann@example.com", "Bob@Example.org", *([""] if shape == "flat" else [])]
        assert ("subject_2" in rows(result)[0]) == (shape == "flat")
    else:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(result).to_pylist()
        found = [(each["list_id"], each["position"], each["email"]) for each in table]
        assert found == [
            ("list-0", 1, "ann@example.com"),
            ("list-2", 1, "Bob@Example.org"),
            ("list-2", 1, "Bob@Example.org"),
            ("list-2", 2, None),
        ]


def test_tables_with_other_columns_keep_all_of_them(tmp_path: Path):
    result = tmp_path / "all.csv"
    pieces = [
        '\ufeff"email",note,note\r\nann@example.com,"a\nb",c\r\n',
        "",
        "subject_2,email\n\n-5,bob@example.org,beyond\n",
    ]
    merge_results(parts(tmp_path, *pieces), Destination(str(result)), "csv", escape_formulas=True)
    assert result.read_bytes().startswith(b"\xef\xbb\xbf")
    assert rows(result) == [
        ["email", "note", "note", "subject_2"],
        ["ann@example.com", "a\nb", "c", ""],
        ["bob@example.org", "", "", "'-5", "beyond"],
    ]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_who_has_opted_out_since_is_left_out(form: str, tmp_path: Path):
    result = tmp_path / f"all.{form}"
    piece = "email,site\nann@example.com,x\nbob@example.org,ann.example\n" if form == "csv" else lines([ANN, BOB])
    left_out = merge_results(
        parts(tmp_path, piece, piece),
        Destination(str(result)),
        form,
        is_suppressed=lambda address: address in ("ann@example.com", "ann.example"),
    )
    assert left_out == 1
    assert "ann@" not in result.read_text()
    assert result.read_text().casefold().count("bob@example.org") == 2


@pytest.mark.parametrize("part", ["gone", "broken"])
def test_a_part_that_cannot_be_read_leaves_the_result_as_it_was(part: str, tmp_path: Path):
    result = tmp_path / "all.jsonl"
    result.write_text("before")
    found = parts(tmp_path, lines([ANN]), '{"half')
    if part == "gone":
        Path(found[1][1]).unlink()
    with pytest.raises(ConfigurationError, match="part-1', the export of one of the lists, cannot be read"):
        merge_results(found, Destination(str(result)), "jsonl")
    assert result.read_text() == "before"
    assert {each.name for each in tmp_path.iterdir()} <= {"all.jsonl", "part-0", "part-1"}


def test_missing_leads_are_merged_beside_the_result_and_an_older_file_is_removed(tmp_path: Path):
    destination = Destination(str(tmp_path / "all.csv"))
    paths = [path for _, path in parts(tmp_path, "email,name\na@example.com,A\n", "email,title\nb@example.com,B\n")]
    beside = tmp_path / "all.csv.missing.csv"
    assert merge_missing(paths, destination) == str(beside)
    assert rows(beside) == [["email", "name", "title"], ["a@example.com", "A", ""], ["b@example.com", "", "B"]]
    assert merge_missing([], destination) is None
    assert not beside.exists()

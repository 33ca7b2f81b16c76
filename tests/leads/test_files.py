"""Files of leads as people have them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.exceptions import InvalidLeadsError
from machfive_provider.leads.files import SUFFIXES, Row, parse_json_leads, read_file
from machfive_provider.leads.prepare import prepare

Write = Callable[..., str]
ONE = [Row("line {}", 2, {"Email": "a@example.com", "Name": "Zoë"})]


def rows_of(path: str) -> list[Row]:
    return list(read_file(path))


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Give a function that writes a file anew, also for each example of a property."""
    folder = tmp_path_factory.mktemp("leads")

    def write(content: str | bytes, name: str = "leads.csv") -> str:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


# --- CSV


@pytest.mark.parametrize(
    "content",
    [
        "Email;Name\na@example.com;Zoë",
        "Email;Name\na@example.com;Zoë\n;\n \n\n",
        " Email , Name \na@example.com,Zoë\n",
        "Email,Name\na@example.com,Zoë,,\n",
        codecs.BOM_UTF16_LE + "Email\tName\r\na@example.com\tZoë\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "Email,Name\na@example.com,Zoë\n".encode("utf-16-be"),
    ],
    ids=["no last break", "blank rows", "spaces in header", "empty extra cells", "utf-16-le", "utf-16-be"],
)
def test_csv_as_programs_write_it(write: Write, content: str | bytes):
    assert rows_of(write(content)) == ONE


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=repr)
@pytest.mark.parametrize("end", ["\r\n", "\n"], ids=repr)
@given(
    st.lists(st.tuples(st.just("a@example.com"), cells, cells), max_size=5),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_csv_writer_wrote_is_read_back(write: Write, delimiter: str, end: str, rows, encoding: str):
    text = io.StringIO(newline="")
    # Python's writer quotes a bare carriage return only if its own line ends hold one.
    quoting = csv.QUOTE_MINIMAL if "\r" in end else csv.QUOTE_ALL
    header = ("Email", "Name", "Notes")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([header, *rows])
    read = read_file(write(text.getvalue().encode(encoding)))
    assert [row.fields for row in read] == [dict(zip(header, row, strict=True)) for row in rows]


def test_positions_are_the_lines_in_which_rows_begin(write: Write):
    path = write(
        '\n\nEmail,Notes\n\na@example.com,"one, two\nthree ""four"""\n   \n\nb@example.com\nc@example.com,C,x\n'
    )
    too_many = "has 3 cells under 2 columns; a cell that holds the delimiter needs quotes"
    assert rows_of(path) == [
        Row("line {}", 5, {"Email": "a@example.com", "Notes": 'one, two\nthree "four"'}),
        Row("line {}", 9, {"Email": "b@example.com"}),
        Row("line {}", 10, {"Email": "c@example.com", "Notes": "C"}, too_many),
    ]


LARGE = "x" * 200_000


@pytest.mark.parametrize(
    "content",
    [
        "sep=|\nEmail|Name|Notes\na@example.com|Zoë|x;y;z,\n",
        '"sep=;"\r\nName;Email\r\nZoë;a@example.com\r\n',
        'Notes:\n"Exported, with ""all"" of it; see help"\n\nEmail,Name\na@example.com,Zoë\n',
        "# made by a program; do not edit\n#\nEmail\tName\na@example.com\tZoë\n",
        'List, 2026\n5" screens, x"y\nQuestions: help@example.com\nName;Email\nZoë;a@example.com',
        '"First\nname","E-mail, work; or so","Email"\r"Zoë",,a@example.com\r',
        f"Notes,Email,Name\n{LARGE},a@example.com,Zoë\n",
        f"Notes,Email,Name\n{LARGE[:70_000]},,\n{LARGE},a@example.com,Zoë\n",
        '"Sales, all";"2026"\n"Name";"Email"\n"Zoë";"a@example.com"\n',
        "Email,Name,Fax,Fax\na@example.com,Zoë,1,2\n",
    ],
    ids=range(10),
)
def test_the_header_is_found_wherever_and_however_it_is_written(write: Write, content: str):
    leads = prepare(rows_of(write(content)), "skip").leads
    assert [(lead.email, lead.name) for lead in leads] == [("a@example.com", "Zoë")]


@pytest.mark.parametrize("content", ["", "\n \n", "Email,Name\n", codecs.BOM_UTF8], ids=repr)
def test_a_file_without_leads_gives_none(write: Write, content: str | bytes):
    assert rows_of(write(content)) == []


@pytest.mark.parametrize("name", ["LEADS.CSV", "leads.tsv", "leads.Csv"])
def test_the_ending_is_read_in_any_case(write: Write, name: str):
    assert rows_of(write("Email\tName\na@example.com\tZoë\n", name)) == ONE


@pytest.mark.parametrize(
    ("content", "name"),
    [('"Name, first, last";Email\nx;y\n', "leads.csv"), ("Name, first, last\tEmail\nx\ty\n", "leads.tsv")],
    ids=["quoted", "tsv"],
)
def test_delimiters_that_do_not_count(write: Write, content: str, name: str):
    assert rows_of(write(content, name)) == [Row("line {}", 2, {"Name, first, last": "x", "Email": "y"})]


# --- JSON


@pytest.mark.parametrize("name", ["leads.jsonl", "leads.ndjson"])
def test_json_lines(write: Write, name: str):
    path = write(codecs.BOM_UTF8 + '{"email": "a", "n": "x\u2028y\x85z"}\r\n\n  \n{"email": NaN}\n7'.encode(), name)
    first, second, third = rows_of(path)
    assert first == Row("line {}", 1, {"email": "a", "n": "x\u2028y\x85z"})
    assert second.position == "line 4"
    assert math.isnan(second.fields["email"])
    assert third == Row("line {}", 5, 7)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3) | st.integers(), max_size=4))
def test_what_a_json_writer_wrote_is_read_back(write: Write, leads):
    lines = "".join(f"{json.dumps(lead)}\n" for lead in leads)
    assert [row.fields for row in rows_of(write(lines, "leads.jsonl"))] == leads
    rows = [Row("lead {}", number, lead) for number, lead in enumerate(leads, 1)]
    for text in (json.dumps(leads, indent=2), json.dumps({"leads": leads, "total": 1})):
        assert rows_of(write(text, "leads.json")) == parse_json_leads(text, "here") == rows


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"email": "a@example.com"}\r{"email": "b@example.com"}\r', "leads.json"),
        ('[\n{"email": "a@example.com"},\n{"email": "b@example.com"}]', "leads.jsonl"),
        ('{"leads": [{"email": "a@example.com"}, {"email": "b@example.com"}]}\n', "leads.jsonl"),
        ('{\n"leads": [{"email": "a@example.com"}, {"email": "b@example.com"}]\n}', "leads.ndjson"),
    ],
    ids=["lines as json", "array as jsonl", "object as jsonl", "indented as ndjson"],
)
def test_json_is_read_as_what_it_is(write: Write, content: str, name: str):
    assert [row.fields["email"] for row in rows_of(write(content, name))] == ["a@example.com", "b@example.com"]


# --- what cannot be read


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        ("Email,Name\na@example.com,Zoë\n".encode("cp1252"), "leads.csv", r"is not UTF-8 text \(byte 28, line 2\)"),
        ('[{"email": "ü"}]'.encode("cp1252"), "leads.json", "is not UTF-8 text"),
        (codecs.BOM_UTF16_LE + b"E\x00m", "leads.csv", "is not UTF-16 text"),
        ("Email,Name".encode("utf-16-le"), "leads.csv", "is UTF-16 without the mark that says so. Save it as UTF-8"),
        ('[{"email": "x"}]'.encode("utf-16-be"), "leads.json", "is UTF-16 without the mark"),
        (b"PK\x03\x04\x00\x00", "leads.csv", "looks like an Excel workbook, but cannot be read as one"),
        (b"\xd0\xcf\x11\xe0\xa1", "leads.json", "looks like an Excel workbook, but cannot be read as one"),
        (b"Email\na@example.com", "leads.xlsx", "is no workbook: it holds text"),
        (b'\n[{"email": "a@example.com"}]', "leads.csv", r"is JSON, not CSV: let its name end in \.json"),
        (b"<!DOCTYPE html><title>Sign in</title>", "leads.csv", "is a web page or XML"),
        (b"a@example.com,Ada\nb@example.com,Bob\n", "leads.csv", "has no header"),
        (b"Email,Email\na,b\n", "leads.csv", "several columns called 'Email': keep one"),
        (b"Name,Email,Name\na,b,c\n", "leads.csv", "several columns called 'Name': keep one"),
        (b'Email,Name\na@example.com,"Ada\n', "leads.csv", "line 2, opens a quote that is never closed"),
        (b"[" * 100_000, "leads.jsonl", "is not JSON"),
        (b'[{"email": 1},\n x]', "leads.json", r"is not JSON \(line 2, column 2\)"),
        (b"", "leads.json", "is not JSON"),
        (b"[" * 100_000, "leads.json", "is not JSON"),
        (b'{"rows": []}', "leads.json", "holds no list of leads"),
        (b"7", "leads.json", "holds no list of leads"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_unreadable_content_is_refused_and_the_place_named(write: Write, content: bytes, name: str, reason: str):
    path = write(content, name)
    with pytest.raises(InvalidLeadsError, match=reason) as caught:
        rows_of(path)
    assert repr(path) in caught.value.message
    assert "example.com" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (
            b'Email,Name\na@example.com,"Ada" x\nb@example.com,Bo\n',
            "leads.csv",
            "line 2: is not CSV (.*check its quotes",
        ),
        (b"Email,Name\na@example.com,Ada,hidden\nb@example.com,Bo\n", "leads.csv", "line 2: has 3 cells under 2 col"),
        (b'\nhidden\n{"email": "b@example.com"}\n', "leads.jsonl", "line 2: is not a JSON object"),
        (b'{"email":\n{"email": "b@example.com"}', "leads.ndjson", "line 1: is not a JSON object"),
        (b'["a@example.com", {"email": "b@example.com"}]', "leads.jsonl", "lead 1: is a value of type str"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_a_broken_row_is_named_and_may_be_left_out_alone(write: Write, content: bytes, name: str, reason: str):
    path = write(content, name)
    with pytest.raises(InvalidLeadsError, match=reason.replace("(", r"\(", 1)) as caught:
        prepare(rows_of(path))
    assert "hidden" not in caught.value.message
    assert [lead.email for lead in prepare(rows_of(path), "skip").leads] == ["b@example.com"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_rows_or_refused(write: Write, suffix: str, content: bytes):
    try:
        rows = rows_of(write(content, f"leads{suffix}"))
    except InvalidLeadsError:
        return
    assert all(isinstance(row, Row) for row in rows)


@pytest.mark.parametrize("name", ["leads.docx", "leads", "leads.csv.gz", "csv", "leads.json5"])
def test_an_unknown_ending_is_refused_before_reading(name: str):
    with pytest.raises(InvalidLeadsError, match=r"has an unknown ending: use one of \.csv"):
        read_file(f"/nowhere/{name}")


@pytest.mark.parametrize("path", ["/nowhere/leads.csv", "nosuchscheme://bucket/leads.json", "{folder}/folder.csv"])
def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path, path: str):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidLeadsError, match=r"cannot be read .*Check the path as the worker sees it") as caught:
        rows_of(path.format(folder=tmp_path))
    assert caught.value.__cause__ is not None


def test_urls_are_read_and_relative_paths_from_the_working_directory(write: Write, monkeypatch: pytest.MonkeyPatch):
    path = write("Email,Name\na@example.com,Zoë\n")
    assert rows_of(f"file://{path}") == ONE
    monkeypatch.chdir(Path(path).parent)
    assert rows_of("leads.csv") == ONE

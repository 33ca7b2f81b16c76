"""Files of leads as people have them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.exceptions import InvalidLeadsError
from machfive_provider.leads.files import SUFFIXES, Row, parse_json_leads, read_file


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes, name: str = "leads.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


ONE = [Row("line 2", {"Email": "a@example.com", "Name": "Zoë"})]


@pytest.mark.parametrize(
    "content",
    [
        "Email,Name\na@example.com,Zoë\n".encode(),
        "Email,Name\r\na@example.com,Zoë\r\n".encode(),
        "Email,Name\na@example.com,Zoë".encode(),
        "Email;Name\na@example.com;Zoë\n".encode(),
        "Email\tName\na@example.com\tZoë\n".encode(),
        "Email|Name\na@example.com|Zoë\n".encode(),
        "Email;Name\na@example.com;Zoë\n;\n \n\n".encode(),
        " Email , Name \na@example.com,Zoë".encode(),
        '"Email","Name"\n"a@example.com","Zoë"\n'.encode(),
        codecs.BOM_UTF8 + "Email,Name\na@example.com,Zoë\n".encode(),
        "Email,Name\na@example.com,Zoë\n".encode("utf-16"),
        codecs.BOM_UTF16_LE + "Email\tName\r\na@example.com\tZoë\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "Email,Name\na@example.com,Zoë\n".encode("utf-16-be"),
        "Email,Name\na@example.com,Zoë,,\n".encode(),
    ],
    ids=[
        "plain",
        "crlf",
        "no last break",
        "semicolons",
        "tabs",
        "pipes",
        "blank rows",
        "spaces in header",
        "quoted",
        "bom",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "empty extra cells",
    ],
)
def test_csv_as_programs_write_it(write, content: bytes):
    assert read_file(write(content)) == ONE


def test_blank_lines_do_not_shift_the_line_numbers(write):
    path = write("\n\nEmail\n\na@example.com\n   \n\nb@example.com\n")
    assert read_file(path) == [Row("line 5", {"Email": "a@example.com"}), Row("line 8", {"Email": "b@example.com"})]


def test_quoted_delimiters_breaks_and_quotes(write):
    path = write('Email,Notes\na@example.com,"one, two\nthree ""four"""\nb@example.com,x\n')
    assert read_file(path) == [
        Row("line 3", {"Email": "a@example.com", "Notes": 'one, two\nthree "four"'}),
        Row("line 4", {"Email": "b@example.com", "Notes": "x"}),
    ]


def test_missing_and_extra_cells(write):
    path = write("Email,Name\na@example.com\nb@example.com,B,extra\n")
    assert read_file(path) == [
        Row("line 2", {"Email": "a@example.com"}),
        Row("line 3", {"Email": "b@example.com", "Name": "B"}, "has 3 cells under 2 columns"),
    ]


@pytest.mark.parametrize("content", ["", "\n \n", "Email,Name\n", codecs.BOM_UTF8], ids=repr)
def test_a_file_without_leads_gives_none(write, content):
    assert read_file(write(content)) == []


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        ("Email,Name\na@example.com,Zoë\n".encode("cp1252"), "leads.csv", r"is not UTF-8 text \(byte 28\)"),
        ('[{"email": "ü"}]'.encode("cp1252"), "leads.json", "is not UTF-8 text"),
        (codecs.BOM_UTF16_LE + b"E\x00m", "leads.csv", "is not UTF-8 text"),
        ("Email,Name".encode("utf-16-le"), "leads.csv", "zero bytes"),
        (b"PK\x03\x04\x00\x00", "leads.csv", "zero bytes"),
        (b"a@example.com,Ada\nb@example.com,Bob\n", "leads.csv", "has no header"),
        (b'Email,Name\na@example.com,"Ada\n', "leads.csv", r"line 2, is not CSV \(unexpected end of data\)"),
        (b'Email,Name\na@example.com,"Ada" x\n', "leads.csv", "line 2, is not CSV"),
        (b'{"email": 1}\n\nnope\n', "leads.jsonl", "line 3, is not a JSON object"),
        (b'{"email": 1}\n{"email":\n', "leads.ndjson", "line 2, is not a JSON object"),
        (b"[" * 100_000, "leads.jsonl", "line 1, is not a JSON object"),
        (b'[{"email": 1},\n ]', "leads.json", r"is not JSON \(line 2, column 2\)"),
        (b"", "leads.json", "is not JSON"),
        (b"[" * 100_000, "leads.json", "is not JSON"),
        (b'{"rows": []}', "leads.json", "holds no list of leads"),
        (b"7", "leads.json", "holds no list of leads"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_unreadable_content_is_refused_and_the_place_named(write, content: bytes, name: str, reason: str):
    path = write(content, name)
    with pytest.raises(InvalidLeadsError, match=reason) as caught:
        read_file(path)
    assert repr(path) in caught.value.message
    assert "example.com" not in caught.value.message


@pytest.mark.parametrize("name", ["leads.xlsx", "leads", "leads.csv.gz", "csv", "leads.json5"])
def test_an_unknown_ending_is_refused_before_reading(name: str):
    with pytest.raises(InvalidLeadsError, match=r"has an unknown ending: use one of \.csv"):
        read_file(f"/nowhere/{name}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("where", ["/nowhere/leads", "nosuchscheme://bucket/leads"])
def test_a_file_that_cannot_be_opened_is_refused(where: str, suffix: str):
    with pytest.raises(InvalidLeadsError, match=r"cannot be read .*Check the path as the worker sees it") as caught:
        read_file(where + suffix)
    assert caught.value.__cause__ is not None


def test_a_folder_is_refused(tmp_path: Path):
    folder = tmp_path / "leads.csv"
    folder.mkdir()
    with pytest.raises(InvalidLeadsError, match="cannot be read"):
        read_file(str(folder))


@pytest.mark.parametrize("name", ["LEADS.CSV", "leads.tsv", "leads.Csv"])
def test_the_ending_is_read_in_any_case(write, name: str):
    assert read_file(write("Email\tName\na@example.com\tZoë\n", name)) == ONE


def test_file_urls_are_read(write):
    path = write("Email,Name\na@example.com,Zoë\n")
    assert read_file(f"file://{path}") == ONE


@pytest.mark.parametrize("name", ["leads.jsonl", "leads.ndjson"])
def test_json_lines(write, name: str):
    path = write(codecs.BOM_UTF8 + '{"email": "a", "n": "x\u2028y\x85z"}\r\n\n  \n{"email": NaN}\n7'.encode(), name)
    first, second, third = read_file(path)
    assert first == Row("line 1", {"email": "a", "n": "x\u2028y\x85z"})
    assert second.position == "line 4"
    assert math.isnan(second.fields["email"])
    assert third == Row("line 5", 7)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[]", []),
        ('{"leads": []}', []),
        ('[{"email": "a"}, 7]', [Row("lead 1", {"email": "a"}), Row("lead 2", 7)]),
        ('{"leads": [{}], "total": 1}', [Row("lead 1", {})]),
    ],
)
def test_json(write, text: str, rows: list[Row]):
    assert parse_json_leads(text, "here") == rows
    assert read_file(write(text, "leads.json")) == rows


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=repr)
@pytest.mark.parametrize("end", ["\r\n", "\n"], ids=repr)
@given(
    st.lists(st.tuples(st.just("a@example.com"), cells, cells), max_size=5),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_csv_writer_wrote_is_read_back(delimiter: str, end: str, rows, encoding: str):
    text = io.StringIO(newline="")
    # Only where it ends lines with it does Python's writer see that a bare carriage return needs quotes.
    quoting = csv.QUOTE_MINIMAL if "\r" in end else csv.QUOTE_ALL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("Email", "Name", "Notes"), *rows])
    assert read_back(text.getvalue().encode(encoding), "leads.csv") == [
        {"Email": email, "Name": name, "Notes": notes} for email, name, notes in rows
    ]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), max_size=4))
def test_what_a_json_lines_writer_wrote_is_read_back(leads):
    text = "".join(f"{json.dumps(lead)}\n" for lead in leads)
    assert read_back(text.encode(), "leads.jsonl") == leads
    assert read_back(json.dumps({"leads": leads}).encode(), "leads.json") == leads


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_rows_or_refused(suffix: str, content: bytes):
    try:
        rows = read_back(content, f"leads{suffix}")
    except InvalidLeadsError:
        return
    assert isinstance(rows, list)


def read_back(content: bytes, name: str) -> list:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return [fields for _, fields, _ in read_file(os.fspath(path))]


def test_a_relative_path_is_one_from_the_working_directory(write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write("Email,Name\na@example.com,Zoë\n")
    monkeypatch.chdir(tmp_path)
    assert read_file("leads.csv") == ONE


@pytest.mark.parametrize("header", ["Email,Email", "Name,Email,Name"])
def test_a_column_given_twice_is_refused(write, header: str):
    with pytest.raises(InvalidLeadsError, match="several columns called"):
        read_file(write(f"{header}\na,b,c\n"))


def test_the_delimiter_of_a_tsv_is_known_and_quoted_ones_do_not_count(write):
    assert read_file(write("Name, full\tEmail\nZoë\ta@example.com\n", "leads.tsv"))[0].fields == {
        "Name, full": "Zoë",
        "Email": "a@example.com",
    }
    assert list(read_file(write('"Name, first, last";Email\nZoë;a@example.com\n'))[0].fields) == [
        "Name, first, last",
        "Email",
    ]

"""Excel workbooks, behind the extra ``excel``."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from machfive_provider.api.models import Lead
from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.leads.prepare import PreparedLeads, prepare, read_leads

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
TYPES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONS = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
LEADS = [[], ["Customers 2026"], ["Name", "E-mail", "Company"], ["Ada", "ada@example.com", 42], [], ["Bo", "none", "x"]]


@pytest.fixture
def book(tmp_path: Path) -> str:
    """Write a workbook of two sheets, as small as Excel would still open it."""
    return written(tmp_path / "book.xlsx", {"Leads": LEADS, "More & more": [["Mail"], ["eve@example.com"]]})


def written(path: Path, sheets: dict[str, list[list[str | int]]]) -> str:
    numbered = list(enumerate(sheets.items(), 1))
    names = "".join(f'<sheet name="{escape(name)}" sheetId="{n}" r:id="r{n}"/>' for n, (name, _) in numbered)
    targets = "".join(
        f'<Relationship Id="r{n}" Type="{TYPES}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n, _ in numbered
    )
    book = f'<Relationship Id="r1" Type="{TYPES}/officeDocument" Target="xl/workbook.xml"/>'
    parts = {
        "_rels/.rels": f"<Relationships {RELATIONS}>{book}</Relationships>",
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{TYPES}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f"<Relationships {RELATIONS}>{targets}</Relationships>",
    }
    for n, (_, rows) in numbered:
        cells = "".join(row_xml(number, row) for number, row in enumerate(rows, 1))
        parts[f"xl/worksheets/sheet{n}.xml"] = f"<worksheet {MAIN}><sheetData>{cells}</sheetData></worksheet>"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return str(path)


def row_xml(number: int, row: list[str | int]) -> str:
    cells = "".join(
        f'<c r="{column}{number}"><v>{value}</v></c>'
        if isinstance(value, int)
        else f'<c r="{column}{number}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        for column, value in zip("ABC", row, strict=False)
    )
    return f'<row r="{number}">{cells}</row>' if row else ""


def read(path: str, policy: str = "fail") -> PreparedLeads:
    return prepare(read_leads(leads_path=path), policy)


def test_the_first_sheet_or_the_one_named(book: str):
    prepared = read(book, "skip")
    assert prepared.leads == (Lead("ada@example.com", name="Ada", company="42"),)
    assert prepared.invalid == ("row 6: email is not a valid address (an email address must have an @-sign)",)
    assert read(f"{book}#More & more").leads == (Lead("eve@example.com"),)


def test_a_sheet_that_is_not_there(book: str):
    with pytest.raises(InvalidLeadsError, match=r"no sheet 'Sheet1'\. Its sheets are 'Leads', 'More & more'"):
        read(f"{book}#Sheet1")


def test_a_workbook_under_another_name_is_one(book: str):
    renamed = Path(book).with_suffix(".csv")
    renamed.write_bytes(Path(book).read_bytes())
    assert read(str(renamed), "skip").leads == read(book, "skip").leads


@pytest.mark.parametrize("rows", [[], [["Name", "Company"], ["Ada", "x"]]], ids=["empty", "no email"])
def test_a_sheet_without_leads(tmp_path: Path, rows: list[list[str | int]]):
    path = written(tmp_path / "book.xlsx", {"Sheet1": rows})
    with pytest.raises(InvalidLeadsError, match=r"is empty|The columns are 'Name', 'Company'"):
        read(path)


def test_without_the_extra_the_message_says_what_to_install(book: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ConfigurationError, match=r"is an Excel workbook.*'airflow-provider-machfive\[excel\]'"):
        read(book)

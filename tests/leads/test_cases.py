"""Files as people have them (`cases`), through an operator: what is sent, or what the error says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machfive_provider.exceptions import InvalidLeadsError
from machfive_provider.sandbox import Sandbox
from tests.tasks import Run, batch

FOLDER = Path(__file__).parent / "cases"


def lead(email: str, *rest: str, **fields: str) -> dict[str, str]:
    names = ("name", "title", "company")
    return {"email": email, **{name: text for name, text in zip(names, rest, strict=False) if text}, **fields}


INVISIBLE = [lead(f"{letter}@example.com", letter.upper()) for letter in "abcdf"]
INVISIBLE += [lead("g@example.com", "G"), lead("h@example.com", "H")]
# What is sent; where some rows cannot be, also what the error says, and what is sent with on_invalid_lead="skip".
CASES: dict[str, tuple[list[dict[str, str]], str | None]] = {
    "blank-email.csv": ([lead("asha@example.com", "Asha")], None),
    "blank-title.csv": ([lead("a@example.com", "", "CFO")], None),
    "display-name.csv": ([lead("jane@example.com", "Jane")], None),
    "excel-sep-line.csv": ([lead("asha@example.com", "Asha Rao")], None),
    "german.csv": ([lead("anna@example.org", "Anna Beispiel")], None),
    "header-with-line-break.csv": ([lead("asha@example.com", "Asha Rao", "", "Northwind")], None),
    "invisible-characters.csv": (
        INVISIBLE,
        "1 of 8 leads cannot be used: line 6: email is not a valid address (an email address cannot end with a period)",
    ),
    "linkedin-connections.csv": (
        [
            lead(
                *("asha@pureexample.com", "Asha Rao", "Business Development Manager", "Prepfully"),
                linkedin_url="https://www.linkedin.com/in/asha-rao-x",
            )
        ],
        None,
    ),
    "multiline-rows.csv": (
        [lead("a@example.com", "A"), lead("c@example.com", "C")],
        "1 of 3 leads cannot be used: line 3: email is not a valid address (an email address must have an @-sign)",
    ),
    "ndjson-named.json": ([lead("a@example.com"), lead("b@example.com")], None),
    "outlook-contacts.csv": (
        [
            lead(
                *("asha@example.com", "Asha Rao", "Head of Buying", "Northwind"),
                company_website="https://northwind.example.com",
            ),
            lead("ben@example.com", "Ben Okoye", "CFO", "Contoso"),
        ],
        None,
    ),
    "pipedrive.csv": ([lead("asha@example.com", "Asha Rao", "Buyer", "Northwind")], None),
    "report-title-above.csv": ([lead("jane@example.com", "Jane", "", "Acme")], None),
    "two-spellings.jsonl": (
        [lead("a@example.com")],
        "1 of 2 leads cannot be used: line 2: the columns 'email', 'Email'",
    ),
    "zero-byte.csv": ([], "line 2: email holds a zero byte"),
}


def test_every_file_has_its_case():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_read_as_it_was_meant(name: str, sandbox: Sandbox, connect: Callable[..., None]):
    connect(sandbox)
    sent, error = CASES[name]
    path = str(FOLDER / name)
    if error is not None:
        with pytest.raises(InvalidLeadsError) as caught:
            Run(batch(sandbox, leads_path=path))()
        assert error in caught.value.message
        assert "example." not in caught.value.message
        assert sandbox.requests == []
    if sent:
        Run(batch(sandbox, leads_path=path, on_invalid_lead="fail" if error is None else "skip"))()
        assert bodies(sandbox) == [sent]


def test_the_users_own_columns_go_before_any_guess(sandbox: Sandbox, connect: Callable[..., None], tmp_path: Path):
    connect(sandbox)
    path = tmp_path / "crm.csv"
    path.write_text("Exported\n\nTo,Email,Given,Rest\nboss@example.com,old@example.com,Bo,Doe\n")
    mapping = {"email": "To", "name": ["Given", "Rest"]}
    Run(batch(sandbox, leads_path=str(path), columns=mapping))()
    assert bodies(sandbox) == [[lead("boss@example.com", "Bo Doe")]]


def bodies(sandbox: Sandbox) -> list[Any]:
    """Return the leads of each purchase as they arrived."""
    return [request.json["leads"] for request in sandbox.requests if request.method == "POST"]

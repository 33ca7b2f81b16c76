"""Leads from whatever a DAG has; messages name positions and reasons, never a person."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api.models import Lead
from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.leads.prepare import PreparedLeads, prepare, read_leads, single_lead

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "data" / "leads.csv"
ADA, BOB = {"email": "ada@example.com", "name": "Ada"}, {"email": "bob@example.com"}


def prepared(*leads, **policies) -> PreparedLeads:
    return prepare(read_leads(list(leads)), **policies)


def one(**fields) -> Lead:
    return prepared(fields).leads[0]


def test_the_example_file():
    rows = list(read_leads(leads_path=str(EXAMPLE)))
    assert len(rows) == 60
    ready = prepare(rows, "skip", "first")
    assert (len(ready.leads), len(ready.invalid), len(ready.duplicates), ready.skipped) == (58, 1, 1, 2)
    assert ready.unknown_fields == ("Lead Status", "Lead Source", "Notes")
    assert all(lead.email and lead.name and lead.company for lead in ready.leads)
    with pytest.raises(InvalidLeadsError, match="1 of 60 leads cannot be used"):
        prepare(rows)
    with pytest.raises(InvalidLeadsError, match="1 of 60 leads are duplicates"):
        prepare(rows, "skip")


@pytest.mark.parametrize(
    ("value", "email"),
    [
        (" ada@example.com ", "ada@example.com"),
        ("Ada@EXAMPLE.com", "Ada@example.com"),
        ("ada@bücher.example", "ada@bücher.example"),
        ("ada@xn--bcher-kva.example", "ada@bücher.example"),
        ("δοκιμή@παράδειγμα.δοκιμή", "δοκιμή@παράδειγμα.δοκιμή"),
        ("o'brien+tag@example.com", "o'brien+tag@example.com"),
    ],
)
def test_valid_addresses(value: str, email: str):
    assert one(email=value).email == email


SECRET = "hidden"  # stands where a person's data would


class NAType:
    """Behaves as pandas.NA does, which these tests do without."""

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = None

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class NaT(float):
    """Behaves as pandas.NaT and the NaN of numpy do: it does not equal itself."""

    def __new__(cls) -> NaT:
        return super().__new__(cls, "nan")


MISSING = [None, "", " \t", "\u200b", float("nan"), NaT(), NAType(), Decimal("NaN"), Decimal("sNaN")]


@pytest.mark.parametrize("missing", MISSING, ids=lambda value: f"{type(value).__name__} {ascii(str(value))[:9]}")
def test_missing_values_are_left_out(missing: Any):
    lead = one(email="ada@example.com", name="Ada", company=missing, title=missing, website=missing)
    assert lead == Lead("ada@example.com", name="Ada")
    with pytest.raises(InvalidLeadsError, match=r"leads\[1\]: email is missing"):
        prepared(BOB, {"email": missing, "company": missing})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[
            (42, "42"),
            (37.0, "37"),
            (1.5, "1.5"),
            (Decimal("7.50"), "7.50"),
            (Fraction(3, 1), "3"),
            (10**30, "1" + "0" * 30),
        ],
        ("  Love\ud800lace \n\t & Co\xa0", "Love?lace & Co"),
        ("\ufeffNorth\u200bwind\u00ad\x01", "Northwind"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
    ids=ascii,
)
def test_what_is_no_clean_text_becomes_one(value: Any, text: str):
    assert one(email="ada@example.com", company=value).company == text


@pytest.mark.parametrize(
    ("lead", "reason", "remedy"),
    [
        ({}, "email is missing", ""),
        ({"email": SECRET}, "email is not a valid address (an email address must have an @-sign)", ""),
        ({"email": f"{SECRET}@example.com, b@example.com"}, "email holds several addresses; keep one in each row", ""),
        ({"email": 7}, "email is a value of type int, not a text", ""),
        ({"email": b"hidden@example.com"}, "email is a value of type bytes, not a text", ""),
        ({**ADA, "company": {"x": SECRET}}, "company is a value of type dict, not a text", ""),
        ({**ADA, "company": True}, "company is a value of type bool, not a text", ""),
        ({**ADA, "title": float("inf")}, "title is an infinite number or one with too many digits, not a text", ""),
        (
            {**ADA, "title": Decimal("1e9999")},
            "title is an infinite number or one with too many digits, not a text",
            "",
        ),
        ({**ADA, "E-Mail": SECRET}, "the columns 'email', 'E-Mail' mean the same; keep one and rename the others", ""),
        (
            f"{SECRET}@example.com",
            "is a value of type str, not an object",
            "Give each lead as an object, such as {'email': …}. ",
        ),
        (
            [{"email": SECRET}],
            "is a value of type list, not an object",
            "Flatten a list of lists; give rows of values the names of their columns, with dict(zip(names, row)). ",
        ),
        (None, "is nothing, not an object", "A task that leads come from returned None. "),
        (7, "is a value of type int, not an object", ""),
    ],
    ids=ascii,
)
def test_bad_leads(lead, reason: str, remedy: str):
    with pytest.raises(InvalidLeadsError) as caught:
        prepared(BOB, lead)
    assert caught.value.message == (
        f"leads: 1 of 2 leads cannot be used: leads[1]: {reason}. {remedy}Correct them, or set on_invalid_lead='skip'."
    )
    assert SECRET not in str(caught.value)
    ready = prepared(BOB, lead, on_invalid_lead="skip")
    assert (ready.leads, ready.invalid) == ((Lead("bob@example.com"),), (f"leads[1]: {reason}",))


def test_no_good_lead_is_an_error_under_every_policy():
    with pytest.raises(InvalidLeadsError) as caught:
        prepared({"Mobile": "1"}, {"Mobile": "2", "Town": "x"}, on_invalid_lead="skip")
    assert caught.value.message == (
        "leads: email is missing, no column is named like it. The columns are 'Mobile', 'Town'. Name the one that "
        "holds the address: columns={'email': '…'}."
    )


def test_duplicates():
    leads = ({**ADA, "email": "Ada@Example.com"}, BOB, {"email": "aDA@eXAMPLE.COM", "name": "Second"})
    with pytest.raises(InvalidLeadsError) as caught:
        prepared(*leads)
    assert caught.value.message == (
        "leads: 1 of 3 leads are duplicates: leads[2]: same email as leads[0]. "
        "Remove them, or set on_duplicate_lead='first'."
    )
    ready = prepared(*leads, on_duplicate_lead="first")
    assert [lead.name for lead in ready.leads] == ["Ada", None]
    assert (ready.duplicates, ready.skipped) == (("leads[2]: same email as leads[0]",), 1)


def test_a_reason_is_told_once_with_the_first_ten_positions():
    bad = [{"email": f"{SECRET}{number}", "name": SECRET} for number in range(500)]
    with pytest.raises(InvalidLeadsError) as caught:
        prepared(BOB, *bad, {"email": ""})
    shown = ", ".join(f"leads[{number}]" for number in range(1, 11))
    reason = "email is not a valid address (an email address must have an @-sign)"
    assert f"501 of 502 leads cannot be used: {shown} and 490 more: {reason}; leads[501]: email" in caught.value.message
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("leads", [[], "[]", '{"leads": []}'], ids=["list", "text", "object"])
def test_nobody_to_write_to(leads):
    with pytest.raises(InvalidLeadsError, match="leads is empty"):
        prepare(read_leads(leads))


@pytest.mark.parametrize(
    ("leads", "reason"),
    [
        *[(each, "leads must be a list of objects or a JSON array, not a value of type") for each in (ADA, b"[]", 7)],
        *[
            (each, r"leads \(a text\) is not JSON")
            for each in ("hidden@example.com", "", "[{'email': 1}]", "[" * 100_000)
        ],
        *[(each, "is nothing: the task or template that it comes from gave None") for each in ("None", " null ")],
        *[(each, "can be read only once.*Give a list") for each in (iter([ADA]), csv.DictReader(["email", SECRET]))],
        (SimpleNamespace(columns=["email"], shape=(1, 1)), r"is a data frame: .*to_dict\('records'\)"),
        *[(each, "holds no list of leads") for each in ("7", '"x"', "{}", '{"leads": {}}', '{"email": "hidden"}')],
    ],
)
def test_what_holds_no_leads_is_refused(leads, reason: str):
    with pytest.raises(InvalidLeadsError, match=reason) as caught:
        read_leads(leads)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("leads", "positions"),
    [
        ((ADA, BOB), ["leads[0]", "leads[1]"]),
        ({"x": ADA, "y": BOB}.values(), ["leads[0]", "leads[1]"]),
        (json.dumps([ADA, BOB]), ["lead 1", "lead 2"]),
    ],
    ids=["tuple", "view", "text"],
)
def test_leads_are_any_iterable_or_json(leads, positions: list[str]):
    rows = list(read_leads(leads))
    assert [row.position for row in rows] == positions
    assert [lead.email for lead in prepare(rows).leads] == ["ada@example.com", "bob@example.com"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "neither given"),
        ({"leads": [ADA], "leads_path": "x.csv"}, "both given"),
        ({"leads": [], "leads_path": ""}, "both given"),
        ({"leads_path": "  "}, "leads_path must be a path or URL as text"),
        ({"leads_path": 7}, "not a value of type int"),
    ],
    ids=str,
)
def test_exactly_one_source(arguments, reason: str):
    with pytest.raises(ConfigurationError, match=reason):
        read_leads(**arguments)


@pytest.mark.parametrize("lead", [ADA, json.dumps(ADA)], ids=["mapping", "text"])
def test_a_single_lead(lead):
    assert single_lead(lead).leads == (Lead("ada@example.com", name="Ada"),)


@pytest.mark.parametrize(
    ("lead", "reason"),
    [
        (None, "lead: is nothing, not an object"),
        ([ADA], "lead: is a value of type list"),
        ({"email": SECRET}, "lead: email is not a valid address"),
        (f"{SECRET}@example.com", "lead .a text. is not JSON"),
        ("", "lead holds 0 leads"),
        ("{}, {}", "lead holds 2 leads"),
        ('{"email": "hidden"}', "lead: email is not a valid address"),
    ],
    ids=str,
)
def test_a_single_lead_that_is_none(lead, reason: str):
    with pytest.raises(InvalidLeadsError, match=reason) as caught:
        single_lead(lead)
    assert SECRET not in str(caught.value)


names = st.sampled_from(["email", "Email", "E-mail", "name", "First Name", "Surname", "title", "Website"]) | st.text(
    max_size=9
)
addresses = st.builds(
    "{}@{}".format, st.text(min_size=1, max_size=9), st.sampled_from(["example.com", "ü.example", "[::1]", "a"])
)
texts = addresses | st.emails() | st.text(max_size=30)
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(names, texts, max_size=4) | values, max_size=4), st.sampled_from(["fail", "skip"]))
def test_whatever_json_can_say_is_prepared_or_refused_without_quoting_it(leads, policy: str):
    try:
        ready = prepared(*leads, on_invalid_lead=policy, on_duplicate_lead="first")
    except InvalidLeadsError as error:
        message = error.message
        given = [text for lead in leads for text in (lead.values() if isinstance(lead, dict) else [lead])]
        personal = [text for text in given if isinstance(text, str) and "@" in text and len(text) > 5]
        assert not any(text in message for text in personal)
        return
    assert len(ready.leads) + ready.skipped == len(leads)
    assert len({lead.key for lead in ready.leads}) == len(ready.leads) > 0
    json.dumps([lead.to_json() for lead in ready.leads], ensure_ascii=False).encode()

"""Leads from whatever a DAG has; messages name positions and reasons, never a person."""

from __future__ import annotations

import json
from pathlib import Path

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
    rows = read_leads(leads_path=str(EXAMPLE))
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
    ("field", "spellings"),
    [
        ("email", ["email", "Email", "E-mail", "E-MAIL ADDRESS", "e_mail", "Mail", "Work Email", "Primary email"]),
        ("name", ["name", "Full Name", "full_name", "Contact Name", "Lead name", "Contact"]),
        ("title", ["title", "Job Title", "jobTitle", "Position", "ROLE"]),
        ("company", ["company", "Company Name", "Organization", "organisation", "Account Name", "Employer"]),
        ("company_website", ["company_website", "Website", "Company URL", "Domain", "url", "Company Website"]),
        ("linkedin_url", ["linkedin_url", "LinkedIn", "LinkedIn URL", "LinkedIn Profile", "Person Linkedin Url"]),
    ],
)
def test_header_spellings(field: str, spellings: list[str]):
    for spelling in spellings:
        lead = one(**{"email": "ada@example.com"} if field != "email" else {}, **{spelling: "ada@example.com"})
        assert getattr(lead, field) == "ada@example.com", spelling


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"First Name": "Ada", "Last Name": "Lovelace"}, "Ada Lovelace"),
        ({"last_name": "Lovelace", "first_name": "Ada"}, "Ada Lovelace"),
        ({"givenName": "Ada"}, "Ada"),
        ({"Surname": "Lovelace"}, "Lovelace"),
        ({"First name": "Ada", "Family name": ""}, "Ada"),
        ({"First name": " ", "Last name": None}, None),
        ({"Name": "A. L.", "First Name": "Ada"}, "A. L."),
    ],
    ids=str,
)
def test_first_and_last_name_make_a_name(fields, name: str | None):
    assert one(email="ada@example.com", **fields).name == name


def test_unknown_fields_and_worse_spellings_are_left_out_and_named_once_in_order():
    ready = prepared({**ADA, "Work Email": "x@example.com", "Age": "2"}, {**BOB, "Age": "3", "Fax": "4"})
    assert ready.unknown_fields == ("Work Email", "Age", "Fax")
    assert ready.leads == (Lead("ada@example.com", name="Ada"), Lead("bob@example.com"))


def test_two_columns_that_mean_the_same_are_refused():
    with pytest.raises(InvalidLeadsError, match="'E-mail', 'Email' all mean email; keep one"):
        prepared({"E-mail": "a@example.com", "Email": "b@example.com"})


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


@pytest.mark.parametrize(
    ("lead", "reason"),
    [
        ({}, "email is missing"),
        ({"email": " \t"}, "email is missing"),
        ({"email": None}, "email is missing"),
        ({"email": float("nan")}, "email is missing"),
        ({"email": SECRET}, "email is not a valid address"),
        ({"email": f"{SECRET}@example.com, b@example.com"}, "email is not a valid address"),
        ({"email": f"{SECRET}\ud800@example.com\ud800"}, "email is not a valid address"),
        ({"email": 7}, "email is a value of type int, not a text"),
        ({"email": b"hidden@example.com"}, "email is a value of type bytes, not a text"),
        ({**ADA, "company": {"x": SECRET}}, "company is a value of type dict, not a text"),
        (f"{SECRET}@example.com", "is a value of type str, not an object"),
        (None, "is nothing, not an object"),
        (7, "is a value of type int, not an object"),
    ],
    ids=ascii,
)
def test_bad_leads(lead, reason: str):
    with pytest.raises(InvalidLeadsError) as caught:
        prepared(BOB, lead)
    message = caught.value.message
    assert message == (
        f"leads: 1 of 2 leads cannot be used: leads[1]: {reason}. Correct them, or set on_invalid_lead='skip'."
    )
    assert SECRET not in str(caught.value)
    ready = prepared(BOB, lead, on_invalid_lead="skip")
    assert (ready.leads, ready.invalid) == ((Lead("bob@example.com"),), (f"leads[1]: {reason}",))


def test_texts_are_folded_and_missing_values_of_a_data_frame_left_out():
    lead = one(
        email="ada@example.com", name="  Ada\n\t Love\ud800lace ", title=None, company="  ", website=float("nan")
    )
    assert lead == Lead("ada@example.com", name="Ada Love?lace")


def test_no_good_lead_is_an_error_under_every_policy():
    with pytest.raises(InvalidLeadsError, match="Check the names of the fields or columns"):
        prepared({"Mobile": "1"}, on_invalid_lead="skip")


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


@pytest.mark.parametrize(("bad", "more"), [(10, ""), (11, "; and 1 more"), (500, "; and 490 more")])
def test_a_message_lists_the_first_ten(bad: int, more: str):
    with pytest.raises(InvalidLeadsError) as caught:
        prepared(BOB, *({"email": f"{SECRET}{number}", "name": SECRET} for number in range(bad)))
    shown = "; ".join(f"leads[{number}]: email is not a valid address" for number in range(1, 11))
    assert f"cannot be used: {shown}{more}. Correct them" in caught.value.message
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("leads", [[], "[]", '{"leads": []}', iter(())], ids=["list", "text", "object", "iterator"])
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
        (iter((ADA, BOB)), ["leads[0]", "leads[1]"]),
        (json.dumps([ADA, BOB]), ["lead 1", "lead 2"]),
    ],
    ids=["tuple", "iterator", "text"],
)
def test_leads_are_any_iterable_or_json(leads, positions: list[str]):
    rows = read_leads(leads)
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

"""What came back against what was bought: compared, put into words, and written so that it can be submitted again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machfive_provider.api.models import Lead
from machfive_provider.delivery.count import (
    Comparison,
    Expected,
    Figures,
    compare,
    leads_as_csv,
    missing_message,
    short_sequence,
    warnings,
)
from machfive_provider.leads.files import Row
from machfive_provider.leads.prepare import prepare, read_leads

ANN, BEN, CAL = (Lead(f"{name}@Example.com", name=name.title(), company='C, "Inc."') for name in ("ann", "ben", "cal"))


def export_of(*leads: tuple[str, int], email_count: int | None = None) -> Figures:
    """Return the figures of an export with these leads and numbers of emails."""
    figures = Figures(email_count)
    for position, (email, emails) in enumerate(leads, 1):
        sequence = [{"step": step, "subject": "s", "body": "b"} for step in range(emails)]
        figures.count_sent(position, {"email": email, "sequence": sequence})
    return figures


def back(email_count: int | None = None) -> Figures:
    return export_of(("ANN@example.com", 3), ("ben@EXAMPLE.com", 2), email_count=email_count)


@pytest.mark.parametrize(
    ("number", "missing", "extra"), [(None, None, None), (0, 0, 4), (3, 0, 2), (4, 0, 2), (5, 1, 2)]
)
def test_a_number_is_compared_with_the_leads_and_a_repeated_one_is_extra(
    number: int | None, missing: int | None, extra: int | None
):
    figures = export_of(*[("ann@example.com", 3)] * 3, ("ben@example.com", 3))
    assert compare(figures, Expected(number)) == Comparison(Expected(number), missing, extra)


in_any_case = st.builds(
    lambda name, form: getattr(name, form)(), st.sampled_from("abcdßé"), st.sampled_from(["upper", "lower"])
)


@given(
    st.lists(st.tuples(in_any_case, st.integers(0, 4))),
    st.lists(st.sampled_from("abcdxy"), unique=True),
    st.sampled_from([None, 1, 3]),
)
def test_each_bought_lead_is_compared_in_any_case_and_by_its_longest_sequence(
    export: list, bought: list, asked: int | None
):
    figures = export_of(*((f" {name}@X.io", emails) for name, emails in export), email_count=asked)
    longest = {}
    written = [(name, emails) for name, emails in export if emails]
    for name, emails in written:
        longest[name.casefold()] = max(emails, longest.get(name.casefold(), 0))
    compared = compare(figures, Expected.of([Lead(f"{name}@x.io") for name in bought], asked))
    assert (figures.leads, figures.emails) == (len(written), sum(emails for _, emails in written))
    assert len(figures.unwritten) == len({name.casefold() for name, _ in export} - longest.keys())
    assert [lead.email[0] for lead in compared.missing_leads] == [name for name in bought if name not in longest]
    assert compared.missing == len(compared.missing_leads)
    assert compared.extra == len(written) - len(longest.keys() & set(bought))
    assert compared.short == (None if asked is None else sum(longest.get(name, asked) < asked for name in bought))
    everybody = None if asked is None else sum(emails < asked for emails in longest.values())
    assert compare(figures, Expected(3, None, asked)).short == everybody


# --- texts


def test_nothing_is_said_of_a_whole_delivery():
    compared = compare(back(2), Expected.of([ANN, BEN], 2))
    assert missing_message(compared, "l1", None, "fail") is None
    assert warnings(back(2), compared, "l1", "/out.csv") == []
    assert missing_message(compare(back(), Expected()), "l1", None, "fail") is None


@pytest.mark.parametrize("policy", ["fail", "warn"])
@pytest.mark.parametrize("path", ["/out.csv.missing.csv", None])
def test_what_is_said_of_missing_leads(path: str | None, policy: str):
    text = " ".join(missing_message(compare(back(), Expected.of([ANN, BEN, CAL])), "l1", path, policy) or ())
    assert text.startswith("The export of list l1 lacks 1 of the 3 leads that were submitted and paid for;")
    assert ("The missing ones are in /out.csv.missing.csv: submit it with leads_path" in text) == bool(path)
    assert ("Only their number is known" in text) == (path is None)
    assert ("on_missing_leads='warn'" in text) == (policy == "fail")
    assert "MachFive support" in text
    assert "\n" not in text
    assert "cal" not in text.lower()


def test_what_is_said_of_the_rest():
    figures = back(3)
    for position in range(3, 15):
        figures.count_sent(position, {"email": None, "name": "dan@example.com"})
    figures.count_sent(15, {"email": "eve@example.com"})
    odd, unwritten, extra, short = warnings(figures, compare(figures, Expected.of([BEN], 3)), "l1", "/out.csv")
    assert "12 leads without an email address (positions 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 2 more)" in odd
    assert "1 lead without a usable email (position 15), which counts as missing" in unwritten
    assert extra.startswith("The export of list l1 holds 1 lead more than was bought")
    assert "1 lead whose emails are fewer than email_count=3 asks for, or lack" in short
    assert "(position 2)" in short
    for text in (odd, unwritten, extra, short):
        assert "/out.csv" in text
        assert "MachFive support" in text
        assert "\n" not in text
        assert "example.com" not in text.lower()


EMAIL = {"step": "1", "subject": "", "body": "b"}
NO_SUBJECT = {"step": 1, "body": "b"}


@pytest.mark.parametrize(
    ("sequence", "asked", "said"),
    [
        ([EMAIL] * 3, None, None),
        ([EMAIL] * 3, 3, None),
        ([EMAIL] * 4, 3, None),
        ([EMAIL] * 2, 3, "has 2 usable emails of 3: the others are missing, or lack"),
        ([EMAIL, NO_SUBJECT], None, "has 1 usable email of 2: the others are missing, or lack"),
        ([NO_SUBJECT], 1, "has 0 usable emails of 1: the others"),
        (None, None, "has 0 usable emails."),
    ],
)
def test_what_is_said_of_a_single_lead(sequence, asked: int | None, said: str | None):
    text = short_sequence("l1", sequence, asked)
    assert said in text if said else text is None


# --- the missing leads as a file


def test_only_the_columns_that_are_set():
    assert leads_as_csv([Lead("a@x.io"), Lead("b@x.io")]) == b"email\r\na@x.io\r\nb@x.io\r\n"
    leads = [Lead("a@x.io", linkedin_url="l"), Lead("b@x.io", name="B", company_website="w")]
    assert leads_as_csv(leads) == b"email,name,company_website,linkedin_url\r\na@x.io,,,l\r\nb@x.io,B,w,\r\n"


FIELDS = ("name", "title", "company", "company_website", "linkedin_url")
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.emails(), st.dictionaries(st.sampled_from(FIELDS), text | st.sampled_from('",;\t|\r\n=@'))),
        min_size=1,
        max_size=5,
    )
)
def test_any_leads_are_read_back_alike(tmp_path_factory: pytest.TempPathFactory, given_leads: list):
    rows = [Row("lead {}", index, {"email": email, **rest}) for index, (email, rest) in enumerate(given_leads)]
    leads = prepare(rows, "fail", "first").leads
    path: Path = tmp_path_factory.getbasetemp() / "leads.csv.missing.csv"
    path.write_bytes(leads_as_csv(leads))
    again = prepare(read_leads(leads_path=str(path)))
    assert again.leads == leads
    assert again.unknown_fields == ()

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
    for email, emails in leads:
        figures.count_lead(email, emails)
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
    for name, emails in export:
        longest[name.casefold()] = max(emails, longest.get(name.casefold(), 0))
    compared = compare(figures, Expected.of([Lead(f"{name}@x.io") for name in bought], asked))
    assert (figures.leads, figures.emails) == (len(export), sum(emails for _, emails in export))
    assert [lead.email[0] for lead in compared.missing_leads] == [name for name in bought if name not in longest]
    assert compared.missing == len(compared.missing_leads)
    assert compared.extra == len(export) - len(longest.keys() & set(bought))
    assert compared.short == (None if asked is None else sum(longest.get(name, asked) < asked for name in bought))
    everybody = None if asked is None else sum(emails < asked for emails in longest.values())
    assert compare(figures, Expected(3, None, asked)).short == everybody


# --- texts


def test_nothing_is_said_of_a_whole_delivery():
    compared = compare(back(2), Expected.of([ANN, BEN], 2))
    assert missing_message(compared, "l1", None, "fail") is None
    assert warnings(compared, "l1", "/out.csv") == []
    assert missing_message(compare(back(), Expected()), "l1", None, "fail") is None


@pytest.mark.parametrize("policy", ["fail", "warn"])
@pytest.mark.parametrize("path", ["/out.csv.missing.csv", None])
def test_what_is_said_of_missing_leads(path: str | None, policy: str):
    text = missing_message(compare(back(), Expected.of([ANN, BEN, CAL])), "l1", path, policy)
    assert text.startswith("The export of list l1 lacks 1 of the 3 leads that were submitted and paid for;")
    assert ("The missing ones are in /out.csv.missing.csv: submit it with leads_path" in text) == bool(path)
    assert ("Only their number is known" in text) == (path is None)
    assert ("on_missing_leads='warn'" in text) == (policy == "fail")
    assert "MachFive support" in text
    assert "\n" not in text
    assert "cal" not in text.lower()


def test_what_is_said_of_the_rest():
    extra, short = warnings(compare(back(3), Expected.of([BEN], 3)), "l1", "/out.csv")
    assert extra.startswith("The export of list l1 holds 1 lead more than was bought")
    assert short.startswith("The export of list l1 holds 1 lead with fewer emails than email_count=3 asks for")
    for text in (extra, short):
        assert "/out.csv" in text
        assert "MachFive support" in text
        assert "\n" not in text
        assert "example.com" not in text.lower()


@pytest.mark.parametrize(("written", "asked", "said"), [(3, None, False), (3, 3, False), (4, 3, False), (2, 3, True)])
def test_what_is_said_of_a_single_lead(written: int, asked: int | None, said: bool):
    text = short_sequence("l1", written, asked)
    assert (text is not None) == said
    if text:
        assert text.startswith("The sequence of list l1 has 2 emails, fewer than email_count=3 asks for.")


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
    rows = [Row(str(index), {"email": email, **rest}) for index, (email, rest) in enumerate(given_leads)]
    leads = prepare(rows, "fail", "first").leads
    path: Path = tmp_path_factory.getbasetemp() / "leads.csv.missing.csv"
    path.write_bytes(leads_as_csv(leads))
    again = prepare(read_leads(leads_path=str(path)))
    assert again.leads == leads
    assert again.unknown_fields == ()

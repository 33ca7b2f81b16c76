"""What came back against what was bought: judged, put into words, and written so that it can be submitted again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machfive_provider.api.models import Lead
from machfive_provider.delivery.count import (
    Delivery,
    Expected,
    Figures,
    incomplete,
    judge,
    leads_as_csv,
    short_sequence,
    warnings,
)
from machfive_provider.delivery.disk_map import DiskMap
from machfive_provider.leads.files import Row
from machfive_provider.leads.prepare import prepare, read_leads

ANN, BEN, CAL, DEE = (
    Lead(f"{name}@Example.com", name=name.title(), company='C, "Inc."') for name in ("ann", "ben", "cal", "dee")
)


def came(*leads: tuple[str, int] | str) -> Figures:
    """Return the figures of an export; where no lengths are given, of a CSV with three emails a lead."""
    figures = Figures()
    for lead in leads:
        figures.note(*(lead if isinstance(lead, tuple) else (lead,)))
    if any(isinstance(lead, str) for lead in leads):
        figures.emails = 3 * len(leads)
    return figures


BACK = came(("ANN@example.com", 3), ("ben@EXAMPLE.com", 2))


@pytest.mark.parametrize(
    ("expected", "missing", "extra"),
    [
        (Expected(), None, None),
        (Expected(2), 0, 0),
        (Expected(1), 0, 1),
        (Expected(0), 0, 2),
        (Expected(5), 3, 0),
        (Expected.of([]), 0, 2),
        (Expected.of([ANN, BEN]), 0, 0),
        (Expected.of([BEN]), 0, 1),
        (Expected.of([CAL, ANN, DEE, BEN]), 2, 0),
        (Expected.of([DEE, CAL]), 2, 2),
    ],
)
def test_missing_and_extra(expected: Expected, missing: int | None, extra: int | None):
    judged = judge(BACK, expected)
    assert (judged.missing, judged.extra, judged.short) == (missing, extra, None)
    assert judged.missing_leads == tuple(each for each in expected.leads or () if each in (CAL, DEE))


@pytest.mark.parametrize(
    ("expected", "missing", "extra"),
    [
        (Expected.of([ANN, BEN]), 1, 2),
        (Expected.of([ANN]), 0, 2),
        (Expected(3), 0, 2),
        (Expected(4), 1, 2),
        (Expected(1), 0, 2),
        (Expected(), None, None),
    ],
)
def test_a_lead_that_comes_again_is_extra(expected: Expected, missing: int | None, extra: int | None):
    """It hides no lead that is missing, where the leads are known."""
    judged = judge(came(("ann@example.com", 3), ("ann@example.com", 3), ("Ann@Example.com", 3)), expected)
    assert (judged.missing, judged.extra) == (missing, extra)


@pytest.mark.parametrize(
    ("figures", "asked", "short"),
    [
        (BACK, None, None),
        (BACK, 1, 0),
        (BACK, 2, 0),
        (BACK, 3, 1),
        (BACK, 4, 2),
        (came(("ann@example.com", 0), ("ben@example.com", 9)), 3, 1),
        (came(("ann@example.com", 1), ("ann@example.com", 3), ("ann@example.com", 2), ("ben@example.com", 3)), 3, 0),
        (came(("ann@example.com", 3), ("eve@example.com", 1)), 3, 0),
        (came("ann@example.com", "ben@example.com"), 3, 0),
        (came("ann@example.com", "ben@example.com"), 4, None),
        (came(), 3, 0),
    ],
    ids=[
        "not asked",
        "longer",
        "as asked",
        "one",
        "all",
        "nothing written",
        "the longest counts",
        "strangers do not count",
        "enough in all",
        "too few in all, nobody knows whose",
        "nobody",
    ],
)
def test_short(figures: Figures, asked: int | None, short: int | None):
    assert judge(figures, Expected.of([ANN, BEN], asked)).short == short


def test_short_without_knowing_the_leads():
    assert judge(BACK, Expected(2, email_count=3)).short == 1
    assert judge(BACK, Expected(email_count=3)) == Delivery(Expected(email_count=3), short=1)


in_any_case = st.builds(
    lambda name, form: getattr(name, form)(), st.sampled_from("abcdßé"), st.sampled_from(["upper", "lower"])
)


@given(
    st.lists(st.tuples(in_any_case, st.integers(0, 4))),
    st.lists(st.sampled_from("abcdxy"), unique=True),
    st.sampled_from([None, 1, 3]),
)
def test_wherever_the_leads_are_kept_each_is_judged(export: list, bought: list, asked: int | None):
    """Told twice: by counting an export in memory or on disk, and from the definitions."""
    expected = Expected.of([Lead(f"{name}@x.io") for name in bought], asked)
    with DiskMap() as on_disk:
        in_memory, kept = Figures(), Figures(delivered=on_disk)
        for name, written in export:
            in_memory.note(f" {name}@X.io", written)
            kept.note(f"{name}@x.io ", written)
        assert kept == in_memory
        judged = judge(kept, expected)
        assert judged == judge(in_memory, expected)
        assert judge(kept, Expected(3, None, asked)) == judge(in_memory, Expected(3, None, asked))
    longest = {}
    for name, written in export:
        longest[name.casefold()] = max(written, longest.get(name.casefold(), 0))
    assert [lead.email[0] for lead in judged.missing_leads] == [name for name in bought if name not in longest]
    assert judged.extra == len(export) - len(longest.keys() & set(bought))
    assert judged.short == (None if asked is None else sum(longest.get(name, asked) < asked for name in bought))


# --- texts


def test_nothing_is_said_of_a_whole_delivery():
    judged = judge(BACK, Expected.of([ANN, BEN], 2))
    assert incomplete(judged, "l1", None, "fail") is None
    assert warnings(judged, "l1", "/out.csv") == []
    assert incomplete(judge(BACK, Expected()), "l1", None, "fail") is None


@pytest.mark.parametrize("policy", ["fail", "warn"])
@pytest.mark.parametrize("path", ["/out.csv.missing.csv", None])
def test_what_is_said_of_missing_leads(path: str | None, policy: str):
    text = incomplete(judge(BACK, Expected.of([ANN, BEN, CAL])), "l1", path, policy)
    assert text.startswith("The export of list l1 lacks 1 of the 3 leads that were submitted and paid for;")
    assert ("The missing ones are in /out.csv.missing.csv: submit it with leads_path" in text) == bool(path)
    assert ("Only their number is known" in text) == (path is None)
    assert ("on_missing_leads='warn'" in text) == (policy == "fail")
    assert "MachFive support" in text
    assert "\n" not in text
    assert "cal" not in text.lower()


def test_what_is_said_of_the_rest():
    extra, short = warnings(judge(BACK, Expected.of([BEN], 3)), "l1", "/out.csv")
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

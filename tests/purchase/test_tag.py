"""The tag that every attempt of a purchase computes alike, and the list names that hold it."""

from __future__ import annotations

import re
from dataclasses import replace

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api.models import Lead, LeadList
from machfive_provider.purchase.purchase import Purchase, credits_needed
from machfive_provider.purchase.tag import Tag, is_tagged

LEADS = (Lead("a@example.com", name="A"), Lead("b@example.com"), Lead("c@example.com"))
PURCHASE = Purchase(
    "dag",
    "manual__2026",
    "generate",
    None,
    None,
    1,
    2,
    "campaign-1",
    LEADS,
    {"email_count": 3, "campaign_angle": "fair"},
)
TAG = re.compile(r"\[af1:[0-9a-f]{10}-[0-9a-f]{12}:[0-9]+\.[0-9]*\.[0-9a-f]{6}(#[0-9]+)?\]")


# --- the tag


def test_the_tag_is_what_earlier_releases_wrote():
    """A tag that changes with a release buys every batch in flight again."""
    assert str(PURCHASE.tag(1)) == "[af1:2a670e9df3-269fe8fc1467:2..7dcb23]"


@pytest.mark.parametrize(
    "same",
    [
        replace(PURCHASE, leads=LEADS[::-1]),
        replace(PURCHASE, options={"campaign_angle": "fair", "email_count": 3}),
        replace(PURCHASE, options={**PURCHASE.options, "list_name": "Spring fair"}),
        replace(PURCHASE, options={**PURCHASE.options, "notification_email": "me@example.com"}),
        replace(PURCHASE, since=pendulum.datetime(2026, 1, 1)),
        replace(PURCHASE, try_number=3, on_existing_list="fail", call="generate"),
    ],
    ids=["lead order", "option order", "list_name", "notification_email", "since", "try and policy"],
)
def test_the_tag_stays(same: Purchase):
    assert same.tag(1) == PURCHASE.tag(1)


@pytest.mark.parametrize("beside", [{"round": 5}, {"map_index": 3}], ids=str)
def test_round_and_map_index_are_told_beside_who_and_what(beside: dict[str, int]):
    (tag,) = Tag.all_in(replace(PURCHASE, **beside).list_name(replace(PURCHASE, **beside).tag(1)))
    assert tag == replace(PURCHASE.tag(1), **beside)
    assert (tag.who, tag.what) == (PURCHASE.who, PURCHASE.what)


CHANGES = {
    "dag": replace(PURCHASE, dag_id="other"),
    "run": replace(PURCHASE, run_id="other"),
    "task": replace(PURCHASE, task_id="other"),
    "namespace": replace(PURCHASE, namespace="prod"),
    "campaign": replace(PURCHASE, campaign_id="campaign-2"),
    "fewer leads": replace(PURCHASE, leads=LEADS[:2]),
    "a lead's field": replace(PURCHASE, leads=(replace(LEADS[0], title="CEO"), *LEADS[1:])),
    "a lead twice": replace(PURCHASE, leads=(*LEADS, LEADS[0])),
    "an option": replace(PURCHASE, options={**PURCHASE.options, "email_count": 4}),
    "one more option": replace(PURCHASE, options={**PURCHASE.options, "enrichment_enabled": True}),
    "no options": replace(PURCHASE, options={}),
    "the ids run together": replace(PURCHASE, dag_id="dagm", run_id="anual__2026"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_tag_changes(change: str):
    other = CHANGES[change]
    by_who = change in ("dag", "run", "task", "namespace", "the ids run together")
    assert (other.who != PURCHASE.who, other.what != PURCHASE.what) == (by_who, not by_who)


def test_all_changes_differ_from_each_other():
    assert len({(each.who, each.what) for each in CHANGES.values()}) == len(CHANGES)


# --- the name


def named(name: str | None) -> Purchase:
    return replace(PURCHASE, options={**PURCHASE.options, "list_name": name})


ROOM = 99 - len(str(PURCHASE.tag(1)))


@pytest.mark.parametrize(
    ("purchase", "shown"),
    [
        (PURCHASE, "dag generate"),
        (named(None), "dag generate"),
        (named("  "), "dag generate"),
        (named("  Spring fair "), "Spring fair"),
        (named("x" * ROOM), "x" * ROOM),
        (named("x" * 300), "x" * ROOM),
        (named("🦆" * 300), "🦆" * ROOM),
    ],
    ids=["default", "none", "blank", "given", "longest", "too long", "ducks"],
)
def test_the_name_shows_the_users_text_and_the_whole_tag(purchase: Purchase, shown: str):
    assert purchase.list_name(purchase.tag(1)) == f"{shown} {purchase.tag(1)}"
    assert ROOM >= 50


@given(st.text(max_size=200), st.integers(1, 10_000), st.integers(0, 10_000), st.none() | st.integers(0, 10_000))
def test_any_name_is_at_most_100_code_points_and_holds_the_tag(
    name: str, generation: int, round_: int, map_index: int | None
):
    purchase = replace(named(name), round=round_, map_index=map_index)
    tag = purchase.tag(generation)
    full = purchase.list_name(tag)
    assert len(full) <= 100
    assert full.endswith(str(tag))
    assert TAG.fullmatch(str(tag))
    assert purchase.tag_of(LeadList("l", "pending", custom_name=full)) == tag


@pytest.mark.parametrize("generation", [1, 17])
@pytest.mark.parametrize(
    "alter",
    [
        lambda name: f"{name} (2)",
        lambda name: f"Copy of {name}",
        lambda name: f"x{name}x".replace(" ", ""),
        lambda name: f"[af1:{'0' * 10}-{'0' * 12}:0..{'0' * 6}] {name}",
        lambda name: f"{CHANGES['fewer leads'].tag(1)} {name}",
        lambda name: f"[af1:broken {name}",
    ],
    ids=["suffix", "prefix", "no spaces", "another tag first", "another purchase first", "a broken tag first"],
)
def test_the_tag_is_found_in_an_altered_name(alter, generation: int):
    tag = PURCHASE.tag(generation)
    assert PURCHASE.tag_of(LeadList("l", "pending", custom_name=alter(PURCHASE.list_name(tag)))) == tag


def name_of(purchase: Purchase, generation: int = 1) -> str:
    return purchase.list_name(purchase.tag(generation))


@pytest.mark.parametrize(
    "name",
    [None, "", "Spring fair", name_of(CHANGES["run"]), name_of(CHANGES["namespace"]), name_of(PURCHASE)[:-1]],
    ids=["none", "empty", "no tag", "another run", "another namespace", "cut"],
)
def test_lists_of_others_have_no_tag_of_ours(name: str | None):
    assert PURCHASE.tag_of(LeadList("l", "pending", custom_name=name)) is None


@pytest.mark.parametrize("change", ["fewer leads", "an option", "campaign"])
def test_another_purchase_of_the_same_task_is_told_apart(change: str):
    tag = PURCHASE.tag_of(LeadList("l", "pending", custom_name=f"Copy of {name_of(CHANGES[change], 3)} (2)"))
    assert tag == CHANGES[change].tag(3)
    assert tag.is_of_same_task(PURCHASE.tag(1))
    assert not replace(tag, round=9).is_of_same_task(PURCHASE.tag(1))
    assert not replace(tag, map_index=9).is_of_same_task(PURCHASE.tag(1))


def test_the_same_purchase_concerns_us_in_any_round_and_shard():
    assert replace(PURCHASE.tag(2), round=9, map_index=9).is_of_same_task(PURCHASE.tag(1))
    assert not CHANGES["run"].tag(1).is_of_same_task(PURCHASE.tag(1))


def may_be_cut_off(name: str | None) -> bool:
    return PURCHASE.may_be_cut_off(LeadList("l", "pending", custom_name=name))


@pytest.mark.parametrize("generation", [1, 17])
@pytest.mark.parametrize("purchase", [PURCHASE, replace(PURCHASE, round=11, map_index=7)], ids=["alone", "mapped"])
def test_a_tag_cut_anywhere_may_be_ours(purchase: Purchase, generation: int):
    full = name_of(purchase, generation)
    begins = full.index("[af1:")
    for length in range(begins + len("[af1:"), len(full)):
        assert may_be_cut_off(full[:length]), full[:length]
        assert is_tagged(full[:length])
    assert is_tagged(f"{full} (2)")
    assert not is_tagged(full[:begins])
    assert not may_be_cut_off(full)  # whole: recognised, not guessed
    assert not may_be_cut_off(full[:begins])  # no trace left of it


@pytest.mark.parametrize(
    "name",
    [
        None,
        "Spring fair",
        name_of(CHANGES["run"])[:-3],
        name_of(CHANGES["campaign"])[:-1],
        f"{name_of(PURCHASE)[:-3]} (2)",
    ],
    ids=["none", "no tag", "another run's", "other leads'", "not at the end"],
)
def test_and_others_may_not(name: str | None):
    assert not may_be_cut_off(name)


def test_credits():
    assert credits_needed(len(LEADS), {"enrichment_enabled": False, "email_count": 5}) == 3
    assert credits_needed(len(LEADS), {"enrichment_enabled": True}) == 6

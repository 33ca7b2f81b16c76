"""The tag that every attempt of a purchase computes alike, and the list names that hold it."""

from __future__ import annotations

import re
from dataclasses import replace

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api.models import Lead, LeadList
from machfive_provider.purchase.tag import Intent, Origin

ORIGIN = Origin("dag", "manual__2026-02-03", "generate")
LEADS = (Lead("a@example.com", name="A"), Lead("b@example.com"), Lead("c@example.com"))
INTENT = Intent(ORIGIN, "campaign-1", LEADS, {"email_count": 3, "campaign_angle": "fair"})
TAG = re.compile(r"\[af1:[0-9a-f]{10}-[0-9a-f]{12}(#[0-9]+)?\]")


# --- the tag


def test_the_tag_is_what_earlier_releases_wrote():
    """A tag that changes with a release buys every batch in flight again."""
    assert INTENT.tag(1) == "[af1:58a46ae9b8-269fe8fc1467]"


@pytest.mark.parametrize(
    "same",
    [
        replace(INTENT, leads=LEADS[::-1]),
        replace(INTENT, options={"campaign_angle": "fair", "email_count": 3}),
        replace(INTENT, options={**INTENT.options, "list_name": "Spring fair"}),
        replace(INTENT, options={**INTENT.options, "notification_email": "me@example.com"}),
        replace(INTENT, since=pendulum.datetime(2026, 1, 1)),
    ],
    ids=["lead order", "option order", "list_name", "notification_email", "since"],
)
def test_the_tag_stays(same: Intent):
    assert same.base == INTENT.base


CHANGES = {
    "dag": replace(INTENT, origin=replace(ORIGIN, dag_id="other")),
    "run": replace(INTENT, origin=replace(ORIGIN, run_id="other")),
    "task": replace(INTENT, origin=replace(ORIGIN, task_id="other")),
    "namespace": replace(INTENT, origin=replace(ORIGIN, namespace="prod")),
    "round": replace(INTENT, origin=replace(ORIGIN, round=1)),
    "campaign": replace(INTENT, campaign_id="campaign-2"),
    "fewer leads": replace(INTENT, leads=LEADS[:2]),
    "a lead's field": replace(INTENT, leads=(replace(LEADS[0], title="CEO"), *LEADS[1:])),
    "a lead twice": replace(INTENT, leads=(*LEADS, LEADS[0])),
    "an option": replace(INTENT, options={**INTENT.options, "email_count": 4}),
    "one more option": replace(INTENT, options={**INTENT.options, "enrichment_enabled": True}),
    "no options": replace(INTENT, options={}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_tag_changes(change: str):
    who, what = INTENT.base.split("-")
    other_who, other_what = CHANGES[change].base.split("-")
    by_who = change in ("dag", "run", "task", "namespace", "round")
    assert (other_who != who, other_what != what) == (by_who, not by_who)


def test_all_changes_differ_from_each_other():
    assert len({each.base for each in CHANGES.values()}) == len(CHANGES)


def test_neighbouring_ids_do_not_run_together():
    one = replace(INTENT, origin=Origin("ab", "c", "d"))
    other = replace(INTENT, origin=Origin("a", "bc", "d"))
    assert one.base != other.base


@pytest.mark.parametrize(("generation", "ending"), [(1, "]"), (2, "#2]"), (10, "#10]")])
def test_generations(generation: int, ending: str):
    tag = INTENT.tag(generation)
    assert TAG.fullmatch(tag)
    assert tag == f"[af1:{INTENT.base}{ending}"


# --- the name


def named(name) -> Intent:
    return replace(INTENT, options={**INTENT.options, "list_name": name})


@pytest.mark.parametrize(
    ("intent", "shown"),
    [
        (INTENT, "dag generate"),
        (named(None), "dag generate"),
        (named(""), "dag generate"),
        (named("Spring fair"), "Spring fair"),
        (named("  Spring fair "), "Spring fair"),
        (named("x" * 70), "x" * 70),
        (named("x" * 71), "x" * 70),
        (named("é" * 300), "é" * 70),
        (named("🦆" * 300), "🦆" * 70),
    ],
    ids=["default", "none", "empty", "given", "spaces", "longest", "too long", "accents", "ducks"],
)
def test_the_name_shows_the_users_text_and_the_whole_tag(intent: Intent, shown: str):
    assert intent.list_name(1) == f"{shown} {INTENT.tag(1)}"


@given(st.text(max_size=200), st.integers(1, 10_000))
def test_any_name_is_at_most_100_code_points_and_holds_the_tag(name: str, generation: int):
    intent = named(name)
    full = intent.list_name(generation)
    assert len(full) <= 100
    assert full.endswith(intent.tag(generation))
    assert intent.generation_of(LeadList("l", "pending", custom_name=full)) == generation


@pytest.mark.parametrize("generation", [1, 2, 17])
@pytest.mark.parametrize(
    "alter",
    [
        lambda name: name,
        lambda name: f"{name} (2)",
        lambda name: f"Copy of {name}",
        lambda name: f"x{name}x".replace(" ", ""),
        lambda name: name[name.index("[") :],
        lambda name: f"[af1:{'0' * 10}-{'0' * 12}] {name}",
        lambda name: f"[af1:broken {name}",
    ],
    ids=["as sent", "suffix", "prefix", "no spaces", "tag alone", "another tag first", "a broken tag first"],
)
def test_the_tag_is_found_in_an_altered_name(alter, generation: int):
    lead_list = LeadList("l", "pending", custom_name=alter(INTENT.list_name(generation)))
    assert INTENT.generation_of(lead_list) == generation


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "Spring fair",
        CHANGES["run"].list_name(1),
        CHANGES["campaign"].list_name(1),
        INTENT.list_name(1)[:-1],
        INTENT.list_name(1).replace("af1", "af2"),
        INTENT.list_name(1).replace("-", ""),
    ],
    ids=["none", "empty", "no tag", "another run", "other leads", "cut", "another format", "no dash"],
)
def test_other_lists_are_not_ours(name: str | None):
    assert INTENT.generation_of(LeadList("l", "pending", custom_name=name)) is None


# --- what else a name may tell


def shown(name: str | None) -> LeadList:
    return LeadList("l", "pending", custom_name=name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (None, False),
        ("Spring fair", False),
        (INTENT.list_name(1), False),
        (INTENT.list_name(2), False),
        (CHANGES["fewer leads"].list_name(1), True),
        (CHANGES["an option"].list_name(3), True),
        (CHANGES["campaign"].list_name(1), True),
        (f"Copy of {CHANGES['campaign'].list_name(1)} (2)", True),
        (CHANGES["run"].list_name(1), False),
        (CHANGES["namespace"].list_name(1), False),
        (CHANGES["round"].list_name(1), False),
        (CHANGES["fewer leads"].list_name(1)[:-1], False),
    ],
    ids=[
        "none",
        "no tag",
        "ours",
        "our second generation",
        "other leads",
        "other options",
        "other campaign",
        "altered",
        "another run",
        "another namespace",
        "another round",
        "cut",
    ],
)
def test_another_purchase_of_the_same_task_is_told_apart(name: str | None, other: bool):
    assert INTENT.is_other_purchase(shown(name)) is other


@pytest.mark.parametrize("generation", [1, 2, 17])
@pytest.mark.parametrize("text", ["Spring fair", "x" * 200, "é" * 200, ""], ids=["short", "long", "accents", "default"])
def test_a_tag_cut_anywhere_may_be_ours(text: str, generation: int):
    intent = named(text)
    full = intent.list_name(generation)
    begins = full.index("[af1:")
    for length in range(begins + len("[af1:"), len(full)):
        assert intent.has_cut_tag(shown(full[:length])), full[:length]
    assert not intent.has_cut_tag(shown(full))  # whole: recognised, not guessed
    assert not intent.has_cut_tag(shown(full[:begins]))  # no trace left of it


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "Spring fair",
        CHANGES["run"].list_name(1)[:-3],
        CHANGES["campaign"].list_name(1)[:-1],
        f"{INTENT.list_name(1)[:-3]} (2)",
    ],
    ids=["none", "empty", "no tag", "another run's", "other leads'", "not at the end"],
)
def test_and_others_may_not(name: str | None):
    assert not INTENT.has_cut_tag(shown(name))


def test_a_tag_names_its_leads_whoever_bought_them():
    assert INTENT.is_tagged(INTENT.tag(2))
    assert INTENT.is_tagged(CHANGES["namespace"].tag(1))
    assert not INTENT.is_tagged(CHANGES["fewer leads"].tag(1))

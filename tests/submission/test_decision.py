"""The pure parts of buying once: the tag that every attempt computes alike, and the decision."""

from __future__ import annotations

import re
from dataclasses import replace

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider import errors
from machfive_provider.api.models import Lead, LeadList
from machfive_provider.submission import EXISTING_POLICIES, Adopt, Buy, Intent, Origin, credits_needed, decide

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


# --- the decision


def entry(id_: str, status: str, minute: int | None = 0, generation: int = 1) -> tuple[int, LeadList]:
    created = None if minute is None else pendulum.datetime(2026, 2, 3, 4, minute)
    return generation, LeadList(id_, status, created_at=created)


def test_nothing_found_is_bought():
    assert decide([]) == Buy(1)


@pytest.mark.parametrize("policy", ["adopt", "resubmit"])
@pytest.mark.parametrize(
    ("found", "chosen", "surplus"),
    [
        ([entry("a", "pending")], "a", ()),
        ([entry("a", "processing")], "a", ()),
        ([entry("a", "completed")], "a", ()),
        ([entry("a", "archived")], "a", ()),
        ([entry("a", "pending", 1), entry("b", "completed", 9)], "b", ("a",)),
        ([entry("a", "failed", 1), entry("b", "pending", 9)], "b", ()),
        ([entry("a", "failed", 1), entry("b", "completed", 9)], "b", ()),
        ([entry("a", "pending", 9), entry("b", "processing", 1)], "b", ("a",)),
        ([entry("a", "completed", 9), entry("b", "completed", 1), entry("c", "pending", 0)], "b", ("a", "c")),
        ([entry("b", "pending", 1), entry("a", "pending", 1)], "a", ("b",)),
        ([entry("a", "pending", 1), entry("b", "pending", 2), entry("c", "pending", 3)], "a", ("b", "c")),
        ([entry("a", "failed", 1), entry("b", "processing", 2, generation=2)], "b", ()),
        ([entry("a", "processing", 1), entry("b", "completed", 2, generation=2)], "b", ("a",)),
    ],
    ids=[
        "pending",
        "processing",
        "completed",
        "unknown status",
        "completed beats running",
        "running beats failed",
        "completed beats failed",
        "oldest running",
        "oldest completed",
        "same age",
        "three",
        "second generation",
        "a first that healed",
    ],
)
def test_what_is_there_is_adopted(found, chosen: str, surplus: tuple[str, ...], policy: str):
    generations = {each.id: generation for generation, each in found}
    for order in (found, found[::-1]):
        decision = decide(order, policy)
        assert isinstance(decision, Adopt)
        assert (decision.lead_list.id, decision.surplus) == (chosen, surplus)
        assert decision.generation == generations[chosen]


@pytest.mark.parametrize(
    ("failed_generations", "max_resubmissions", "generation"),
    [([1], 1, 2), ([1, 1], 1, 2), ([1], 5, 2), ([1, 2], 2, 3), ([2], 2, 3), ([1, 2, 3], 3, 4)],
)
def test_what_failed_is_bought_again(failed_generations, max_resubmissions: int, generation: int):
    found = [entry(f"l{number}", "failed", number, each) for number, each in enumerate(failed_generations)]
    assert decide(found, max_resubmissions=max_resubmissions) == Buy(generation)
    assert decide(found, "fail", max_resubmissions) == Buy(generation)


@pytest.mark.parametrize(
    ("failed_generations", "max_resubmissions"), [([1], 0), ([1, 2], 1), ([2], 1), ([1, 2, 3], 2), ([1, 2, 3], 0)]
)
def test_but_not_for_ever(failed_generations, max_resubmissions: int):
    found = [entry(f"l{number}", "failed", number, each) for number, each in enumerate(failed_generations)]
    with pytest.raises(errors.ListFailedError) as caught:
        decide(found[::-1], max_resubmissions=max_resubmissions)
    assert f"was bought {failed_generations[-1]} times" in caught.value.message
    assert f"the last: l{len(found) - 1})" in caught.value.message


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "archived"])
def test_fail_refuses_what_is_there(status: str):
    with pytest.raises(errors.MachFivePermanentError, match=rf"already bought, as list a \({status}\)"):
        decide([entry("a", status)], "fail")


def test_the_policies():
    assert EXISTING_POLICIES == ("adopt", "resubmit", "fail")


statuses = st.sampled_from(["pending", "processing", "completed", "failed", "archived"])
found_lists = st.lists(
    st.tuples(statuses, st.none() | st.integers(0, 59), st.integers(1, 3)), min_size=1, max_size=6
).map(lambda rows: [entry(f"l{number}", *row) for number, row in enumerate(rows)])


@given(found_lists, st.randoms())
def test_all_attempts_decide_alike_and_never_buy_over_what_lives(found, random):
    shuffled = random.sample(found, len(found))
    decision = decide(found, max_resubmissions=9)
    assert decide(shuffled, max_resubmissions=9) == decision
    alive = [each for _, each in found if not each.is_failed]
    if alive:
        assert isinstance(decision, Adopt)
        assert {decision.lead_list.id, *decision.surplus} == {each.id for each in alive}
        assert decision.lead_list.is_completed == any(each.is_completed for each in alive)
    else:
        assert decision == Buy(max(generation for generation, _ in found) + 1)


@pytest.mark.parametrize(
    ("options", "credits_"),
    [({}, 3), ({"enrichment_enabled": False}, 3), ({"enrichment_enabled": True}, 6), ({"email_count": 5}, 3)],
    ids=str,
)
def test_credits(options, credits_: int):
    assert credits_needed(LEADS, options) == credits_
    assert credits_needed((), options) == 0

"""The pure decision: use what is there, pay, or look on."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.api.models import Lead, LeadList
from machfive_provider.formatting import counted
from machfive_provider.purchase.buy import credits_needed
from machfive_provider.purchase.decision import (
    BATCH_SHOWS_WITHIN,
    EXISTING_POLICIES,
    GENERATE_SHOWS_WITHIN,
    Adopt,
    Buy,
    History,
    Policy,
    SearchResult,
    WaitForUnanswered,
    decide_purchase,
)
from machfive_provider.purchase.record import RecordStore
from machfive_provider.purchase.tag import Intent, Origin
from tests.tasks import StateStore

ORIGIN = Origin("dag", "manual__2026-02-03", "generate")
LEADS = (Lead("a@example.com", name="A"), Lead("b@example.com"), Lead("c@example.com"))
INTENT = Intent(ORIGIN, "campaign-1", LEADS, {"email_count": 3})
NOW = pendulum.datetime(2026, 2, 3, 5).timestamp()
RETRY = History(try_number=2)


def records(store: StateStore | None = None, intent: Intent = INTENT) -> RecordStore:
    """Give what a try recalls; without a store, nothing that can be believed."""
    recalled = RecordStore(store, intent.base, logging.getLogger(__name__))
    recalled.read()
    return recalled


def sent(generation: int = 1, intent: Intent = INTENT) -> RecordStore:
    """Give what a try recalls after an earlier one was about to buy a generation."""
    store = StateStore()
    records(store, intent).write_intent(intent.tag(generation), generation)
    return records(store, intent)


def outcome(found: Any = (), history: History = History(), known: RecordStore | None = None, **given_: Any) -> Any:  # noqa: B008 - frozen
    """Decide, with whatever the test does not care for at its plainest."""
    seen = SearchResult(tuple(found), tuple(given_.pop("others", ())), tuple(given_.pop("cut", ())))
    policy, intent, now = given_.pop("policy", Policy()), given_.pop("intent", INTENT), given_.pop("now", NOW)
    assert not given_
    return decide_purchase(intent, seen, history, known or records(intent=intent), policy, now)


# --- what is there


def entry(id_: str, status: str, minute: int | None = 0, generation: int = 1) -> tuple[int, LeadList]:
    created = None if minute is None else pendulum.datetime(2026, 2, 3, 4, minute)
    return generation, LeadList(id_, status, created_at=created)


def test_nothing_found_is_bought():
    assert outcome() == Buy(1)


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
        decision = outcome(order, policy=Policy(policy))
        assert isinstance(decision, Adopt)
        assert (decision.lead_list.id, decision.surplus) == (chosen, surplus)
        assert decision.generation == generations[chosen]


@pytest.mark.parametrize(
    ("failed_generations", "max_resubmissions", "generation"),
    [([1], 1, 2), ([1, 1], 1, 2), ([1], 5, 2), ([1, 2], 2, 3), ([2], 2, 3), ([1, 2, 3], 3, 4)],
)
def test_what_failed_is_bought_again(failed_generations, max_resubmissions: int, generation: int):
    found = [entry(f"l{number}", "failed", number, each) for number, each in enumerate(failed_generations)]
    for what in EXISTING_POLICIES:
        assert outcome(found, policy=Policy(what, max_resubmissions)) == Buy(generation)


@pytest.mark.parametrize(
    ("failed_generations", "max_resubmissions"), [([1], 0), ([1, 2], 1), ([2], 1), ([1, 2, 3], 2), ([1, 2, 3], 0)]
)
def test_but_not_for_ever(failed_generations, max_resubmissions: int):
    found = [entry(f"l{number}", "failed", number, each) for number, each in enumerate(failed_generations)]
    with pytest.raises(exceptions.ListFailedError) as caught:
        outcome(found[::-1], policy=Policy("adopt", max_resubmissions))
    assert f"was bought {counted(failed_generations[-1], 'time')}" in caught.value.message
    assert f"the last: l{len(found) - 1})" in caught.value.message


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "archived"])
def test_fail_refuses_what_is_there(status: str):
    with pytest.raises(exceptions.MachFivePermanentError, match=rf"already bought, as list a \({status}\)"):
        outcome([entry("a", status)], policy=Policy("fail"))


def test_the_policies():
    assert EXISTING_POLICIES == ("adopt", "resubmit", "fail")


statuses = st.sampled_from(["pending", "processing", "completed", "failed", "archived"])
found_lists = st.lists(
    st.tuples(statuses, st.none() | st.integers(0, 59), st.integers(1, 3)), min_size=1, max_size=6
).map(lambda rows: [entry(f"l{number}", *row) for number, row in enumerate(rows)])


@given(found_lists, st.randoms())
def test_all_attempts_decide_alike_and_never_buy_over_what_lives(found, random):
    shuffled = random.sample(found, len(found))
    decision = outcome(found, policy=Policy("adopt", 9))
    assert outcome(shuffled, policy=Policy("adopt", 9)) == decision
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


# --- absent: buy, or look on


@pytest.mark.parametrize("store", [None, StateStore()], ids=["no store", "store"])
def test_the_first_try_buys_at_once(store: StateStore | None):
    assert outcome(known=records(store)) == Buy(1)


@pytest.mark.parametrize("settling", [BATCH_SHOWS_WITHIN, GENERATE_SHOWS_WITHIN])
def test_a_retry_buys_only_after_the_settling_time(settling: float):
    first = replace(RETRY, shows_within=settling)
    looking_on = outcome(history=first)
    assert looking_on == WaitForUnanswered(1, NOW, NOW + settling)
    later = replace(first, absent_since=looking_on.absent_since)
    assert outcome(history=later, now=NOW + settling - 0.001) == looking_on
    assert outcome(history=later, now=NOW + settling) == Buy(1, in_doubt=True)
    assert outcome(history=later, now=NOW + 10 * settling) == Buy(1, in_doubt=True)


def test_a_list_that_turns_up_meanwhile_is_adopted():
    decision = outcome([entry("a", "pending")], replace(RETRY, absent_since=NOW - 1000))
    assert isinstance(decision, Adopt)


def test_a_store_that_works_and_is_empty_vouches_for_it():
    assert outcome(history=RETRY, known=records(StateStore())) == Buy(1)


def test_a_store_that_cannot_be_read_vouches_for_nothing():
    class Broken(StateStore):
        def get(self, key: str, default: Any = None) -> Any:
            raise OSError(key)

    assert isinstance(outcome(history=RETRY, known=records(Broken())), WaitForUnanswered)


def test_an_intent_on_record_is_looked_for():
    assert outcome(history=RETRY, known=sent()) == WaitForUnanswered(1, NOW, NOW + BATCH_SHOWS_WITHIN)


def test_an_intent_of_an_earlier_generation_is_not_this_one():
    failed = [entry("a", "failed")]
    assert outcome(failed, RETRY, sent(1)) == Buy(2)
    assert outcome(failed, RETRY, sent(2)) == WaitForUnanswered(2, NOW, NOW + BATCH_SHOWS_WITHIN)


def test_an_intent_of_a_later_generation_counts_though_the_failed_list_is_gone():
    assert outcome(history=RETRY, known=sent(2)) == WaitForUnanswered(1, NOW, NOW + BATCH_SHOWS_WITHIN)


def test_the_store_of_one_shard_says_nothing_of_another():
    """Shards may come in another order: the POST may stand in the store of the map index that had these leads."""
    assert outcome(history=replace(RETRY, mapped=True), known=records(StateStore())) == WaitForUnanswered(
        1, NOW, NOW + BATCH_SHOWS_WITHIN
    )


def test_a_record_that_is_none_counts_as_none():
    store = StateStore()
    store.set(f"machfive_{INTENT.base}", {"phase": "from another release"})
    assert outcome(history=RETRY, known=records(store)) == Buy(1)


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_every_generation_settles(generation: int):
    failed = [entry(f"l{number}", "failed", number, number) for number in range(1, generation)]
    policy = Policy("adopt", 5)
    assert outcome(failed, RETRY, policy=policy) == WaitForUnanswered(generation, NOW, NOW + BATCH_SHOWS_WITHIN)
    waited = replace(RETRY, absent_since=NOW - BATCH_SHOWS_WITHIN)
    assert outcome(failed, waited, policy=policy) == Buy(generation, in_doubt=True)


def test_a_retry_that_may_not_buy_again_does_not_look_on_first():
    with pytest.raises(exceptions.ListFailedError):
        outcome([entry("a", "failed")], RETRY, policy=Policy("adopt", 0))


# --- rounds: what a clear changes


@pytest.mark.parametrize(
    ("try_number", "round_", "opens"),
    [(1, 0, True), (2, 0, False), (3, 0, False), (2, 1, True), (3, 1, False), (5, 4, True), (6, 4, False)],
    ids=str,
)
def test_which_try_opens_a_round(try_number: int, round_: int, opens: bool):
    assert History(try_number=try_number, round=round_).opens_round is opens


def test_a_clear_looks_on_too_unless_its_tag_is_new():
    cleared = History(try_number=2, round=1)
    assert isinstance(outcome(history=cleared), WaitForUnanswered)
    again = replace(INTENT, origin=replace(ORIGIN, round=1))
    assert outcome(history=cleared, intent=again) == Buy(1)
    assert isinstance(outcome(history=replace(cleared, try_number=3), intent=again), WaitForUnanswered)


OTHER = replace(INTENT, leads=LEADS[:2])
BEGAN = pendulum.datetime(2026, 2, 3, 4, 30)


def other(status: str = "processing", minute: int | None = 45, intent: Intent = OTHER) -> LeadList:
    return replace(entry("other", status, minute)[1], custom_name=intent.list_name(1))


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "archived"])
@pytest.mark.parametrize("began", [None, BEGAN], ids=["began unknown", "began known"])
@pytest.mark.parametrize("known", [None, records(StateStore())], ids=["no store", "store"])
def test_leads_that_change_between_two_tries_are_not_bought(status: str, began: Any, known: RecordStore | None):
    with pytest.raises(exceptions.MachFivePermanentError, match="leads or options changed") as caught:
        outcome(history=replace(RETRY, round_began=began), known=known, others=[other(status)])
    for named in ("list other", OTHER.tag(1), INTENT.tag(1), status, "clear the task"):
        assert named in caught.value.message


@pytest.mark.parametrize(
    ("history", "each"),
    [
        (replace(RETRY, mapped=True), other()),
        (History(try_number=1), other()),
        (History(try_number=2, round=1), other()),
        (History(try_number=7, round=6, round_began=BEGAN), other()),
        (RETRY, other("failed")),
        (History(try_number=3, round=1, round_began=BEGAN), other(minute=10)),
    ],
    ids=["another shard's", "first try", "after a clear", "after six tries", "failed", "of an earlier round"],
)
def test_but_they_are_where_that_is_no_accident(history: History, each: LeadList):
    decision = outcome(history=history, known=records(StateStore()), others=[each])
    assert decision == (WaitForUnanswered(1, NOW, NOW + BATCH_SHOWS_WITHIN) if history.mapped else Buy(1))


@pytest.mark.parametrize(
    ("seconds", "refused"), [(0, True), (-59, True), (-61, False)], ids=["same time", "clocks differ", "before"]
)
def test_a_list_of_the_moment_the_round_began_is_of_the_round(seconds: int, refused: bool):
    each = replace(other(), created_at=BEGAN.add(seconds=seconds))
    history = History(try_number=3, round=1, round_began=BEGAN)
    if refused:
        with pytest.raises(exceptions.MachFivePermanentError):
            outcome(history=history, known=records(StateStore()), others=[each])
    else:
        assert outcome(history=history, known=records(StateStore()), others=[each]) == Buy(1)


def test_a_list_without_a_time_counts_as_of_this_round():
    with pytest.raises(exceptions.MachFivePermanentError):
        outcome(history=replace(RETRY, round_began=BEGAN), others=[other(minute=None)])


def test_with_resubmit_the_tag_tells_the_rounds_apart():
    """What carries this round's tag is of this round, whenever the run began."""
    again, changed = (replace(each, origin=replace(ORIGIN, round=1)) for each in (INTENT, OTHER))
    history = History(try_number=3, round=1, round_began=BEGAN)
    with pytest.raises(exceptions.MachFivePermanentError):
        outcome(history=history, intent=again, others=[other(minute=10, intent=changed)])


def test_what_is_ours_wins_over_what_changed():
    assert isinstance(outcome([entry("a", "pending")], RETRY, others=[other()]), Adopt)


# --- names that the server cut


CUT = LeadList("cut-1", "processing", custom_name=INTENT.list_name(1)[:-5])


@pytest.mark.parametrize("known", [records(), sent()], ids=["no store", "store"])
@pytest.mark.parametrize("absent_since", [None, NOW - 9999], ids=["first look", "after settling"])
def test_a_cut_tag_makes_absence_mean_nothing(known: RecordStore, absent_since: float | None):
    with pytest.raises(exceptions.AmbiguousSubmissionError, match="names of lists cut-1, cut-2 were cut") as caught:
        outcome(history=replace(RETRY, absent_since=absent_since), known=known, cut=[CUT, replace(CUT, id="cut-2")])
    assert caught.value.retryable
    assert INTENT.tag(1) in caught.value.message
    assert "nothing was sent" in caught.value.message


@pytest.mark.parametrize(
    ("history", "known"), [(History(), records()), (RETRY, records(StateStore()))], ids=["first try", "empty store"]
)
def test_but_not_where_nothing_can_have_been_sent(history: History, known: RecordStore):
    assert outcome(history=history, known=known, cut=[CUT]) == Buy(1)


def test_and_not_where_ours_is_there():
    assert isinstance(outcome([entry("a", "completed")], RETRY, cut=[CUT]), Adopt)

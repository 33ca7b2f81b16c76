"""What the enumeration of small worlds does not see: which list is used, mapped tasks, changed leads, messages."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pendulum
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.api.models import Lead, LeadList
from machfive_provider.purchase.buy import credits_needed
from machfive_provider.purchase.decision import (
    BATCH_SHOWS_WITHIN,
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
WAIT = WaitForUnanswered(1, NOW, NOW + BATCH_SHOWS_WITHIN)


def records(store: StateStore | None = None) -> RecordStore:
    """Return the records as a try has read them; None is an Airflow without a state store."""
    read = RecordStore(store, INTENT.base, logging.getLogger(__name__))
    read.read()
    return read


def empty() -> RecordStore:
    """Return the records of a store that works and holds nothing: no POST was sent."""
    return records(StateStore())


def sent(generation: int = 1) -> RecordStore:
    """Return the records after an earlier try was about to buy a generation."""
    store = StateStore()
    records(store).write_intent(INTENT.tag(generation), generation)
    return records(store)


def decide(
    history: History = RETRY,
    known: RecordStore | None = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    intent: Intent = INTENT,
    now: float = NOW,
    **search: Any,
) -> Adopt | Buy | WaitForUnanswered:
    """Decide for a retry that found nothing in Airflow or MachFive, short of what the test sets."""
    return decide_purchase(intent, SearchResult(**search), history, known or records(), policy, now)


def entry(id_: str, status: str, minute: int | None = 0, generation: int = 1) -> tuple[int, LeadList]:
    created = None if minute is None else pendulum.datetime(2026, 2, 3, 4, minute)
    return generation, LeadList(id_, status, created_at=created)


# --- rules 1 and 2: lists of this purchase

statuses = st.sampled_from(["pending", "processing", "completed", "failed", "archived"])
found_lists = st.lists(st.tuples(statuses, st.none() | st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=6)


@given(found_lists, st.randoms(), st.sampled_from(["adopt", "resubmit", "fail"]))
def test_the_same_list_is_chosen_whatever_the_order_of_the_search(rows: Any, random: Any, on_existing_list: str):
    found = [entry(f"l{number}", *row) for number, row in enumerate(rows)]
    usable = [each for each in found if not each[1].is_failed]
    matching, policy = tuple(random.sample(found, len(found))), Policy(on_existing_list, 9)
    assume(usable)
    earliest = pendulum.datetime(1970, 1, 1)
    best = min(usable, key=lambda each: (not each[1].is_completed, each[1].created_at or earliest, each[1].id))
    if on_existing_list == "fail":
        with pytest.raises(exceptions.MachFivePermanentError, match=f"already bought, as list {best[1].id} "):
            decide(policy=policy, matching=matching)
        return
    decision = decide(policy=policy, matching=matching)
    assert isinstance(decision, Adopt)
    assert (decision.generation, decision.lead_list) == best
    assert {best[1].id, *decision.duplicates} == {each.id for _, each in usable}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 4))
def test_what_failed_is_bought_again_but_not_for_ever(generations: list[int], max_resubmissions: int):
    matching = tuple(entry(f"l{each}", "failed", generation=each) for each in generations)
    policy, last = Policy("adopt", max_resubmissions), max(generations)
    if last <= max_resubmissions:
        assert decide(known=empty(), policy=policy, matching=matching) == Buy(last + 1)
        return
    with pytest.raises(exceptions.ListFailedError, match=rf"was bought {last} times? .* \(the last: l{last}\)"):
        decide(policy=policy, matching=matching)


# --- rule 3: leads that changed under a retry

OTHER = replace(INTENT, leads=LEADS[:2])
BEGAN = pendulum.datetime(2026, 2, 3, 4, 30)
LATER_ROUND = History(try_number=3, round=1, round_began=BEGAN)


def other(status: str = "processing", created_at: Any = BEGAN, intent: Intent = OTHER) -> LeadList:
    return LeadList("other", status, created_at=created_at, custom_name=intent.list_name(1))


@pytest.mark.parametrize(
    ("history", "each"),
    [
        (RETRY, other("archived")),
        (replace(RETRY, round_began=BEGAN), other("completed", None)),
        (LATER_ROUND, other()),
        (LATER_ROUND, other(created_at=BEGAN.subtract(seconds=59))),
    ],
    ids=["round unknown", "age unknown", "of this round", "clocks differ"],
)
def test_leads_that_change_between_two_tries_are_not_bought(history: History, each: LeadList):
    for known in (records(), empty()):
        with pytest.raises(exceptions.MachFivePermanentError, match="leads or options changed") as caught:
            decide(history, known, other_purchases=(each,))
        for named in ("list other", OTHER.tag(1), INTENT.tag(1), each.processing_status, "clear the task"):
            assert named in caught.value.message


@pytest.mark.parametrize(
    ("history", "each", "decision"),
    [
        (replace(RETRY, mapped=True), other(), WAIT),
        (History(), other(), Buy(1)),
        (History(try_number=2, round=1), other(), Buy(1)),
        (RETRY, other("failed"), Buy(1)),
        (LATER_ROUND, other(created_at=BEGAN.subtract(seconds=61)), Buy(1)),
    ],
    ids=["another map index", "first try", "after a clear", "failed", "of an earlier round"],
)
def test_other_leads_are_bought_where_that_is_no_accident(history: History, each: LeadList, decision: Any):
    assert decide(history, empty(), other_purchases=(each,)) == decision


def test_with_resubmit_the_tag_tells_the_rounds_apart():
    """What carries this round's tag is of this round, whenever the run began."""
    again, changed = (replace(each, origin=replace(ORIGIN, round=1)) for each in (INTENT, OTHER))
    with pytest.raises(exceptions.MachFivePermanentError):
        decide(LATER_ROUND, intent=again, other_purchases=(other(created_at=BEGAN.subtract(hours=1), intent=changed),))


# --- rules 4, 6 and 7: a POST that may be unanswered


@pytest.mark.parametrize("shows_within", [BATCH_SHOWS_WITHIN, GENERATE_SHOWS_WITHIN])
def test_an_unanswered_purchase_is_waited_for_and_then_bought(shows_within: float):
    first = replace(RETRY, shows_within=shows_within)
    assert decide(first) == WaitForUnanswered(1, NOW, NOW + shows_within)
    later = replace(first, absent_since=NOW)
    assert decide(later, now=NOW + shows_within - 0.001) == WaitForUnanswered(1, NOW, NOW + shows_within)
    assert decide(later, now=NOW + shows_within) == Buy(1, may_be_duplicate=True)


class Unreadable(StateStore):
    def get(self, key: str, default: Any = None) -> Any:
        raise OSError(key)


FAILED = (entry("a", "failed"),)
RESUBMIT = replace(INTENT, origin=replace(ORIGIN, round=1))


@pytest.mark.parametrize(
    ("facts", "waits"),
    [
        ({"history": History(), "known": records()}, False),
        ({"known": empty()}, False),
        ({"known": records(Unreadable())}, True),
        ({"known": sent()}, True),
        ({"known": sent(1), "matching": FAILED}, False),
        ({"known": sent(2), "matching": FAILED}, True),
        ({"known": sent(2)}, True),
        ({"history": replace(RETRY, mapped=True), "known": empty()}, True),
        ({"history": History(try_number=2, round=1)}, True),
        ({"history": History(try_number=2, round=1), "intent": RESUBMIT}, False),
        ({"history": History(try_number=3, round=1), "intent": RESUBMIT}, True),
    ],
    ids=[
        "first try",
        "empty store",
        "unreadable store",
        "intent",
        "intent of the failed generation",
        "intent of the next generation",
        "the failed list was deleted",
        "mapped",
        "cleared",
        "cleared, and the tag is new",
        "the retry after that",
    ],
)
def test_whether_an_earlier_post_may_be_unanswered(facts: dict[str, Any], waits: bool):
    assert isinstance(decide(**facts), WaitForUnanswered if waits else Buy)


# --- rule 5: names that the server cut

CUT = LeadList("cut-1", "processing", custom_name=INTENT.list_name(1)[:-5])


@pytest.mark.parametrize("absent_since", [None, NOW - 9999], ids=["first search", "after the wait"])
def test_a_cut_tag_stops_the_buying(absent_since: float | None):
    history, cut = replace(RETRY, absent_since=absent_since), (CUT, replace(CUT, id="cut-2"))
    for known in (records(), sent()):
        with pytest.raises(exceptions.AmbiguousSubmissionError, match="names of lists cut-1, cut-2 were cut") as caught:
            decide(history, known, cut_tags=cut)
        assert caught.value.retryable
        assert INTENT.tag(1) in caught.value.message
        assert "nothing was sent" in caught.value.message


def test_a_list_of_ours_beats_changed_leads_and_cut_tags():
    found = {"matching": (entry("a", "pending"),), "other_purchases": (other(),), "cut_tags": (CUT,)}
    assert isinstance(decide(**found), Adopt)
    assert decide(History(), cut_tags=(CUT,)) == decide(known=empty(), cut_tags=(CUT,)) == Buy(1)


def test_credits():
    assert credits_needed(LEADS, {"enrichment_enabled": False, "email_count": 5}) == 3
    assert credits_needed(LEADS, {"enrichment_enabled": True}) == 6

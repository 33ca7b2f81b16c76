"""What the enumeration of small worlds does not see: which list is used, changes, messages, how long is waited."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.api.models import Lead, LeadList
from machfive_provider.purchase.decision import Adopt, Buy, Found, SearchResult, WaitForUnanswered, decide_purchase
from machfive_provider.purchase.purchase import BATCH, SINGLE, Purchase
from machfive_provider.purchase.record import INTENT, NOTHING_SENT, SUBMITTED, Record
from machfive_provider.purchase.tag import Tag

LEADS = (Lead("a@example.com", name="A"), Lead("b@example.com"), Lead("c@example.com"))
ROUND = 2
RETRY = Purchase("dag", "manual__2026", "generate", None, None, 2, ROUND, "campaign-1", LEADS, {"email_count": 3})
NOW = pendulum.datetime(2026, 2, 3, 5).timestamp()
NOTHING = Record(NOTHING_SENT)


def decide(
    purchase: Purchase = RETRY,
    record: Record | None = None,
    lists: Any = (),
    absent_since: float | None = None,
    now: float = NOW,
    cut_off: Any = (),
) -> Adopt | Buy | WaitForUnanswered:
    """Decide for a retry that found nothing in Airflow or MachFive, short of what the test sets."""
    search = SearchResult(tuple(Found(*each) for each in lists), tuple(cut_off))
    return decide_purchase(purchase, search, record, absent_since, now)


def entry(
    id_: str, status: str, minute: int | None = 0, purchase: Purchase = RETRY, generation: int = 1
) -> tuple[Tag, LeadList]:
    created = None if minute is None else pendulum.datetime(2026, 2, 3, 4, minute)
    tag = purchase.tag(generation)
    return tag, LeadList(id_, status, created_at=created, custom_name=purchase.list_name(tag))


def of_round(round_: int) -> Purchase:
    return replace(RETRY, round=round_)


# --- rules 1 and 2: lists of this purchase

statuses = st.sampled_from(["pending", "processing", "completed", "failed", "archived"])
rows = st.lists(st.tuples(statuses, st.none() | st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=6)


@given(rows, st.randoms(), st.sampled_from(["adopt", "resubmit", "fail"]))
def test_the_same_list_is_chosen_whatever_the_order_of_the_search(found: Any, random: Any, policy: str):
    """Of the own round before others, then of the round bought last; completed ones first, then the oldest."""
    lists = [entry(f"l{n}", status, minute, of_round(round_)) for n, (status, minute, round_) in enumerate(found)]
    usable = [each for each in lists if not each[1].is_failed]
    if policy == "resubmit":
        usable = [each for each in usable if each[0].round == ROUND]
    purchase = replace(RETRY, on_existing_list=policy, max_resubmissions=9)
    shuffled = random.sample(lists, len(lists))
    if not usable:
        assert isinstance(decide(purchase, NOTHING, shuffled), Buy)
        return
    earliest = pendulum.datetime(1970, 1, 1)
    age = lambda each: (each[1].created_at or earliest, each[1].id)  # noqa: E731
    last = max(usable, key=lambda each: (age(each), each[0].round))[0].round
    round_ = ROUND if any(each[0].round == ROUND for each in usable) else last
    same = [each for each in usable if each[0].round == round_]
    best = min(same, key=lambda each: (not each[1].is_completed, *age(each)))
    if policy == "fail" and round_ != ROUND:
        with pytest.raises(exceptions.MachFivePermanentError, match=f"already bought, as list {best[1].id} "):
            decide(purchase, None, shuffled)
        return
    decision = decide(purchase, None, shuffled)
    assert isinstance(decision, Adopt)
    assert (decision.tag, decision.lead_list) == best
    assert {best[1].id, *decision.duplicates} == {each.id for _, each in same}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 4))
def test_what_failed_is_bought_again_but_not_for_ever(generations: list[int], max_resubmissions: int):
    lists = [entry(f"l{each}", "failed", generation=each) for each in generations]
    purchase, last = replace(RETRY, max_resubmissions=max_resubmissions), max(generations)
    if len(set(generations)) <= max_resubmissions:
        assert decide(purchase, NOTHING, lists) == Buy(last + 1, after_failure=True)
        return
    with pytest.raises(exceptions.ListFailedError, match=r"each list failed\. Nothing was spent") as caught:
        decide(purchase, NOTHING, lists)
    assert f"clear this task now that it has failed. MachFive support can say why list l{last}," in str(caught.value)


def test_after_a_clear_the_failures_before_it_do_not_count():
    failed = [entry(f"l{each}", "failed", purchase=of_round(5), generation=each) for each in (1, 2)]
    assert decide(record=NOTHING, lists=failed) == Buy(3, after_failure=True)


def test_with_fail_the_first_try_refuses_any_list():
    """A run that was created again under its run_id."""
    first = replace(RETRY, try_number=1, on_existing_list="fail")
    with pytest.raises(exceptions.MachFivePermanentError, match="already bought"):
        decide(first, NOTHING, [entry("a", "processing")])


# --- rule 3: leads, options or campaign that changed under a retry

CHANGES = {
    "leads": {"leads": LEADS[:2]},
    "options": {"options": {"email_count": 4}},
    "campaign": {"campaign_id": "campaign-2"},
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("map_index", [None, 0], ids=["alone", "mapped"])
@pytest.mark.parametrize("status", ["processing", "completed", "archived"])
def test_what_changes_between_two_tries_is_not_bought(changed: str, map_index: int | None, status: str):
    before = replace(RETRY, map_index=map_index, **CHANGES[changed])
    purchase, bought = replace(RETRY, map_index=map_index), entry("other", status, None, before)
    for record in (None, NOTHING):
        with pytest.raises(exceptions.MachFivePermanentError, match="changed between two tries") as caught:
            decide(purchase, record, [bought])
        for named in (
            "list other",
            str(bought[0]),
            str(purchase.tag(1)),
            status,
            "clear this task now that it has failed",
        ):
            assert named in str(caught.value)
        assert "namespace" in str(caught.value)
    with pytest.raises(exceptions.MachFivePermanentError) as caught:
        decide(replace(purchase, namespace="prod"), None, [bought])
    assert "namespace" not in str(caught.value)


@pytest.mark.parametrize(
    ("purchase", "lists"),
    [
        (RETRY, [entry("other", "failed", purchase=replace(RETRY, leads=LEADS[:2]))]),
        (RETRY, [entry("other", "completed", purchase=replace(of_round(5), leads=LEADS[:2]))]),
        (RETRY, [entry("other", "completed", purchase=replace(RETRY, leads=LEADS[:2], map_index=3))]),
        (replace(RETRY, try_number=1), [entry("other", "completed", purchase=replace(RETRY, leads=LEADS[:2]))]),
    ],
    ids=["failed", "before a clear", "another map index", "first try"],
)
def test_other_leads_are_bought_where_that_is_no_accident(purchase: Purchase, lists: Any):
    assert decide(purchase, NOTHING, lists) == Buy(1)


# --- rules 4, 6 and 7: a POST that may be unanswered


def intent(purchase: Purchase = RETRY, generation: int = 1, call: str = BATCH) -> Record:
    return Record(INTENT, str(purchase.tag(generation)), call)


@pytest.mark.parametrize(
    ("purchase", "record", "seconds"),
    [
        (RETRY, None, 120),
        (RETRY, intent(), 120),
        (replace(RETRY, one_lead=True, call=SINGLE), None, 720),
        (replace(RETRY, one_lead=True, call=BATCH), None, 720),
        (replace(RETRY, one_lead=True, call=BATCH), intent(call=SINGLE), 720),
        (replace(RETRY, one_lead=True, call=SINGLE), intent(call=BATCH), 120),
        (replace(RETRY, one_lead=True, call=BATCH, map_index=0), intent(call=BATCH), 720),
    ],
    ids=["batch", "batch on record", "single", "batch now", "single on record", "single now", "mapped"],
)
def test_an_unanswered_purchase_is_waited_for_and_then_bought(purchase: Purchase, record: Any, seconds: float):
    """As long as the earlier call may take, whatever mode this try is in."""
    until = NOW + seconds
    assert decide(purchase, record) == WaitForUnanswered(1, NOW, until)
    assert decide(purchase, record, absent_since=NOW, now=until - 0.001) == WaitForUnanswered(1, NOW, until)
    assert decide(purchase, record, absent_since=NOW, now=until) == Buy(1, may_be_duplicate=True)


FAILED = entry("a", "failed")
OTHER = replace(RETRY, leads=LEADS[:2])
RESUBMIT = replace(RETRY, on_existing_list="resubmit")


@pytest.mark.parametrize(
    ("purchase", "record", "lists", "waits"),
    [
        (replace(RETRY, try_number=1), None, (), False),
        (RETRY, NOTHING, (), False),
        (RETRY, None, (), True),
        (RETRY, intent(), (), True),
        (RETRY, intent(OTHER), (), True),
        (RETRY, intent(OTHER), [entry("b", "failed", purchase=OTHER)], False),
        (RETRY, Record(SUBMITTED, str(replace(OTHER, round=5).tag(1))), (), False),
        (RETRY, intent(), [FAILED], False),
        (RETRY, intent(generation=2), [FAILED], True),
        (replace(RETRY, map_index=0), NOTHING, (), True),
        (replace(RETRY, map_index=0), Record(SUBMITTED, str(OTHER.tag(1))), (), True),
        (replace(RETRY, map_index=0), Record(SUBMITTED, str(RETRY.tag(1))), [FAILED], False),
        (RETRY, intent(of_round(5)), (), True),
        (RESUBMIT, intent(of_round(5)), (), False),
        (RESUBMIT, intent(), (), True),
        (RESUBMIT, None, (), True),
    ],
    ids=[
        "first try",
        "nothing was sent",
        "no record",
        "intent",
        "intent for other leads",
        "intent whose list showed up",
        "other leads before a clear",
        "intent of the failed generation",
        "intent of the next generation",
        "mapped",
        "mapped, other leads",
        "mapped, the same leads",
        "intent before a clear",
        "resubmit, intent before the clear",
        "resubmit, intent",
        "resubmit, no record",
    ],
)
def test_whether_an_earlier_post_may_be_unanswered(purchase: Purchase, record: Any, lists: Any, waits: bool):
    decision = decide(purchase, record, lists)
    assert isinstance(decision, WaitForUnanswered if waits else Buy)
    if isinstance(decision, WaitForUnanswered):
        assert decision.known == tuple(each.id for _, each in lists)


# --- rule 5: names that the server cut

CUT = LeadList("cut-1", "processing", custom_name=RETRY.list_name(RETRY.tag(1))[:-5])


@pytest.mark.parametrize("absent_since", [None, NOW - 9999], ids=["first search", "after the wait"])
def test_a_cut_tag_stops_the_buying(absent_since: float | None):
    cut = (CUT, replace(CUT, id="cut-2"))
    for record in (None, intent()):
        with pytest.raises(
            exceptions.AmbiguousSubmissionError, match="cut the names of lists cut-1, cut-2 within"
        ) as caught:
            decide(record=record, absent_since=absent_since, cut_off=cut)
        assert caught.value.retryable
        assert str(RETRY.tag(1)) in str(caught.value)
        assert "nothing was sent" in str(caught.value)


def test_a_list_of_ours_beats_changes_and_cut_tags():
    lists = [entry("a", "pending"), entry("other", "pending", purchase=OTHER)]
    assert isinstance(decide(lists=lists, cut_off=[CUT]), Adopt)
    assert decide(record=NOTHING, cut_off=[CUT]) == Buy(1)

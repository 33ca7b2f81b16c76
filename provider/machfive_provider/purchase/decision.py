"""Decides whether a try adopts a list, buys the batch, waits or fails. Pure: no I/O, no clock.

A *purchase* is one batch of leads for one task in one DAG run. The map index is no part of it, because mapped leads may
come in another order at a retry. So two map indexes with equal leads share one list.

A *round* is the first try with its automatic retries, or the try after a clear with its retries (``Purchase.round``).
Its number is Airflow's ``max_tries``, one less than the last try that the round allows; a clear raises it. With
``retries=2``, tries 1 to 3 are round 2; cleared after try 3, tries 4 to 6 are round 5.

The first list of a purchase has *generation* 1, each further one the next, over all rounds. A further one is bought
after a failure, or after a clear with ``on_existing_list="resubmit"``.

A POST is *answered* once a response or a search has named the list that it bought. One that was refused counts as not
sent: the record is put back.

The rules of :func:`decide_purchase`; the first that applies decides:

1. A list of this purchase has not failed: adopt one.
   Which round: this try's. If it has no such list, the round of the newest list that has not failed; with ``resubmit``
   no list of another round is adopted. Which list of the round: completed ones first, then the oldest.
   With ``on_existing_list="fail"`` fail instead, no retry, unless an earlier try of this round bought the list.
2. More generations of this round failed than ``max_resubmissions``: fail, no retry.
3. An earlier try of this round bought a list for this task and map index with another campaign, other leads or
   options, and that list has not failed: fail, no retry. Buying the changed batch too would pay for most leads twice.
   (Another map index buys other leads anyway.)
4. This is the first try, or all POSTs of earlier tries are known to be answered (their lists have failed) or not sent:
   buy. Nothing is known without a record (Airflow before 3.3, an emptied store), or in a mapped task whose record has
   no tag or that of other leads. With ``resubmit`` a POST of another round does not count.
5. A POST may be unanswered, and the search showed a list whose tag was cut off by the server: that list may be the
   POST's, so fail this try.
6. A POST may be unanswered, and this try has searched for the POST's list for less than :func:`shows_within`, 2
   minutes, or 12 where the POST may have been of a single lead: wait. Each try counts anew, because the one before may
   have sent its POST just before it ended.
7. A POST may be unanswered, but its list has not shown up for that long, so it was very likely not accepted: buy, with
   a warning that the batch may be paid for twice.

``tests/purchase/test_small_worlds.py`` checks the rules in every course of events, up to four tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.formatting import counted
from machfive_provider.purchase.purchase import SINGLE, Purchase
from machfive_provider.purchase.record import INTENT, Record
from machfive_provider.purchase.tag import Tag

__all__ = ["Adopt", "Buy", "Found", "SearchResult", "WaitForUnanswered", "by_age", "decide_purchase", "shows_within"]

# Seconds of searching after which an unanswered POST is taken as not accepted. The two minutes are our margin.
_BATCH_SHOWS_WITHIN = 120.0
# A POST of a single lead (`generate`) may take ten minutes (docs/api.md), so its list may show up that much later.
_SINGLE_SHOWS_WITHIN = 600.0 + _BATCH_SHOWS_WITHIN

_NAMESPACE_HINT = (
    " If that list is of another Airflow deployment with the same DAG and run, give each deployment's connection a "
    "namespace of its own."
)


class Found(NamedTuple):
    """A list that this task bought, and its tag: from its name, or, if its name has none, from the task's record."""

    tag: Tag
    lead_list: LeadList


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a complete search through the lists found.

    :param lists: all that this task bought in this DAG run
    :param cut_off: lists whose name stops within what may be a tag of this task
    """

    lists: tuple[Found, ...] = ()
    cut_off: tuple[LeadList, ...] = ()


@dataclass(frozen=True, slots=True)
class Adopt:
    """Use a list that was bought before.

    :param duplicates: ids of further lists of the same purchase and round that did not fail: paid for, not used
    """

    lead_list: LeadList
    tag: Tag
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Buy:
    """Send the POST.

    :param generation: of the list that is bought
    :param may_be_duplicate: whether an earlier POST may have been accepted although its list never showed up
    :param after_failure: whether this replaces lists that have failed: those of this round, or of all rounds if this
        one has none
    """

    generation: int
    may_be_duplicate: bool = False
    after_failure: bool = False


@dataclass(frozen=True, slots=True)
class WaitForUnanswered:
    """Search again later: the list of an earlier POST may still show up.

    :param absent_since: epoch seconds of this try's first search without the list
    :param until: epoch seconds from which on a search without the list means: buy
    :param known: ids of the lists that the search has found; ``triggers/unanswered_purchase.py`` waits for another
    """

    generation: int
    absent_since: float
    until: float
    known: tuple[str, ...] = ()


def decide_purchase(
    purchase: Purchase, search: SearchResult, record: Record | None, absent_since: float | None, now: float
) -> Adopt | Buy | WaitForUnanswered:
    """Apply the rules at the top of this module, in their order.

    :param record: what the tries before have left; None if it is not known
    :param absent_since: epoch seconds of this try's first search without the unanswered POST's list; None before it
    :param now: epoch seconds of the search
    :raises MachFivePermanentError: by rules 1 and 3; by rule 2 its subclass ``ListFailedError``
    :raises AmbiguousSubmissionError: by rule 5; a later try may succeed
    """
    ours = [found for found in search.lists if found.tag.what == purchase.what]
    if adoptable := _adoptable(purchase, ours):
        return _adopt(purchase, adoptable)
    _refuse_more_resubmissions(purchase, ours)
    _refuse_changes(purchase, search.lists)
    generation = 1 + max((tag.generation for tag, _ in ours), default=0)
    of_this_round = [found for found in ours if found.tag.round == purchase.round]
    after_failure = bool(ours) and all(each.is_failed for _, each in of_this_round or ours)
    if not _may_be_unanswered(purchase, search.lists, record):
        return Buy(generation, after_failure=after_failure)
    if search.cut_off:
        raise _cut_off_error(str(purchase.tag(generation)), search.cut_off)
    since = now if absent_since is None else absent_since
    until = since + shows_within(purchase, record)
    if now >= until:
        return Buy(generation, may_be_duplicate=True, after_failure=after_failure)
    return WaitForUnanswered(generation, since, until, tuple(each.id for _, each in search.lists))


def shows_within(purchase: Purchase, record: Record | None) -> float:
    """Return the seconds within which the list of an unanswered POST shows up, by the call that was made."""
    # A task of one lead may have made either call. Its record of an intent says which, unless the task is mapped: then
    # the record may be of other leads.
    may_be_single = purchase.one_lead
    if record and record.phase == INTENT and purchase.map_index is None:
        may_be_single = record.call == SINGLE
    return _SINGLE_SHOWS_WITHIN if may_be_single else _BATCH_SHOWS_WITHIN


def by_age(lead_list: LeadList) -> tuple[datetime, str]:
    """Return a sort key: the oldest list first, one without a date before all, and of equals always the same."""
    return lead_list.created_at or pendulum.from_timestamp(0), lead_list.id


def _adoptable(purchase: Purchase, ours: Sequence[Found]) -> list[Found]:
    """Rule 1: return the lists of one round that may be adopted, the best first."""
    usable = [found for found in ours if not found.lead_list.is_failed]
    candidates = [found for found in usable if found.tag.round == purchase.round]
    if not candidates and usable and purchase.on_existing_list != "resubmit":
        newest = max(usable, key=lambda found: by_age(found.lead_list))
        candidates = [found for found in usable if found.tag.round == newest.tag.round]
    return sorted(candidates, key=lambda found: (not found.lead_list.is_completed, *by_age(found.lead_list)))


def _adopt(purchase: Purchase, adoptable: Sequence[Found]) -> Adopt:
    (tag, chosen), *others = adoptable
    # At try 1 no try of this run can have bought it: it is of a deleted run with the same run_id.
    by_earlier_try = purchase.try_number > 1 and tag.round == purchase.round
    if purchase.on_existing_list == "fail" and not by_earlier_try:
        raise exceptions.MachFivePermanentError(
            f"This very batch is already bought, as list {chosen.id} ({chosen.processing_status}): refused by "
            "on_existing_list='fail'. Nothing was spent now. Use that list, or set on_existing_list='adopt'."
        )
    return Adopt(chosen, tag, tuple(each.id for _, each in others))


def _refuse_more_resubmissions(purchase: Purchase, ours: Iterable[Found]) -> None:
    """Rule 2. By rule 1 all lists of this round have failed, and none of another round may be adopted.

    Two lists of one generation, a duplicate, count once.
    """
    failed = {tag.generation: each.id for tag, each in ours if tag.round == purchase.round}
    if len(failed) > purchase.max_resubmissions:
        raise exceptions.ListFailedError(
            f"The batch was bought {counted(len(failed), 'time')} and each list failed. Nothing was spent now.",
            remedy="To buy it once more, clear this task now that it has failed. MachFive support can say why list "
            f"{failed[max(failed)]}, the last, failed. By themselves retries buy it again at most "
            f"{counted(purchase.max_resubmissions, 'time')} (max_resubmissions).",
        )


def _refuse_changes(purchase: Purchase, lists: Iterable[Found]) -> None:
    """Rule 3: a query or a file gave other leads at the retry, or the DAG was edited."""
    if purchase.try_number == 1:
        return
    for tag, each in lists:
        of_this_round = (tag.round, tag.map_index) == (purchase.round, purchase.map_index)
        if of_this_round and tag.what != purchase.what and not each.is_failed:
            hint = _NAMESPACE_HINT if purchase.namespace is None else ""
            raise exceptions.MachFivePermanentError(
                "Leads, options or campaign changed between two tries. Nothing was spent now.",
                remedy="If it is meant, clear this task now that it has failed; else give every try of a run the same "
                f"leads and options. Already bought: list {each.id} ({each.custom_name!r}, {each.processing_status}); "
                f"the list of this try would have the tag {purchase.tag(1)}.{hint}",
            )


def _may_be_unanswered(purchase: Purchase, lists: Iterable[Found], record: Record | None) -> bool:
    """Tell rule 4 from rules 5 to 7: whether an earlier try may have sent a POST and not learned its list's id.

    For instance a worker is killed after it sent the POST and before it wrote the list's id to its record.
    """
    if purchase.try_number == 1:
        return False
    if record is None:
        return True
    recorded = record.parsed_tag
    # Airflow keeps one record for each map index. Mapped leads may come in another order at a retry: then the record of
    # the POST for these leads is kept for another map index, and this record proves nothing.
    if purchase.map_index is not None and (recorded is None or recorded.what != purchase.what):
        return True
    if record.phase != INTENT or recorded is None:  # an intent always has a tag
        return False
    if purchase.on_existing_list == "resubmit" and recorded.round != purchase.round:
        return False  # whatever became of it: the user has asked for another list
    return not any(tag.is_same_list_as(recorded) for tag, _ in lists)


def _cut_off_error(tag: str, cut_off: Iterable[LeadList]) -> exceptions.AmbiguousSubmissionError:
    """Rule 5: waiting would not help, because the list of the earlier POST may be one of these."""
    ids = ", ".join(each.id for each in cut_off)
    return exceptions.AmbiguousSubmissionError(
        f"An earlier try may have bought this batch, and the server cut the names of lists {ids} within the tag. "
        f"The whole tag is {tag}. One of them may be this task's, so nothing was sent. Look at them in the MachFive "
        "app: rename this task's, if it is there, so that its name holds the tag, and the others so that they do not "
        "end in '[af1:…', the beginning of a tag."
    )

"""Decides whether a try adopts a list, buys the batch, waits or fails. Pure: no I/O, no clock.

A *purchase* is one batch of leads for one task in one DAG run. Each of its lists has a *generation*: 1 is the first
list, 2 the one bought because the first failed. The rules of :func:`decide_purchase`; the first that applies decides:

1. A list of this purchase has not failed: adopt it. With ``on_existing_list="fail"``: fail.
2. All its lists failed, and ``max_resubmissions`` is used up: fail.
3. The same task has bought a list with other leads or options in this round, and that list has not failed: fail.
   Skipped at the first try of a round, because a user who clears the task wants the change, and in a mapped task.
4. No POST of an earlier try is *unanswered* (sent, without a response that names the list): buy.
5. The search showed a list whose tag was cut off by the server and may be ours: fail.
6. A POST may be unanswered, and this try has searched for its list for less than ``shows_within`` seconds: wait.
7. A POST may be unanswered, but no list has shown up for that long, so it was very likely not accepted: buy, with a
   warning that the batch may be paid for twice.

A *round* is the first try, or the first one after a clear, with its automatic retries. For example with ``retries=2``:
tries 1 to 3 are round 0; after a clear, tries 4 to 6 are round 3 (``History.round``).

``tests/purchase/test_small_worlds.py`` tries the rules against every course of events, up to four tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.formatting import counted
from machfive_provider.purchase.record import INTENT, RecordStore
from machfive_provider.purchase.tag import Intent

__all__ = [
    "BATCH_SHOWS_WITHIN",
    "GENERATE_SHOWS_WITHIN",
    "Adopt",
    "Buy",
    "History",
    "Policy",
    "SearchResult",
    "WaitForUnanswered",
    "by_age",
    "decide_purchase",
    "usable_lists",
]

# Seconds after which the list of an unanswered POST is taken as not bought. The two minutes are our margin. A POST to
# generate, for a single lead, may take ten minutes (docs/api.md), so its list may show up that much later.
BATCH_SHOWS_WITHIN, GENERATE_SHOWS_WITHIN = 120.0, 720.0

# Airflow's clock and MachFive's may differ by this much.
_CLOCKS_DIFFER = timedelta(minutes=1)


# --- the facts, beside the Intent (what to buy) and the record that the last try left


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user wants.

    :param on_existing_list: ``adopt`` uses a list that was bought already; ``resubmit`` adopts within a round, and buys
        again after each clear, because the tag then holds the round; ``fail`` fails the task
    :param max_resubmissions: how often a batch is bought again because its list failed
    """

    on_existing_list: str = "adopt"
    max_resubmissions: int = 1


@dataclass(frozen=True, slots=True)
class History:
    """What a try knows of the task and of the tries before it.

    :param try_number: of the task instance, from 1
    :param round: ``max_tries - retries``. Airflow keeps ``max_tries`` through automatic retries; a clear sets it to
        ``try_number + retries``
    :param round_began: the DAG run's start, which a clear of a finished run resets; None if it is not known
    :param mapped: whether it is a mapped task, in which other map indexes buy other leads
    :param shows_within: seconds to wait for the list of an unanswered POST
    :param absent_since: epoch seconds of this try's first search without a list; None before it
    """

    try_number: int = 1
    round: int = 0
    round_began: datetime | None = None
    mapped: bool = False
    shows_within: float = BATCH_SHOWS_WITHIN
    absent_since: float | None = None

    @property
    def first_of_round(self) -> bool:
        """Whether this is the very first try, or the first one after a clear."""
        return self.try_number <= self.round + 1


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a complete search through the campaign's lists found.

    :param matching: the lists of this purchase, each with its generation
    :param other_purchases: lists that the same task bought in the same run with other leads or options
    :param cut_tags: lists whose name ends in the beginning of a tag that may be ours
    """

    matching: tuple[tuple[int, LeadList], ...] = ()
    other_purchases: tuple[LeadList, ...] = ()
    cut_tags: tuple[LeadList, ...] = ()


# --- the outcomes


@dataclass(frozen=True, slots=True)
class Adopt:
    """Use a list that was bought before.

    :param duplicates: ids of further usable lists of this purchase: paid for, not used
    """

    lead_list: LeadList
    generation: int
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Buy:
    """Send the POST.

    :param may_be_duplicate: whether an earlier POST may have been accepted although its list never showed up
    """

    generation: int
    may_be_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class WaitForUnanswered:
    """Search again later: the list of an earlier POST may still show up.

    :param absent_since: epoch seconds of this try's first search without the list
    :param until: epoch seconds from which on a search without the list means: buy
    """

    generation: int
    absent_since: float
    until: float


# --- the rules


def decide_purchase(
    intent: Intent, search: SearchResult, history: History, records: RecordStore, policy: Policy, now: float
) -> Adopt | Buy | WaitForUnanswered:
    """Apply the rules at the top of this module, in their order.

    :param records: already read; the record is of this very purchase (``record``)
    :param now: epoch seconds of the search
    :raises MachFivePermanentError: by rules 1 and 3; by rule 2 its subclass ``ListFailedError``
    :raises AmbiguousSubmissionError: by rule 5; a later try may succeed
    """
    if usable := usable_lists(search.matching):
        return _adopt(usable, policy)
    generation = _next_generation(search.matching, policy)
    _refuse_changed_leads(intent, search.other_purchases, history)
    if not _may_be_unanswered(intent, generation, history, records):
        return Buy(generation)
    if search.cut_tags:
        raise _cut_tag_error(intent.tag(generation), search.cut_tags)
    absent_since = now if history.absent_since is None else history.absent_since
    if now - absent_since < history.shows_within:
        return WaitForUnanswered(generation, absent_since, absent_since + history.shows_within)
    return Buy(generation, may_be_duplicate=True)


def usable_lists(matching: Iterable[tuple[int, LeadList]]) -> list[tuple[int, LeadList]]:
    """Return the lists that did not fail, completed ones first, then the oldest, so that all tries choose alike."""
    usable = [(generation, each) for generation, each in matching if not each.is_failed]
    return sorted(usable, key=lambda found: (not found[1].is_completed, *by_age(found[1])))


def by_age(lead_list: LeadList) -> tuple[datetime, str]:
    """Return a sort key: the oldest list first, and of equally old ones always the same."""
    return lead_list.created_at or pendulum.from_timestamp(0), lead_list.id


def _adopt(usable: Sequence[tuple[int, LeadList]], policy: Policy) -> Adopt:
    """Rule 1."""
    (generation, chosen), *others = usable
    if policy.on_existing_list == "fail":
        raise exceptions.MachFivePermanentError(
            f"on_existing_list='fail': this very batch is already bought, as list {chosen.id} "
            f"({chosen.processing_status}). Nothing was spent now. Use that list, or set on_existing_list='adopt'"
        )
    return Adopt(chosen, generation, tuple(each.id for _, each in others))


def _next_generation(matching: Sequence[tuple[int, LeadList]], policy: Policy) -> int:
    """Rule 2: return the generation to buy. By rule 1 all matching lists have failed."""
    last, lead_list = max(matching, key=lambda found: found[0], default=(0, None))
    if lead_list and last > policy.max_resubmissions:
        raise exceptions.ListFailedError(
            f"the batch was bought {counted(last, 'time')} and each list failed (the last: {lead_list.id}); "
            f"max_resubmissions is {policy.max_resubmissions}, so nothing was spent now. Ask MachFive support why it "
            "failed, with the list's id"
        )
    return last + 1


def _refuse_changed_leads(intent: Intent, other_purchases: Iterable[LeadList], history: History) -> None:
    """Rule 3: a query or a file gave other leads at the retry; buying those too would pay for most of them twice.

    After a clear the change is taken as meant. In a mapped task the other list may belong to another map index.
    """
    if history.mapped or history.first_of_round:
        return
    # With "resubmit" the tag holds the round, so all these lists are of this one. Else their creation time tells.
    began = None if intent.origin.round is not None else history.round_began
    for each in other_purchases:
        of_this_round = not began or not each.created_at or each.created_at >= began - _CLOCKS_DIFFER
        if of_this_round and not each.is_failed:
            raise exceptions.MachFivePermanentError(
                f"the leads or options changed between two tries: list {each.id} ({each.custom_name!r}, "
                f"{each.processing_status}) is bought and paid for, this try would buy {intent.tag(1)} as well. "
                "Nothing was spent now. Give every try of a run the same leads; to buy the new ones all the same, "
                "clear the task"
            )


def _may_be_unanswered(intent: Intent, generation: int, history: History, records: RecordStore) -> bool:
    """Rule 4: whether an earlier try may have sent the POST for this generation and not learned the list's id.

    For instance a worker is killed after it sent the POST and before it wrote the list's id to its record.
    """
    if history.try_number <= 1:
        return False
    if intent.origin.round is not None and history.first_of_round:
        return False  # with "resubmit" a clear changes the tag: nobody can have sent a POST with it yet
    # Airflow keeps one record for each map index. Mapped leads may come in another order at a retry: then the record of
    # the POST for these leads is kept for another map index, and an empty record here proves nothing.
    if history.mapped or not records.readable:
        return True
    # A record of a later generation counts too: the failed list before it may have been deleted in the MachFive app.
    return records.record is not None and records.record.phase == INTENT and records.record.generation >= generation


def _cut_tag_error(tag: str, cut_tags: Iterable[LeadList]) -> exceptions.AmbiguousSubmissionError:
    """Rule 5: waiting would not help, because the list of the earlier POST may be one of these."""
    ids = ", ".join(each.id for each in cut_tags)
    return exceptions.AmbiguousSubmissionError(
        f"an earlier try may have bought this batch, and the names of lists {ids} were cut by the server within the "
        f"tag, which would be {tag}: one of them may be ours, so nothing was sent. Check them in the MachFive app: "
        "rename ours so that its name holds the tag, or, if none is ours, set on_existing_list='resubmit' and clear "
        "the task"
    )

"""Whether to use what is there, to pay, or to look on: the pure half of buying exactly once.

``tests/purchase`` tries :func:`decide_purchase` in every small world.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.formatting import counted
from machfive_provider.purchase.record import INTENT, RecordStore
from machfive_provider.purchase.tag import Intent

__all__ = [
    "BATCH_SHOWS_WITHIN",
    "EXISTING_POLICIES",
    "GENERATE_SHOWS_WITHIN",
    "Adopt",
    "Buy",
    "History",
    "Policy",
    "SearchResult",
    "WaitForUnanswered",
    "age",
    "alive",
    "decide_purchase",
]

EXISTING_POLICIES = ("adopt", "resubmit", "fail")
# Seconds for which the list of an unanswered POST may stay invisible; generate answers after up to ten minutes.
BATCH_SHOWS_WITHIN, GENERATE_SHOWS_WITHIN = 120.0, 720.0
_CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user wants done with a purchase that was made already, or whose list failed."""

    on_existing_list: str = "adopt"
    max_resubmissions: int = 1


@dataclass(frozen=True, slots=True)
class History:
    """What an attempt knows of those before it.

    :param try_number: of the task instance, from 1
    :param round: ``max_tries - retries``: constant through automatic retries, another after each clear
    :param round_began: lists created before it are of an earlier round; None if that is not known
    :param mapped: whether other shards of the task buy other leads under the same ``who``
    :param shows_within: seconds for which the list of an unanswered POST may stay invisible
    :param absent_since: epoch seconds of this attempt's first complete look without a list; None before it
    """

    try_number: int = 1
    round: int = 0
    round_began: datetime | None = None
    mapped: bool = False
    shows_within: float = BATCH_SHOWS_WITHIN
    absent_since: float | None = None

    @property
    def opens_round(self) -> bool:
        """Whether this is the first try, or the first after a clear."""
        return self.try_number <= self.round + 1


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What one complete look at the campaign's lists showed.

    :param ours: the lists of this very purchase, with their generations
    :param others: what the same task bought in the same run with other leads or options
    :param cut: lists whose name may be ours, cut short by the server
    """

    ours: tuple[tuple[int, LeadList], ...] = ()
    others: tuple[LeadList, ...] = ()
    cut: tuple[LeadList, ...] = ()


@dataclass(frozen=True, slots=True)
class Adopt:
    """An earlier attempt has bought it: use its list."""

    lead_list: LeadList
    generation: int
    surplus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Buy:
    """Nobody has bought it, or what was bought failed.

    :param in_doubt: an earlier POST may have been accepted, but its list has stayed away for the settling time
    """

    generation: int
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class WaitForUnanswered:
    """An earlier POST may have been accepted: look on until the settling time has passed.

    :param absent_since: epoch seconds of the first complete look without the list
    :param until: epoch seconds of the last look before buying
    """

    generation: int
    absent_since: float
    until: float


def decide_purchase(
    intent: Intent, seen: SearchResult, history: History, records: RecordStore, policy: Policy, now: float
) -> Adopt | Buy | WaitForUnanswered:
    """Decide between using what is there, paying, and looking on.

    Completed beats still running beats failed; of equals the oldest wins, so that all attempts agree.

    :param now: epoch seconds of the look
    :raises ListFailedError: if the last allowed generation failed
    :raises AmbiguousSubmissionError: if absence proves nothing, because the server cuts names
    :raises MachFivePermanentError: with ``on_existing_list="fail"``, if there is a list that did not fail; or if
        the leads or options changed between two tries
    """
    if usable := alive(seen.ours):
        generation, chosen = usable[0]
        if policy.on_existing_list == "fail":
            raise exceptions.MachFivePermanentError(
                f"on_existing_list='fail': this very batch is already bought, as list {chosen.id} "
                f"({chosen.processing_status})."
            )
        return Adopt(chosen, generation, tuple(each.id for _, each in usable[1:]))
    generation = _next_generation(seen.ours, policy)
    _refuse_changed_purchase(intent, seen.others, history)
    if not _may_have_been_sent(intent, generation, history, records):
        return Buy(generation)
    if seen.cut:
        raise _unrecognisable(intent.tag(generation), seen.cut)
    since = now if history.absent_since is None else history.absent_since
    if now - since < history.shows_within:
        return WaitForUnanswered(generation, since, since + history.shows_within)
    return Buy(generation, in_doubt=True)


def alive(found: Iterable[tuple[int, LeadList]]) -> list[tuple[int, LeadList]]:
    """Return the lists that did not fail, the one to use first."""
    ordered = sorted(found, key=lambda each: (not each[1].is_completed, age(each[1])))
    return [(generation, each) for generation, each in ordered if not each.is_failed]


def _next_generation(failed: Sequence[tuple[int, LeadList]], policy: Policy) -> int:
    last, lead_list = max(failed, key=lambda each: each[0], default=(0, None))
    if lead_list and last > policy.max_resubmissions:
        raise exceptions.ListFailedError(
            f"the batch was bought {counted(last, 'time')} and each list failed (the last: {lead_list.id}); "
            f"max_resubmissions is {policy.max_resubmissions}. Ask MachFive support why, with the list's id"
        )
    return last + 1


def _refuse_changed_purchase(intent: Intent, others: Iterable[LeadList], history: History) -> None:
    if history.mapped or history.opens_round:
        return
    # With "resubmit" the tag itself tells the rounds apart; otherwise the run's start does, which a clear resets.
    began = None if intent.origin.round is not None else history.round_began
    for each in others:
        of_this_round = not began or not each.created_at or each.created_at >= began - _CLOCKS_DIFFER
        if of_this_round and not each.is_failed:
            raise exceptions.MachFivePermanentError(
                f"the leads or options changed between two tries: list {each.id} ({each.custom_name!r}, "
                f"{each.processing_status}) is bought and paid for, this try would buy {intent.tag(1)} as well. "
                "Nothing was spent now. Give every try of a run the same leads; to buy the new ones all the same, "
                "clear the task"
            )


def _may_have_been_sent(intent: Intent, generation: int, history: History, records: RecordStore) -> bool:
    """Whether an earlier POST for this generation may have been accepted without its list being visible."""
    if history.try_number <= 1 or (intent.origin.round is not None and history.opens_round):
        return False
    # Airflow keeps the store by map index, and shards may come in another order: what is not in mine may be in yours.
    if history.mapped or not records.readable:
        return True
    return records.record is not None and records.record.phase == INTENT and records.record.generation >= generation


def _unrecognisable(tag: str, cut: Iterable[LeadList]) -> exceptions.AmbiguousSubmissionError:
    ids = ", ".join(each.id for each in cut)
    return exceptions.AmbiguousSubmissionError(
        f"an earlier try may have bought this batch, and the names of lists {ids} were cut by the server where the tag "
        f"{tag} would stand: whether one of them is ours cannot be told, so nothing was sent. Look at them in the "
        "MachFive app: rename ours so that it holds the tag, or, if none is ours, set on_existing_list='resubmit' and "
        "clear the task"
    )


def age(lead_list: LeadList) -> tuple[Any, str]:
    """Return what sorts lists by age, the oldest first, alike for every attempt."""
    return (lead_list.created_at or pendulum.from_timestamp(0), lead_list.id)

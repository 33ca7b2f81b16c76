"""Buys a batch: :func:`search_and_decide`, then :func:`submit`, through which every paid request of the tasks goes.

The intent is recorded before the POST and the list's id after it, so that a later try knows what to expect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import AcceptedBatch, GeneratedSequence, GenerationOptions, Lead, LeadList
from machfive_provider.formatting import counted, duration
from machfive_provider.purchase.decision import (
    Adopt,
    Buy,
    Found,
    SearchResult,
    WaitForUnanswered,
    by_age,
    decide_purchase,
    shows_within,
)
from machfive_provider.purchase.purchase import SINGLE, Purchase
from machfive_provider.purchase.record import Record, RecordStore
from machfive_provider.purchase.tag import Tag

__all__ = ["Api", "Submission", "adopt", "search_and_decide", "submit"]


class Api(Protocol):
    """The methods of a hook that buying needs."""

    def iter_lists(self, campaign_id: str | None = None) -> Iterator[LeadList]:
        """Yield the workspace's lists, newest first."""

    def get_list(self, list_id: str) -> LeadList:
        """Return one list."""

    def generate(self, campaign_id: str, lead: Lead, options: GenerationOptions) -> GeneratedSequence:
        """Buy the emails of one lead and return them."""

    def generate_batch(self, campaign_id: str, leads: Sequence[Lead], options: GenerationOptions) -> AcceptedBatch:
        """Buy a list."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is known after buying or adopting.

    :param bought: whether this try paid
    :param submitted_at: epoch seconds at which the POST was answered, where its list may not be visible yet
    :param lead_list: the list as last seen
    :param answer: the sequence, if it came in the response of ``generate``
    :param duplicates: ids of further lists of the same purchase, paid for and not used
    """

    list_id: str
    list_name: str
    tag: Tag
    bought: bool
    submitted_at: float | None = None
    lead_list: LeadList | None = None
    answer: GeneratedSequence | None = None
    duplicates: tuple[str, ...] = ()

    @property
    def seen(self) -> LeadList | None:
        """The list as last seen, where it replaces a poll. A completed list found by search lacks its counts."""
        known = self.lead_list
        return None if known and known.is_completed and known.leads_count is None else known


def search_and_decide(
    api: Api, purchase: Purchase, record: Record | None, absent_since: float | None, log: Any
) -> Adopt | Buy | WaitForUnanswered:
    """Search for the lists of this task, and decide what to do.

    :param record, absent_since: as for :func:`decide_purchase`
    :raises MachFiveError: as the reads and :func:`decide_purchase` do
    """
    found = _search(api, purchase, record)
    decision = decide_purchase(purchase, found, record, absent_since, time.time())
    match decision:
        case Adopt(lead_list):
            log.info(
                "An earlier try has already bought this batch: list %s (%s). Nothing is spent.",
                lead_list.id,
                lead_list.processing_status,
            )
        case WaitForUnanswered(generation) if absent_since is None:
            log.warning(
                "An earlier try may have bought this batch: looking for its list for %s before buying. Nothing is "
                "spent meanwhile. The list's name would hold %s.",
                duration(shows_within(purchase, record)),
                purchase.tag(generation),
            )
    return decision


def adopt(decision: Adopt, record: Record | None, log: Any) -> Submission:
    """Return what is known of a list that an earlier try has bought."""
    recorded = record is not None and record.lists.get(str(decision.tag)) == decision.lead_list.id
    submitted_at = record.time if record and recorded else None
    return _submission_of(decision.lead_list, decision.tag, decision.duplicates, log, submitted_at=submitted_at)


def submit(api: Api, purchase: Purchase, decision: Buy, records: RecordStore, log: Any) -> Submission:
    """Write the intent, send the POST, write the list's id, and check what came of it.

    :raises AmbiguousSubmissionError: if the POST may have been accepted and its list was not found
    :raises MachFiveError: as ``records`` and the paid call do
    """
    return _Submit(api, purchase, decision, records, log).run()


@dataclass(frozen=True, slots=True)
class _Submit:
    """The steps around one POST, for one generation of a batch."""

    api: Api
    purchase: Purchase
    decision: Buy
    records: RecordStore
    log: Any

    @property
    def tag(self) -> Tag:
        return self.purchase.tag(self.decision.generation)

    def run(self) -> Submission:
        purchase, list_name = self.purchase, self.purchase.list_name(self.tag)
        self._announce(list_name)
        self.records.write_intent(self.tag, purchase.call)
        try:
            response = self._send({**purchase.options, "list_name": list_name})
        except exceptions.MachFiveError as error:
            if not _may_be_accepted(error):
                self.records.restore()
                raise
            return self._find_after_lost_response(error)
        answered_at = time.time()
        self.records.write_submitted(self.tag, purchase.call, response.list_id)
        self.log.info("Accepted as list %s.", response.list_id)
        sequence = response if isinstance(response, GeneratedSequence) else None
        seen = self._read_back(response.list_id)
        if self.decision.may_be_duplicate and (earlier := self._find_earlier(response.list_id)):
            chosen, others = earlier
            return _submission_of(chosen, self.tag, others, self.log, bought=True, answer=sequence)
        return Submission(response.list_id, list_name, self.tag, True, answered_at, seen, sequence)

    def _send(self, options: GenerationOptions) -> AcceptedBatch | GeneratedSequence:
        if self.purchase.call == SINGLE:
            return self.api.generate(self.purchase.campaign_id, self.purchase.sent[0], options)
        return self.api.generate_batch(self.purchase.campaign_id, self.purchase.sent, options)

    def _announce(self, list_name: str) -> None:
        """Tell what will be spent, and why again."""
        if self.decision.generation > 1:
            why = (
                "The list bought before has failed on MachFive's side"
                if self.decision.after_failure
                else "The task was cleared, and on_existing_list is 'resubmit'"
            )
            self.log.warning("%s: buying the batch again, as generation %d.", why, self.decision.generation)
        if self.decision.may_be_duplicate:
            self.log.warning(
                "Buying now, although an earlier try may have bought this batch: its list did not show up in time. "
                "Should it still show up, the batch is paid for twice: search the MachFive app for two lists with "
                "[af1:%s-%s.",
                self.purchase.who,
                self.purchase.what,
            )
        self.log.info(
            "Submitting %s; if accepted, this spends %s. List %r, campaign %s.",
            counted(len(self.purchase.sent), "lead"),
            counted(self.purchase.credits, "credit"),
            list_name,
            self.purchase.campaign_id,
        )

    def _find_after_lost_response(self, error: exceptions.MachFiveError) -> Submission:
        """Search for the list of a POST whose response was lost."""
        self.log.warning("It is not known whether the submission was accepted; searching for its list. %s", error)
        try:
            found = self._bought_lists()
        except exceptions.MachFiveError as failure:
            self.log.warning("The search failed as well. %s", failure)
            found = []
        if not found:
            submission = f"submission of {counted(len(self.purchase.sent), 'lead')}"
            raise exceptions.AmbiguousSubmissionError(
                f"The {submission} may have been accepted, but its list has not shown up.",
                remedy=f"The next try searches for it before it buys. It would be named {self.tag}. {error.message}",
                status_code=error.status_code,
                code=error.code,
                request_id=error.request_id,
                occurred_at=error.occurred_at,
                endpoint=error.endpoint,
            ) from error
        # A failed one too: then the next try knows that it has failed.
        chosen, *others = found
        self.records.write_submitted(self.tag, self.purchase.call, chosen.id)
        self.log.info("The submission was accepted: list %s (%s).", chosen.id, chosen.processing_status)
        return _submission_of(chosen, self.tag, tuple(each.id for each in others), self.log, bought=True)

    def _read_back(self, list_id: str) -> LeadList | None:
        """Read the list just bought: without the tag in its name a later try could not find it."""
        try:
            seen = self.api.get_list(list_id)
        except exceptions.MachFiveError as error:
            self.log.info("List %s could not be read yet. %s", list_id, error)
            return None
        if self.purchase.tag_of(seen) != self.tag:
            self.log.warning(
                "MachFive shows list %s as %r, without the tag %s: a later try could not recognise it by name. Before "
                "you clear this task, rename the list in the MachFive app so that its name holds the tag; otherwise "
                "the batch may be bought again.",
                list_id,
                seen.custom_name,
                self.tag,
            )
        return seen

    def _find_earlier(self, list_id: str) -> tuple[LeadList, tuple[str, ...]] | None:
        """Search once more after a purchase that may be a duplicate: the earlier list may have shown up meanwhile.

        :param list_id: the list just bought
        :returns: the list to use and the ids of the others, None if there is no other
        """
        try:
            found = [each for each in self._bought_lists() if not each.is_failed]
        except exceptions.MachFiveError as error:
            self.log.warning("Whether the batch was bought twice could not be checked. %s", error)
            return None
        if all(each.id == list_id for each in found):
            return None
        chosen = found[0]
        duplicates = {list_id, *(each.id for each in found)} - {chosen.id}
        return chosen, tuple(sorted(duplicates))

    def _bought_lists(self) -> list[LeadList]:
        """Search for the lists of this generation and round; the oldest comes first."""
        found = _search(self.api, self.purchase).lists
        return sorted((each for tag, each in found if tag.is_same_list_as(self.tag)), key=by_age)


def _search(api: Api, purchase: Purchase, record: Record | None = None) -> SearchResult:
    """Read the lists, newest first, until they are older than the run.

    The first try reads its own campaign: the run may have been created again under its run_id. A later try reads all:
    the DAG may name another campaign by now.
    """
    lists: list[Found] = []
    cut_off: list[LeadList] = []
    for each in api.iter_lists(purchase.campaign_id if purchase.try_number == 1 else None):
        if purchase.since and each.created_at and each.created_at < purchase.since:
            break
        if tag := purchase.tag_of(each):
            lists.append(Found(tag, each))
        elif purchase.may_be_cut_off(each):
            cut_off.append(each)
    lists += _recorded(api, purchase, record, {each.id for _, each in lists})
    return SearchResult(tuple(lists), tuple(cut_off))


def _recorded(api: Api, purchase: Purchase, record: Record | None, found: set[str]) -> Iterator[Found]:
    """Yield the lists whose ids are on record and whose names do not show the tag: renamed, or not visible yet."""
    for text, list_id in record.lists.items() if record else ():
        tag = next(iter(Tag.all_in(text)), None)
        if tag is None or list_id in found or not tag.is_of_same_task(purchase.tag(1)):
            continue
        try:
            yield Found(tag, api.get_list(list_id))
        except exceptions.NotFoundError:
            # Not visible yet, or deleted. The wait for its completion allows for the first and reports the second.
            bought_at = pendulum.from_timestamp(record.time) if record else None
            yield Found(tag, LeadList(list_id, "pending", None, purchase.list_name(tag), bought_at))


def _submission_of(
    chosen: LeadList,
    tag: Tag,
    duplicates: tuple[str, ...],
    log: Any,
    *,
    bought: bool = False,
    submitted_at: float | None = None,
    answer: GeneratedSequence | None = None,
) -> Submission:
    """Return what is known of a list found by search; warn if it was bought more than once."""
    if duplicates:
        log.warning(
            "The batch was bought more than once. Using list %s; paid for and not used: %s. "
            "MachFive support can tell what happened.",
            chosen.id,
            ", ".join(duplicates),
        )
    return Submission(chosen.id, chosen.custom_name or "", tag, bought, submitted_at, chosen, answer, duplicates)


def _may_be_accepted(error: exceptions.MachFiveError) -> bool:
    """Whether a POST that ended with this error may have been accepted all the same."""
    if isinstance(error, exceptions.TransportError):
        return error.may_have_arrived
    return isinstance(error, (exceptions.ServerError, exceptions.ProtocolError))

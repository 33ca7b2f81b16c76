"""Buys a batch: every paid request of this provider goes through :func:`buy`.

An attempt searches for a list with its tag (``tag``), asks ``decision`` what to do, and sends the POST if it is to
buy. The intent is recorded before the POST and the list's id after it, so that a later attempt knows what to expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from machfive_provider import exceptions
from machfive_provider.api.models import AcceptedBatch, GeneratedSequence, GenerationOptions, Lead, LeadList
from machfive_provider.formatting import counted, duration
from machfive_provider.purchase.decision import (
    Adopt,
    Buy,
    History,
    Policy,
    SearchResult,
    WaitForUnanswered,
    by_age,
    decide_purchase,
)
from machfive_provider.purchase.record import SUBMITTED, Record, RecordStore
from machfive_provider.purchase.tag import Intent

__all__ = ["Reader", "Submission", "buy", "credits_needed"]

Send = Callable[[GenerationOptions], AcceptedBatch | GeneratedSequence]


class Reader(Protocol):
    """The reads of a hook that buying needs."""

    def iter_lists(self, campaign_id: str | None = None, status: str | None = None) -> Iterator[LeadList]:
        """Yield the workspace's lists, newest first."""

    def get_list(self, list_id: str) -> LeadList:
        """Return one list."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is known after buying or adopting.

    :param bought: whether this attempt paid
    :param submitted_at: epoch seconds of the POST, where it may be so recent that its list is not visible yet
    :param lead_list: the list as last seen
    :param answer: the sequence, if it came in the response of ``generate``
    :param duplicates: ids of further lists of the same purchase, paid for and not used
    """

    list_id: str
    list_name: str
    tag: str
    generation: int
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


def credits_needed(leads: Sequence[Lead], options: GenerationOptions) -> int:
    """Return what a submission costs: a credit a lead, two with ``enrichment_enabled`` (``docs/api.md``)."""
    return len(leads) * (2 if options.get("enrichment_enabled") else 1)


def buy(
    reader: Reader,
    send: Send,
    intent: Intent,
    history: History,
    records: RecordStore,
    policy: Policy,
    log: Any,
    now: Callable[[], float],
    before_paying: Callable[[], None] = lambda: None,
) -> Submission | WaitForUnanswered:
    """Search for the batch, and buy it only if no attempt has bought it.

    :param send: makes the paid call with the options given, once
    :param now: tells the epoch second
    :param before_paying: last checks that only matter if credits are spent
    :return: what was bought or adopted; or until when to search again, because an earlier POST may be unanswered
    :raises AmbiguousSubmissionError: if the POST may have been accepted and its list was not found
    :raises MachFiveError: as the reads, :func:`decide_purchase`, ``before_paying`` and ``send`` do
    """
    record = records.read()
    decision = decide_purchase(intent, _search(reader, intent, record), history, records, policy, now())
    match decision:
        case Adopt(found):
            log.info(
                "An earlier attempt has already bought this batch: list %s (%s). Nothing is spent.",
                found.id,
                found.processing_status,
            )
            return _adopted(intent, decision, log, submitted_at=record.time if record else None)
        case WaitForUnanswered():
            if history.absent_since is None:
                log.warning(
                    "An earlier try may have submitted this batch without getting the response, and no list is named "
                    "%s. Looking for it for %s before buying; nothing is spent meanwhile.",
                    intent.tag(decision.generation),
                    duration(history.shows_within),
                )
            return decision
    before_paying()
    purchase = _Purchase(reader, intent, decision, records, log)
    purchase.announce(history.shows_within)
    return purchase.submit(send, now)


@dataclass(frozen=True, slots=True)
class _Purchase:
    """The steps around one POST, for one generation of a batch."""

    reader: Reader
    intent: Intent
    decision: Buy
    records: RecordStore
    log: Any

    @property
    def generation(self) -> int:
        return self.decision.generation

    @property
    def tag(self) -> str:
        return self.intent.tag(self.generation)

    @property
    def list_name(self) -> str:
        return self.intent.list_name(self.generation)

    def announce(self, shows_within: float) -> None:
        """Tell what will be spent, and why again."""
        if self.generation > 1:
            self.log.warning(
                "The list bought before has failed on MachFive's side: buying the batch again, as generation %d.",
                self.generation,
            )
        if self.decision.may_be_duplicate:
            self.log.warning(
                "An earlier try may have submitted this batch, but its list did not show up within %s: buying the "
                "batch now. Should that list still show up, the batch is paid for twice: search the MachFive app for "
                "two lists with the tag %s.",
                duration(shows_within),
                self.tag,
            )
        self.log.info(
            "Submitting %s to campaign %s as list %r; if accepted, this spends %s.",
            counted(len(self.intent.leads), "lead"),
            self.intent.campaign_id,
            self.list_name,
            counted(credits_needed(self.intent.leads, self.intent.options), "credit"),
        )

    def submit(self, send: Send, now: Callable[[], float]) -> Submission:
        """Send the POST between its two records, and check what came of it."""
        self.records.write_intent(self.tag, self.generation)
        try:
            response = send({**self.intent.options, "list_name": self.list_name})
        except exceptions.MachFiveError as error:
            if not _may_be_accepted(error):
                self.records.restore()
                raise
            return self.find_after_lost_response(error)
        self.records.write_submitted(self.tag, self.generation, response.list_id)
        self.log.info("Accepted as list %s.", response.list_id)
        sequence = response if isinstance(response, GeneratedSequence) else None
        seen = self.read_back(response.list_id)
        if self.decision.may_be_duplicate and (earlier := self.find_duplicates(response.list_id)):
            return _adopted(self.intent, earlier, self.log, bought=True, answer=sequence)
        return Submission(
            list_id=response.list_id,
            list_name=self.list_name,
            tag=self.tag,
            generation=self.generation,
            bought=True,
            submitted_at=now(),
            lead_list=seen,
            answer=sequence,
        )

    def find_after_lost_response(self, error: exceptions.MachFiveError) -> Submission:
        """Search for the list of a POST whose response was lost.

        :raises AmbiguousSubmissionError: if there is none, or the search failed too
        """
        self.log.warning("It is not known whether the submission was accepted; searching for its list. %s", error)
        try:
            found = self.bought_lists()
        except exceptions.MachFiveError as failure:
            self.log.warning("The search failed as well. %s", failure)
            found = []
        if not found:
            raise exceptions.AmbiguousSubmissionError(
                f"the submission of {counted(len(self.intent.leads), 'lead')} may or may not have been accepted "
                f"({error.message}), and its list {self.tag} was not found. The next try searches again before it "
                "buys; let it run or clear the task",
                status_code=error.status_code,
                code=error.code,
                request_id=error.request_id,
                occurred_at=error.occurred_at,
                endpoint=error.endpoint,
            ) from error
        chosen, *others = found
        self.records.write_submitted(self.tag, self.generation, chosen.id)
        self.log.info("The submission was accepted: list %s (%s).", chosen.id, chosen.processing_status)
        adopt = Adopt(chosen, self.generation, tuple(each.id for each in others))
        return _adopted(self.intent, adopt, self.log, bought=True)

    def read_back(self, list_id: str) -> LeadList | None:
        """Read the list just bought: without the tag in its name a later attempt could not find it."""
        try:
            seen = self.reader.get_list(list_id)
        except exceptions.MachFiveError as error:
            self.log.info("List %s could not be read yet. %s", list_id, error)
            return None
        if self.intent.generation_of(seen) != self.generation:
            self.log.warning(
                "MachFive shows list %s as %r, without the tag %s: a later try could not recognise it by name. Before "
                "you clear this task, rename the list in the MachFive app so that its name holds the tag; otherwise "
                "the batch may be bought again.",
                list_id,
                seen.custom_name,
                self.tag,
            )
        return seen

    def find_duplicates(self, list_id: str) -> Adopt | None:
        """Search once more after a purchase that may be a duplicate: the earlier list may have shown up meanwhile."""
        try:
            found = [each for each in self.bought_lists() if not each.is_failed]
        except exceptions.MachFiveError as error:
            self.log.warning("Whether the batch was bought twice could not be checked. %s", error)
            return None
        if all(each.id == list_id for each in found):
            return None
        chosen = found[0]
        duplicates = {list_id, *(each.id for each in found)} - {chosen.id}
        return Adopt(chosen, self.generation, tuple(sorted(duplicates)))

    def bought_lists(self) -> list[LeadList]:
        """Search for the lists of this generation; the oldest comes first."""
        matching = _search(self.reader, self.intent).matching
        return sorted((each for generation, each in matching if generation == self.generation), key=by_age)


def _search(reader: Reader, intent: Intent, record: Record | None = None) -> SearchResult:
    """Read the campaign's lists, newest first, until they are older than the run."""
    matching: list[tuple[int, LeadList]] = []
    other_purchases, cut_tags = [], []
    for each in reader.iter_lists(intent.campaign_id):
        if intent.since and each.created_at and each.created_at < intent.since:
            break
        generation = intent.generation_of(each)
        if generation is not None:
            matching.append((generation, each))
        elif intent.is_other_purchase(each):
            other_purchases.append(each)
        elif intent.has_cut_tag(each):
            cut_tags.append(each)
    if record and record.phase == SUBMITTED and record.list_id not in {each.id for _, each in matching}:
        matching.append((record.generation, _recorded_list(reader, intent, record)))
    return SearchResult(tuple(matching), tuple(other_purchases), tuple(cut_tags))


def _recorded_list(reader: Reader, intent: Intent, record: Record) -> LeadList:
    """Return the list whose id is on record and whose name does not show the tag: renamed, or not visible yet."""
    try:
        return reader.get_list(record.list_id)
    except exceptions.NotFoundError:
        # Not visible yet, or deleted. The wait for its completion allows for the first and reports the second.
        return LeadList(record.list_id, "pending", intent.campaign_id, intent.list_name(record.generation))


def _adopted(
    intent: Intent,
    decision: Adopt,
    log: Any,
    *,
    bought: bool = False,
    submitted_at: float | None = None,
    answer: GeneratedSequence | None = None,
) -> Submission:
    chosen = decision.lead_list
    if decision.duplicates:
        log.warning(
            "The batch was bought more than once. Using list %s, the oldest; paid for and not used: %s. "
            "MachFive support can tell what happened.",
            chosen.id,
            ", ".join(decision.duplicates),
        )
    return Submission(
        list_id=chosen.id,
        list_name=chosen.custom_name or "",
        tag=intent.tag(decision.generation),
        generation=decision.generation,
        bought=bought,
        submitted_at=submitted_at,
        lead_list=chosen,
        answer=answer,
        duplicates=decision.duplicates,
    )


def _may_be_accepted(error: exceptions.MachFiveError) -> bool:
    """Whether a POST that ended with this error may have been accepted all the same."""
    if isinstance(error, exceptions.TransportError):
        return error.may_have_arrived
    return isinstance(error, (exceptions.ServerError, exceptions.ProtocolError))

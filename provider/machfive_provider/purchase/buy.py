"""Buying a batch: every paid request of this provider goes through :func:`buy`.

An attempt first looks for a list with its tag (``tags``) and adopts it. Where there is none it pays only if no
earlier POST can still turn up: because there was none, or because the list stayed away for the settling time.
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
    age,
    alive,
    decide_purchase,
)
from machfive_provider.purchase.record import SUBMITTED, Record, RecordStore
from machfive_provider.purchase.tag import Intent

__all__ = ["Submission", "buy", "credits_needed", "decide_purchase"]


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
    :param submitted_at: epoch seconds of a submission so recent that its list may not be visible yet
    :param lead_list: the list as last seen
    :param answer: the sequence, if ``generate`` answered with it
    :param duplicates: further lists of the same purchase, paid for and not used
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
        """The list as last seen, if that spares a look: a summary lacks what the details of a completed list tell."""
        known = self.lead_list
        return None if known and known.is_completed and known.leads_count is None else known


def credits_needed(leads: Sequence[Lead], options: GenerationOptions) -> int:
    """Return what a submission costs: a credit a lead, two with ``enrichment_enabled`` (API.md)."""
    return len(leads) * (2 if options.get("enrichment_enabled") else 1)


def buy(
    reader: Reader,
    send: Callable[[GenerationOptions], AcceptedBatch | GeneratedSequence],
    intent: Intent,
    history: History,
    records: RecordStore,
    policy: Policy,
    log: Any,
    now: Callable[[], float],
    before_paying: Callable[[], None] = lambda: None,
) -> Submission | WaitForUnanswered:
    """Look for the batch, and buy it only if it is not there.

    :param send: makes the paid call with the options given, once
    :param now: tells the epoch second
    :param before_paying: last checks that only matter if credits are spent
    :return: what was bought or adopted; or that it is too early to tell, and until when to look on
    :raises AmbiguousSubmissionError: if nobody can tell whether the purchase was accepted
    :raises MachFiveError: as the look-up, :func:`decide_purchase` and the call do
    """
    record = records.read()
    decision = decide_purchase(intent, _look(reader, intent, record), history, records, policy, now())
    match decision:
        case Adopt():
            log.info(
                "An earlier attempt has already bought this batch: list %s (%s). Nothing is spent.",
                decision.lead_list.id,
                decision.lead_list.processing_status,
            )
            return _adopted(intent, decision, log, submitted_at=record.time if record else None)
        case WaitForUnanswered():
            if history.absent_since is None:
                log.warning(
                    "An earlier try may have submitted this batch without learning the answer, and its list %s is not "
                    "to be seen. Looking for it for %s before buying; nothing is spent meanwhile.",
                    intent.tag(decision.generation),
                    duration(history.shows_within),
                )
            return decision
    before_paying()
    return _pay(reader, send, intent, decision, history, records, log, now)


def _pay(
    reader: Reader,
    send: Callable[[GenerationOptions], AcceptedBatch | GeneratedSequence],
    intent: Intent,
    decision: Buy,
    history: History,
    records: RecordStore,
    log: Any,
    now: Callable[[], float],
) -> Submission:
    generation = decision.generation
    tag, name = intent.tag(generation), intent.list_name(generation)
    _announce(intent, decision, history, name, log)
    records.write_intent(tag, generation)
    try:
        answer = send({**intent.options, "list_name": name})
    except exceptions.MachFiveError as error:
        if not _is_ambiguous(error):
            records.restore()
            raise
        found = _find_after_ambiguity(reader, intent, generation, error, log)
        records.write_submitted(tag, generation, found.lead_list.id)
        log.info(
            "The submission did arrive: list %s (%s). It is paid for once.",
            found.lead_list.id,
            found.lead_list.processing_status,
        )
        return _adopted(intent, found, log, bought=True)
    records.write_submitted(tag, generation, answer.list_id)
    log.info("Accepted as list %s.", answer.list_id)
    sequence = answer if isinstance(answer, GeneratedSequence) else None
    seen = _read_back(reader, intent, generation, answer.list_id, log)
    if decision.in_doubt and (double := _double(reader, intent, generation, answer.list_id, log)):
        return _adopted(intent, double, log, bought=True, answer=sequence)
    return Submission(
        list_id=answer.list_id,
        list_name=name,
        tag=tag,
        generation=generation,
        bought=True,
        submitted_at=now(),
        lead_list=seen,
        answer=sequence,
    )


def _announce(intent: Intent, decision: Buy, history: History, name: str, log: Any) -> None:
    if decision.generation > 1:
        log.warning(
            "The list bought before has failed on MachFive's side: buying the batch again, as generation %d.",
            decision.generation,
        )
    if decision.in_doubt:
        log.warning(
            "An earlier try may have submitted this batch, but no list has turned up for %s: buying it now. Should one "
            "turn up later, the batch is paid for twice: look for two lists with the tag %s in the MachFive app.",
            duration(history.shows_within),
            intent.tag(decision.generation),
        )
    log.info(
        "Submitting %s to campaign %s as list %r; if accepted, this spends %s.",
        counted(len(intent.leads), "lead"),
        intent.campaign_id,
        name,
        counted(credits_needed(intent.leads, intent.options), "credit"),
    )


def _look(reader: Reader, intent: Intent, record: Record | None = None) -> SearchResult:
    """Read the campaign's lists, newest first, back to where ours cannot be any more."""
    ours: list[tuple[int, LeadList]] = []
    others, cut = [], []
    for each in reader.iter_lists(intent.campaign_id):
        if intent.since and each.created_at and each.created_at < intent.since:
            break
        generation = intent.generation_of(each)
        if generation is not None:
            ours.append((generation, each))
        elif intent.is_other_purchase(each):
            others.append(each)
        elif intent.may_be_cut(each):
            cut.append(each)
    if record and record.phase == SUBMITTED and record.list_id not in {each.id for _, each in ours}:
        ours.append((record.generation, _recorded(reader, intent, record)))
    return SearchResult(tuple(ours), tuple(others), tuple(cut))


def _recorded(reader: Reader, intent: Intent, record: Record) -> LeadList:
    """Return the list whose id the state store kept, though its name does not show it."""
    try:
        return reader.get_list(record.list_id)
    except exceptions.NotFoundError:
        # Not visible yet, or deleted: whoever waits for it finds out.
        return LeadList(record.list_id, "pending", intent.campaign_id, intent.list_name(record.generation))


def _read_back(reader: Reader, intent: Intent, generation: int, list_id: str, log: Any) -> LeadList | None:
    """Look at the list just bought: whether its name kept the tag decides what a later attempt can know."""
    try:
        seen = reader.get_list(list_id)
    except exceptions.MachFiveError as error:
        log.info("List %s could not be looked at yet. %s", list_id, error)
        return None
    if intent.generation_of(seen) != generation:
        log.warning(
            "MachFive shows list %s as %r, without the tag %s: a later try could not recognise it by name. Should this "
            "task have to be cleared, rename the list in the MachFive app so that it holds the tag; otherwise the "
            "batch may be bought again.",
            list_id,
            seen.custom_name,
            intent.tag(generation),
        )
    return seen


def _double(reader: Reader, intent: Intent, generation: int, list_id: str, log: Any) -> Adopt | None:
    """Look once more after a purchase in doubt: the list that stayed away may be there now."""
    try:
        bought = [each for number, each in alive(_look(reader, intent).ours) if number == generation]
    except exceptions.MachFiveError as error:
        log.warning("Whether the batch was bought twice could not be looked up. %s", error)
        return None
    if all(each.id == list_id for each in bought):
        return None
    chosen = min(bought, key=age)
    ids = {list_id, *(each.id for each in bought)} - {chosen.id}
    return Adopt(chosen, generation, tuple(sorted(ids)))


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
    if decision.surplus:
        log.warning(
            "The batch was bought more than once. Using list %s, the oldest; paid for and not used: %s. "
            "MachFive support can tell what happened.",
            chosen.id,
            ", ".join(decision.surplus),
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
        duplicates=decision.surplus,
    )


def _is_ambiguous(error: exceptions.MachFiveError) -> bool:
    """Whether a paid call that ended so may have been accepted all the same."""
    if isinstance(error, exceptions.TransportError):
        return error.may_have_arrived
    return isinstance(error, (exceptions.ServerError, exceptions.ProtocolError))


def _find_after_ambiguity(
    reader: Reader, intent: Intent, generation: int, error: exceptions.MachFiveError, log: Any
) -> Adopt:
    log.warning("It is not known whether the submission was accepted; looking for its list. %s", error)
    try:
        found = [each for number, each in _look(reader, intent).ours if number == generation]
    except exceptions.MachFiveError as unseen:
        log.warning("That look failed as well. %s", unseen)
        found = []
    if found:
        oldest, *others = sorted(found, key=age)
        return Adopt(oldest, generation, tuple(each.id for each in others))
    raise exceptions.AmbiguousSubmissionError(
        f"the submission of {counted(len(intent.leads), 'lead')} may or may not have been accepted ({error.message}), "
        f"and its list {intent.tag(generation)} is not to be seen",
        status_code=error.status_code,
        code=error.code,
        request_id=error.request_id,
        occurred_at=error.occurred_at,
        endpoint=error.endpoint,
    ) from error

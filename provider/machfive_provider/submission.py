"""Buying a batch: every paid request of this provider goes through :func:`buy`.

The API has no idempotency key, so the list's name carries a tag that every attempt of the same task
computes alike. An attempt first looks for a list with its tag and adopts it; only where there is none
does it pay.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from machfive_provider import errors
from machfive_provider.api.models import AcceptedBatch, GeneratedSequence, GenerationOptions, Lead, LeadList
from machfive_provider.texts import counted

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = [
    "EXISTING_POLICIES",
    "Adopt",
    "Buy",
    "Intent",
    "Origin",
    "Submission",
    "buy",
    "credits_needed",
    "decide",
]

EXISTING_POLICIES = ("adopt", "resubmit", "fail")
_LONGEST_NAME = 100  # code points; we cut the name ourselves so that the server has no reason to cut the tag
_TAG = re.compile(r"\[af1:(?P<base>[0-9a-f]{10}-[0-9a-f]{12})(?:#(?P<generation>[0-9]+))?\]")
# They change how a list is shown or announced, not what is written.
_NOT_IN_RESULT = ("list_name", "notification_email")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who buys: the same for every attempt of a task in a DAG run, and for its mapped shards.

    :param namespace: from the connection, for deployments that share a workspace
    :param round: with ``on_existing_list="resubmit"``, the number of the clear; None otherwise
    """

    dag_id: str
    run_id: str
    task_id: str
    namespace: str | None = None
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be bought, for whom.

    :param options: as the user set them; ``list_name`` among them is the display name
    :param since: lists created before it cannot be ours
    """

    origin: Origin
    campaign_id: str
    leads: tuple[Lead, ...]
    options: GenerationOptions
    since: datetime | None = None

    @property
    def base(self) -> str:
        """``<who>-<what>``: equal for two attempts exactly if they mean the same purchase."""
        origin = self.origin
        who = [origin.namespace, origin.dag_id, origin.run_id, origin.task_id, origin.round]
        return f"{_digest(who)[:10]}-{self.what}"

    @property
    def what(self) -> str:
        """The part of the tag that changes with campaign, leads (in any order) and options."""
        what = [
            self.campaign_id,
            sorted(json.dumps(lead.to_json(), sort_keys=True) for lead in self.leads),
            {name: value for name, value in self.options.items() if name not in _NOT_IN_RESULT},
        ]
        return _digest(what)[:12]

    def is_tagged(self, tag: str) -> bool:
        """Whether a tag names the same campaign, leads and options, whoever bought them."""
        return f"-{self.what}" in tag

    def tag(self, generation: int) -> str:
        """Return the tag of a generation: 1 is the first purchase, 2 the one after its list failed."""
        return f"[af1:{self.base}]" if generation == 1 else f"[af1:{self.base}#{generation}]"

    def list_name(self, generation: int) -> str:
        """Return the name under which the list is bought: the user's, cut if need be, and the tag, whole."""
        tag = self.tag(generation)
        shown = str(self.options.get("list_name") or "").strip() or f"{self.origin.dag_id} {self.origin.task_id}"
        return f"{shown[: _LONGEST_NAME - len(tag) - 1].strip()} {tag}"

    def generation_of(self, lead_list: LeadList) -> int | None:
        """Return the generation of a list of this intent, None for any other list."""
        for tag in _TAG.finditer(lead_list.custom_name or ""):
            if tag["base"] == self.base:
                return int(tag["generation"] or 1)
        return None


@dataclass(frozen=True, slots=True)
class Adopt:
    """An earlier attempt has bought it: use its list."""

    lead_list: LeadList
    generation: int
    surplus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Buy:
    """Nobody has bought it, or what was bought failed."""

    generation: int


@dataclass(frozen=True, slots=True)
class Submission:
    """What is known after buying or adopting.

    :param lead_list: the list as last seen, None right after a purchase
    :param answer: the sequence, if ``generate`` answered with it
    """

    list_id: str
    list_name: str
    tag: str
    generation: int
    bought: bool
    lead_list: LeadList | None = None
    answer: GeneratedSequence | None = None

    @property
    def still_running(self) -> LeadList | None:
        """The list as last seen, if that spares a look: a summary lacks what a completed list tells."""
        return None if self.lead_list is None or self.lead_list.is_completed else self.lead_list


def credits_needed(leads: Sequence[Lead], options: GenerationOptions) -> int:
    """Return what a submission costs: a credit a lead, two with ``enrichment_enabled`` (API.md)."""
    return len(leads) * (2 if options.get("enrichment_enabled") else 1)


def decide(
    found: Iterable[tuple[int, LeadList]], on_existing_list: str = "adopt", max_resubmissions: int = 1
) -> Adopt | Buy:
    """Decide between using what is there and paying.

    Completed beats still running beats failed; of equals the oldest wins, so that all attempts agree.

    :param found: generation and list, of all lists of the intent
    :raises ListFailedError: if the last allowed generation failed
    :raises MachFivePermanentError: with ``on_existing_list="fail"``, if there is a list that did not fail
    """
    ordered = sorted(found, key=lambda each: (not each[1].is_completed, _age(each[1])))
    alive = [(generation, each) for generation, each in ordered if not each.is_failed]
    if not alive:
        last = max((generation for generation, _ in ordered), default=0)
        if last > max_resubmissions:
            raise errors.ListFailedError(
                f"the batch was bought {last} times and each list failed (the last: {ordered[-1][1].id}); "
                f"max_resubmissions is {max_resubmissions}. Ask MachFive support why, with the list's id"
            )
        return Buy(last + 1)
    generation, chosen = alive[0]
    if on_existing_list == "fail":
        raise errors.MachFivePermanentError(
            f"on_existing_list='fail': this very batch is already bought, as list {chosen.id} "
            f"({chosen.processing_status})."
        )
    return Adopt(chosen, generation, tuple(each.id for _, each in alive[1:]))


def buy(
    hook: MachFiveHook,
    intent: Intent,
    send: Callable[[GenerationOptions], AcceptedBatch | GeneratedSequence],
    log: Any,
    *,
    on_existing_list: str = "adopt",
    max_resubmissions: int = 1,
    before_paying: Callable[[], None] = lambda: None,
) -> Submission:
    """Look for the batch, and buy it only if it is not there.

    :param send: makes the paid call with the options given, once
    :param before_paying: last checks that only matter if credits are spent
    :raises AmbiguousSubmissionError: if nobody can tell whether the purchase was accepted
    :raises MachFiveError: as the look-up and the call do
    """
    decision = decide(_look(hook, intent), on_existing_list, max_resubmissions)
    if isinstance(decision, Adopt):
        return _adopted(intent, decision, log)
    before_paying()
    if decision.generation > 1:
        log.warning(
            "The list bought before has failed on MachFive's side: buying the batch again (%d of at most %d times).",
            decision.generation - 1,
            max_resubmissions,
        )
    name = intent.list_name(decision.generation)
    log.info(
        "Submitting %s to campaign %s as list %r; if accepted, this spends %s.",
        counted(len(intent.leads), "lead"),
        intent.campaign_id,
        name,
        counted(credits_needed(intent.leads, intent.options), "credit"),
    )
    try:
        answer = send({**intent.options, "list_name": name})
    except errors.MachFiveError as error:
        if not _is_ambiguous(error):
            raise
        return _find_after_ambiguity(hook, intent, decision.generation, error, log)
    log.info("Accepted as list %s.", answer.list_id)
    return Submission(
        list_id=answer.list_id,
        list_name=name,
        tag=intent.tag(decision.generation),
        generation=decision.generation,
        bought=True,
        answer=answer if isinstance(answer, GeneratedSequence) else None,
    )


def _look(hook: MachFiveHook, intent: Intent) -> list[tuple[int, LeadList]]:
    found = []
    for each in hook.iter_lists(intent.campaign_id):
        if intent.since and each.created_at and each.created_at < intent.since:
            break
        generation = intent.generation_of(each)
        if generation is not None:
            found.append((generation, each))
    return found


def _adopted(
    intent: Intent,
    decision: Adopt,
    log: Any,
    found: str = "An earlier attempt has already bought this batch: list %s (%s). Nothing is spent.",
) -> Submission:
    chosen = decision.lead_list
    log.info(found, chosen.id, chosen.processing_status)
    if decision.surplus:
        log.warning("The batch was bought more than once; not used: %s.", ", ".join(decision.surplus))
    return Submission(
        list_id=chosen.id,
        list_name=chosen.custom_name or "",
        tag=intent.tag(decision.generation),
        generation=decision.generation,
        bought=False,
        lead_list=chosen,
    )


def _is_ambiguous(error: errors.MachFiveError) -> bool:
    """Whether a paid call that ended so may have been accepted all the same."""
    if isinstance(error, errors.TransportError):
        return error.may_have_arrived
    return isinstance(error, (errors.ServerError, errors.ProtocolError))


def _find_after_ambiguity(
    hook: MachFiveHook, intent: Intent, generation: int, error: errors.MachFiveError, log: Any
) -> Submission:
    log.warning("It is not known whether the submission was accepted; looking for its list. %s", error)
    try:
        found = [(number, each) for number, each in _look(hook, intent) if number == generation]
    except errors.MachFiveError as unseen:
        log.warning("That look failed as well. %s", unseen)
        found = []
    if found:
        decision = Adopt(min((each for _, each in found), key=_age), generation)
        return _adopted(intent, decision, log, "The submission did arrive: list %s (%s). It is paid for once.")
    raise errors.AmbiguousSubmissionError(
        f"the submission of {counted(len(intent.leads), 'lead')} may or may not have been accepted ({error.message}), "
        f"and its list {intent.tag(generation)} is not to be seen",
        status_code=error.status_code,
        code=error.code,
        request_id=error.request_id,
        occurred_at=error.occurred_at,
        endpoint=error.endpoint,
    ) from error


def _age(lead_list: LeadList) -> tuple[str, str]:
    return (lead_list.created_at.isoformat() if lead_list.created_at else "", lead_list.id)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()

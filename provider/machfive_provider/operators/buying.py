"""Buys for a task: buy once, step aside while that is not possible, come back.

Begin with :meth:`Buyer.buy`. The rules of the purchase itself are in the package ``purchase``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from machfive_provider import exceptions
from machfive_provider.formatting import counted, duration
from machfive_provider.operators.base import ListWaitingOperator
from machfive_provider.operators.link import MachFiveCampaignLink
from machfive_provider.waiting.deferral import DEFERRAL_MARGIN

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import AcceptedBatch, GeneratedSequence, GenerationOptions, Lead
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.leads.prepare import PreparedLeads
    from machfive_provider.purchase.buy import Submission
    from machfive_provider.purchase.decision import History, WaitForUnanswered
    from machfive_provider.purchase.tag import Intent

__all__ = ["Attempt", "Buyer", "intent_of", "warn_of_unknown_fields"]

# Seconds to wait after a 429 that is not about capacity and names no time: MachFive asks for restraint (docs/api.md).
_RATE_LIMITED = 30.0


def warn_of_unknown_fields(log: Any, source: str, prepared: PreparedLeads) -> None:
    """Log the fields that MachFive does not have: once, for all leads together."""
    if prepared.unknown_fields:
        names = ", ".join(map(repr, prepared.unknown_fields))
        log.warning("%s: MachFive has no fields for %s; left out.", source, names)


def intent_of(
    context: Context,
    campaign_id: str,
    leads: Sequence[Lead],
    options: GenerationOptions,
    namespace: str | None = None,
    rounds: int | None = None,
) -> Intent:
    """Return what the task of this context is to buy.

    :param namespace: of the connection
    :param rounds: the number of the clear, where each clear buys again
    """
    from machfive_provider.purchase.tag import Intent, Origin

    ti, run = context["ti"], context["dag_run"]
    return Intent(
        origin=Origin(ti.dag_id, ti.run_id, ti.task_id, namespace, rounds),
        campaign_id=campaign_id,
        leads=tuple(leads),
        options=options,
        # run_after, because a clear resets the other times of a run; an hour for clocks that differ.
        since=run.run_after - timedelta(hours=1) if getattr(run, "run_after", None) else None,
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far this attempt is with its purchase. It survives deferrals, in the triggers' events.

    :param asked_at: epoch seconds at which it first asked for capacity in the workspace
    :param absent_since: epoch seconds of its first complete search without the list of an earlier attempt
    :param granted: whether it comes from the queue for capacity, with a slot reserved for it
    """

    asked_at: float
    absent_since: float | None = None
    granted: bool = False

    @classmethod
    def of_event(cls, event: Any, context: Context) -> Attempt:
        """Return the attempt that a trigger's event continues; raises the error that the event carries."""
        from machfive_provider.triggers import events

        found = events.read(event, "submit")
        # After losing a task Airflow may resume it with the event of an earlier try: its search proves nothing now.
        same_try = found.get("try_number") == context["ti"].try_number
        absent_since = found.get("absent_since") if same_try else None
        return cls(float(found["asked_at"]), absent_since, granted=bool(found.get("granted")))


@dataclass(frozen=True, slots=True)
class Buyer:
    """Buys one batch for a task, or adopts the list of an earlier attempt.

    :param task: the operator, which is resumed in its method ``resume_submission``
    :param capacity_timeout: seconds to wait for a free slot in the workspace
    :param shows_within: seconds for which the list of an unanswered submission may stay invisible
    """

    task: ListWaitingOperator
    context: Context
    on_existing_list: str
    max_resubmissions: int
    capacity_timeout: float
    shows_within: float

    def buy(
        self,
        campaign: tuple[str | None, str | None],
        prepared: PreparedLeads,
        options: GenerationOptions,
        send: Callable[[MachFiveHook, Intent, GenerationOptions], AcceptedBatch | GeneratedSequence],
        attempt: Attempt,
        before_paying: Callable[[], None] = lambda: None,
    ) -> tuple[Intent, Submission]:
        """Buy or adopt. Waits for a free slot, or for the list of an unanswered purchase to show up; may defer.

        :param campaign: its id and its name, of which one is None
        :param send: makes the paid call, once
        :param before_paying: last checks that only matter if credits are spent
        """
        from machfive_provider.purchase import buy
        from machfive_provider.purchase.decision import Policy, WaitForUnanswered
        from machfive_provider.purchase.record import RecordStore

        policy = Policy(self.on_existing_list, self.max_resubmissions)
        rounds = self._round() if self.on_existing_list == "resubmit" else None
        with self.task.hook() as hook:
            campaign_id = _campaign_id(hook, *campaign)
            intent = intent_of(self.context, campaign_id, prepared.leads, options, hook.settings.namespace, rounds)
            MachFiveCampaignLink.store(self.context, hook.settings.client.base_url, campaign_id)
            records = RecordStore.of(self.context, intent.base, self.task.log)

            def check_and_queue() -> None:
                before_paying()
                _queue_first(hook, attempt)

            while True:
                try:
                    outcome = buy.buy(
                        hook,
                        lambda given: send(hook, intent, given),
                        intent,
                        self._history(attempt),
                        records,
                        policy,
                        self.task.log,
                        time.time,
                        check_and_queue,
                    )
                except exceptions.RateLimitedError as error:
                    # Nothing was accepted: this is waiting, and waiting uses up none of the task's retries.
                    self._wait_for_capacity(hook, attempt, error)
                    attempt = replace(attempt, granted=True)
                    continue
                if not isinstance(outcome, WaitForUnanswered):
                    return intent, outcome
                self._wait_for_unanswered(intent, attempt, outcome)
                attempt = replace(attempt, absent_since=outcome.absent_since)

    def _round(self) -> int:
        # Airflow keeps it through automatic retries and changes it with a clear.
        return int(self.context["ti"].max_tries - (self.task.retries or 0))

    def _history(self, attempt: Attempt) -> History:
        from machfive_provider.purchase.decision import History

        ti = self.context["ti"]
        return History(
            try_number=ti.try_number,
            round=self._round(),
            # A clear resets it, so it separates the lists of this round from those of earlier ones.
            round_began=getattr(self.context["dag_run"], "start_date", None),
            mapped=ti.map_index is not None and ti.map_index >= 0,
            shows_within=self.shows_within,
            absent_since=attempt.absent_since,
        )

    def _wait_for_capacity(self, hook: MachFiveHook, attempt: Attempt, error: exceptions.RateLimitedError) -> None:
        """Return when the task may ask again, or defer."""
        from machfive_provider.waiting.capacity import no_capacity, wait_on_worker

        log, now = self.task.log, time.time()
        deadline = attempt.asked_at + self.capacity_timeout
        if now >= deadline:
            raise no_capacity(now - attempt.asked_at)
        where = "in the triggerer, this worker is free" if self.task.deferrable else "on this worker"
        log.info("%s Waiting %s, for %s at the most (capacity_timeout).", error, where, duration(deadline - now))
        is_full = isinstance(error, exceptions.WorkspaceLimitError)
        # What runs right after a 429 is the workspace's limit. An error without a status is from _queue_first.
        limit = _running_now(hook, log) if is_full and error.status_code else None
        pause = error.retry_after if error.retry_after is not None else 0.0 if is_full else _RATE_LIMITED
        if self.task.deferrable:
            self._defer_for_capacity(attempt, deadline, limit, now + pause)
        wait_on_worker(
            hook,
            asked_at=attempt.asked_at,
            deadline=deadline,
            interval=self.task.interval(),
            limit=limit,
            not_before=now + pause,
            log=log,
            sleep=time.sleep,
            now=time.time,
        )

    def _defer_for_capacity(self, attempt: Attempt, deadline: float, limit: int | None, not_before: float) -> NoReturn:
        from machfive_provider.triggers.capacity import MachFiveCapacityTrigger

        trigger = MachFiveCapacityTrigger(
            self.task.machfive_conn_id,
            attempt.asked_at,
            deadline,
            self.task.interval(),
            limit=limit,
            not_before=not_before,
            try_number=self.context["ti"].try_number,
            absent_since=attempt.absent_since,
        )
        self._defer(trigger, deadline)

    def _wait_for_unanswered(self, intent: Intent, attempt: Attempt, unanswered: WaitForUnanswered) -> None:
        """Let time pass before the next search for the list of an earlier attempt, on the worker or deferred."""
        from machfive_provider.waiting.decision import jittered

        if not self.task.deferrable:
            time.sleep(jittered(min(self.task.interval(), max(0.0, unanswered.until - time.time()))))
            return
        from machfive_provider.triggers.unanswered_purchase import MachFiveUnansweredPurchaseTrigger

        trigger = MachFiveUnansweredPurchaseTrigger(
            self.task.machfive_conn_id,
            campaign_id=intent.campaign_id,
            tag=intent.tag(unanswered.generation),
            since=intent.since.timestamp() if intent.since else 0.0,
            until=unanswered.until,
            poll_interval=self.task.interval(),
            asked_at=attempt.asked_at,
            try_number=self.context["ti"].try_number,
            absent_since=unanswered.absent_since,
        )
        self._defer(trigger, unanswered.until)

    def _defer(self, trigger: Any, until: float) -> NoReturn:
        left = max(0.0, until - time.time())
        self.task.defer(
            trigger=trigger, method_name="resume_submission", timeout=timedelta(seconds=left + DEFERRAL_MARGIN)
        )


def _campaign_id(hook: MachFiveHook, campaign_id: str | None, campaign_name: str | None) -> str:
    from machfive_provider.api.protocol import check_uuid

    return check_uuid("campaign_id", campaign_id) if campaign_id else hook.resolve_campaign(str(campaign_name)).id


def _queue_first(hook: MachFiveHook, attempt: Attempt) -> None:
    """Where the connection names the workspace's limit, queue for a slot without being refused first."""
    limit = hook.settings.max_concurrent_batches
    if limit is None or attempt.granted:
        return
    from machfive_provider.waiting.capacity import running_batches

    running = len(running_batches(hook))
    if running >= limit:
        raise exceptions.WorkspaceLimitError(
            f"the workspace runs {counted(running, 'batch', 'batches')}, and the connection's "
            f"max_concurrent_batches is {limit}"
        )


def _running_now(hook: MachFiveHook, log: Any) -> int | None:
    """Count the batches that run right after a 429: that many the workspace may have."""
    from machfive_provider.waiting.capacity import running_batches

    try:
        return len(running_batches(hook))
    except exceptions.MachFiveTransientError as error:
        log.info("The running batches could not be counted. %s", error)
        return None

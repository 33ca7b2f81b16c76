"""How a task that spends credits goes about it: buy once, step aside while that is not possible, come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from machfive_provider import exceptions
from machfive_provider.formatting import counted, duration
from machfive_provider.operators.link import MachFiveCampaignLink
from machfive_provider.operators.waiting import DEFERRAL_MARGIN, ListWaitingOperator, seconds

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import AcceptedBatch, GeneratedSequence, GenerationOptions
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.leads.prepare import PreparedLeads
    from machfive_provider.purchase.buy import Submission
    from machfive_provider.purchase.decision import History, WaitForUnanswered
    from machfive_provider.purchase.tag import Intent

__all__ = ["Attempt", "PurchasingOperator"]

# Seconds to hold back after a 429 that names none and is not about room: MachFive asks for restraint.
_RATE_LIMITED = 30.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where this attempt stands with its purchase; it survives deferrals.

    :param asked_at: epoch seconds at which it first asked for room in the workspace
    :param absent_since: epoch seconds of its first complete look without the list of an earlier attempt
    :param granted: whether it comes from the queue for room, with a place kept for it
    """

    asked_at: float
    absent_since: float | None = None
    granted: bool = False


class PurchasingOperator(ListWaitingOperator):
    """Base of the operators that spend credits.

    Subclasses prepare the leads in ``submit`` and hand them to ``buy``.

    :param on_existing_list: ``adopt``, ``resubmit`` or ``fail``
    :param max_resubmissions: how often a batch whose list failed is bought again
    :param capacity_timeout: seconds to wait for room when the workspace runs too many batches
    """

    on_existing_list: str
    max_resubmissions: int
    capacity_timeout: float | timedelta

    def execute(self, context: Context) -> Any:
        """Buy what is asked for, unless an earlier attempt has, and see it through."""
        return self.submit(context, Attempt(asked_at=time.time()))

    def resume_submission(self, context: Context, event: Any = None) -> Any:
        """Come back from the triggerer, where this task waited for room or for a list to turn up, and submit."""
        from machfive_provider.triggers import events

        found = events.read(event, "submit")
        # Airflow may resume a task that it lost with what an earlier try waited for: that look proves nothing now.
        same_try = found.get("try_number") == context["ti"].try_number
        absent_since = found.get("absent_since") if same_try else None
        return self.submit(context, Attempt(float(found["asked_at"]), absent_since, granted=bool(found.get("granted"))))

    def submit(self, context: Context, attempt: Attempt) -> Any:
        """Submit and see it through."""
        raise NotImplementedError

    def campaign(self, hook: MachFiveHook) -> str:
        """Return the campaign's id; asks the API if only its name is given."""
        raise NotImplementedError

    def shows_within(self) -> float:
        """Return for how many seconds the list of an unanswered submission may stay invisible."""
        from machfive_provider.purchase.decision import BATCH_SHOWS_WITHIN

        return BATCH_SHOWS_WITHIN

    def buy(
        self,
        context: Context,
        prepared: PreparedLeads,
        options: GenerationOptions,
        send: Callable[[MachFiveHook, Intent, GenerationOptions], AcceptedBatch | GeneratedSequence],
        attempt: Attempt,
        before_paying: Callable[[], None] = lambda: None,
    ) -> tuple[Intent, Submission]:
        """Buy or adopt, waiting for room in the workspace where it is full.

        :param send: makes the paid call, once
        :param before_paying: last checks that only matter if credits are spent
        """
        from machfive_provider.purchase import buy
        from machfive_provider.purchase.decision import Policy, WaitForUnanswered
        from machfive_provider.purchase.record import RecordStore

        policy = Policy(self.on_existing_list, self.max_resubmissions)
        with self.hook() as hook:
            intent = self.intent_of(context, self.campaign(hook), hook.settings.namespace, prepared, options)
            MachFiveCampaignLink.store(context, hook.settings.client.base_url, intent.campaign_id)
            records = RecordStore.of(context, intent.base, self.log)

            def check_and_queue() -> None:
                before_paying()
                self._queue_first(hook, attempt)

            while True:
                try:
                    outcome = buy.buy(
                        hook,
                        lambda given: send(hook, intent, given),
                        intent,
                        self._history(context, attempt),
                        records,
                        policy,
                        self.log,
                        time.time,
                        check_and_queue,
                    )
                except exceptions.RateLimitedError as error:
                    # Nothing was accepted: this is waiting, and waiting uses up none of the task's retries.
                    self._wait_for_capacity(context, hook, attempt, error)
                    attempt = replace(attempt, granted=True)
                    continue
                if not isinstance(outcome, WaitForUnanswered):
                    return intent, outcome
                self._look_on(context, intent, attempt, outcome)
                attempt = replace(attempt, absent_since=outcome.absent_since)

    def intent_of(
        self,
        context: Context,
        campaign_id: str,
        namespace: str | None,
        prepared: PreparedLeads,
        options: GenerationOptions,
    ) -> Intent:
        """Return what this task is to buy."""
        from machfive_provider.purchase.tag import Intent, Origin

        ti, run = context["ti"], context["dag_run"]
        rounds = self._round(context) if self.on_existing_list == "resubmit" else None
        return Intent(
            origin=Origin(ti.dag_id, ti.run_id, ti.task_id, namespace, rounds),
            campaign_id=campaign_id,
            leads=prepared.leads,
            options=options,
            # run_after, because a clear resets the other times of a run; an hour for clocks that differ.
            since=run.run_after - timedelta(hours=1) if getattr(run, "run_after", None) else None,
        )

    def _round(self, context: Context) -> int:
        # Constant within one round of automatic retries, another after each clear.
        return int(context["ti"].max_tries - (self.retries or 0))

    def _history(self, context: Context, attempt: Attempt) -> History:
        from machfive_provider.purchase.decision import History

        ti = context["ti"]
        return History(
            try_number=ti.try_number,
            round=self._round(context),
            # A clear resets it, which is what tells this round's lists from an earlier one's.
            round_began=getattr(context["dag_run"], "start_date", None),
            mapped=ti.map_index is not None and ti.map_index >= 0,
            shows_within=self.shows_within(),
            absent_since=attempt.absent_since,
        )

    def _queue_first(self, hook: MachFiveHook, attempt: Attempt) -> None:
        """Where the connection tells the workspace's limit, queue for a place without being refused first."""
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

    def _wait_for_capacity(
        self, context: Context, hook: MachFiveHook, attempt: Attempt, error: exceptions.RateLimitedError
    ) -> None:
        """Return when the task may ask again, or leave for the triggerer."""
        from machfive_provider.waiting.capacity import no_capacity, wait_on_worker

        now = time.time()
        deadline = attempt.asked_at + seconds("capacity_timeout", self.capacity_timeout)
        if now >= deadline:
            raise no_capacity(now - attempt.asked_at)
        where = "in the triggerer, this worker is free" if self.deferrable else "on this worker"
        self.log.info("%s Waiting %s, for %s at the most (capacity_timeout).", error, where, duration(deadline - now))
        is_full = isinstance(error, exceptions.WorkspaceLimitError)
        # What runs right after a refusal is the limit; where it is the connection that knows it, nobody was refused.
        limit = self._running_now(hook) if is_full and error.status_code else None
        pause = error.retry_after if error.retry_after is not None else 0.0 if is_full else _RATE_LIMITED
        if self.deferrable:
            self._defer_for_capacity(context, attempt, deadline, limit, now + pause)
        wait_on_worker(
            hook,
            asked_at=attempt.asked_at,
            deadline=deadline,
            interval=self._interval(),
            limit=limit,
            not_before=now + pause,
            log=self.log,
            sleep=time.sleep,
            now=time.time,
        )

    def _defer_for_capacity(
        self, context: Context, attempt: Attempt, deadline: float, limit: int | None, not_before: float
    ) -> NoReturn:
        from machfive_provider.triggers.capacity import MachFiveCapacityTrigger

        self.defer(
            trigger=MachFiveCapacityTrigger(
                self.machfive_conn_id,
                attempt.asked_at,
                deadline,
                self._interval(),
                limit=limit,
                not_before=not_before,
                try_number=context["ti"].try_number,
                absent_since=attempt.absent_since,
            ),
            method_name="resume_submission",
            timeout=timedelta(seconds=max(0.0, deadline - time.time()) + DEFERRAL_MARGIN),
        )

    def _running_now(self, hook: MachFiveHook) -> int | None:
        """Count the batches that run right after a refusal: that many the workspace may have."""
        from machfive_provider.waiting.capacity import running_batches

        try:
            return len(running_batches(hook))
        except exceptions.MachFiveTransientError as error:
            self.log.info("The running batches could not be counted. %s", error)
            return None

    def _look_on(self, context: Context, intent: Intent, attempt: Attempt, unanswered: WaitForUnanswered) -> None:
        """Let time pass before the next look for the list of an earlier attempt, on the worker or in the triggerer."""
        from machfive_provider.waiting.decision import jittered

        pause = min(self._interval(), max(0.0, unanswered.until - time.time()))
        if not self.deferrable:
            time.sleep(jittered(pause))
            return
        from machfive_provider.triggers.unanswered_purchase import MachFiveUnansweredPurchaseTrigger

        self.defer(
            trigger=MachFiveUnansweredPurchaseTrigger(
                self.machfive_conn_id,
                campaign_id=intent.campaign_id,
                tag=intent.tag(unanswered.generation),
                since=intent.since.timestamp() if intent.since else 0.0,
                until=unanswered.until,
                poll_interval=self._interval(),
                asked_at=attempt.asked_at,
                try_number=context["ti"].try_number,
                absent_since=unanswered.absent_since,
            ),
            method_name="resume_submission",
            timeout=timedelta(seconds=max(0.0, unanswered.until - time.time()) + DEFERRAL_MARGIN),
        )

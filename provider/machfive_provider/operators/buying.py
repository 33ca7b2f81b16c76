"""Buys for a task: search, buy once, step aside while that is not possible, come back.

Begin with :meth:`Buyer.buy`. The rules of the purchase itself are in the package ``purchase``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from machfive_provider import exceptions, telemetry
from machfive_provider.formatting import counted
from machfive_provider.operators import capacity
from machfive_provider.operators.attempt import Attempt, defer_purchase
from machfive_provider.operators.base import ListWaitingOperator
from machfive_provider.status import tell, telling_errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import GenerationOptions, Lead, LeadList
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.leads.suppression import Selection
    from machfive_provider.purchase.buy import Submission
    from machfive_provider.purchase.decision import Adopt, WaitForUnanswered
    from machfive_provider.purchase.purchase import Purchase

__all__ = ["Buyer", "cost_of_list", "find_campaign"]

# Seconds from the search to the POST. After a longer pause the search is repeated: another try may have bought since.
_SEARCH_VALID_FOR = 30.0


@dataclass(frozen=True, slots=True)
class Buyer:
    """Buys one batch for a task, or adopts the list of an earlier try.

    :param task: the operator, which is resumed in its method ``resume_submission``
    :param capacity_timeout: seconds to wait for a free slot in the workspace
    :param leads_skipped: for the XCom: how many of the leads given are invalid or duplicates
    """

    task: ListWaitingOperator
    context: Context
    on_existing_list: str
    max_resubmissions: int
    capacity_timeout: float
    leads_skipped: int = 0

    def buy(
        self,
        campaign: tuple[str | None, str | None],
        leads: Sequence[Lead],
        options: GenerationOptions,
        call: str,
        attempt: Attempt,
        *,
        select: Callable[[Purchase], Selection],
        one_lead: bool = False,
    ) -> Submission:
        """Buy or adopt. Waits for a free slot, or for the list of an unanswered purchase to show up; may defer.

        :param campaign: its id and its name, of which one is None
        :param leads: the valid leads, before any is left out
        :param call, one_lead: as in ``Purchase``
        :param select: returns the leads to send, as of now, after the last checks before credits are spent
        :raises AirflowSkipException: if nothing is bought and nobody is left to write to
        """
        from machfive_provider.purchase import buy
        from machfive_provider.purchase.decision import Adopt, WaitForUnanswered
        from machfive_provider.purchase.record import RecordStore

        log, records = self.task.log, RecordStore.of(self.context, self.task.log)
        records.begin(attempt.try_number)
        purchase: Purchase | None = None
        facts: dict[str, Any] = {"conn_id": self.task.machfive_conn_id}
        spanned = telemetry.span("machfive.purchase", facts)
        with self.task.hook() as hook, telling_errors(self.context, log, facts), spanned:
            while True:
                try:
                    if purchase is None:
                        purchase, known = self._purchase(hook, campaign, leads, options, call, one_lead=one_lead)
                        facts |= known
                    with _nothing_spent():
                        decision = buy.search_and_decide(hook, purchase, records.record, attempt.absent_since, log)
                    searched_at = time.time()
                    if isinstance(decision, Adopt):
                        facts |= _cost_of(decision, purchase)
                        return self._bought(facts, attempt, searched_at, buy.adopt(decision, records.record, log))
                    if isinstance(decision, WaitForUnanswered):
                        attempt = replace(attempt, absent_since=decision.absent_since)
                        tell(self.context, "looking_for_purchase", **facts)
                        self._wait_for_unanswered(purchase, attempt, decision)
                        continue
                    purchase = self._with(purchase, select(purchase), facts)
                    with _nothing_spent():
                        capacity.check_for_slot(hook, self.task, self.context["ti"], attempt)
                    # After a long pause the search comes first again.
                    if time.time() - searched_at <= _SEARCH_VALID_FOR:
                        bought = buy.submit(hook, purchase, decision, records, log)
                        return self._bought(facts, attempt, searched_at, bought)
                except exceptions.RateLimitedError as error:
                    # Nothing was accepted: this is waiting, and waiting uses up none of the task's retries.
                    tell(self.context, "waiting_for_room", **facts, asked_at=attempt.began_at)
                    attempt = capacity.wait_after_429(hook, self.task, attempt, error, self.capacity_timeout)

    def _with(self, purchase: Purchase, selection: Selection, facts: dict[str, Any]) -> Purchase:
        """Return the purchase of these leads, and note in ``facts`` what is left out.

        :raises AirflowSkipException: if nobody is left
        """
        left_out = len(purchase.leads) - len(selection.leads)
        # After a wait on the worker the filters may say something else than before it.
        if left_out or purchase.selected is not None:
            purchase = replace(purchase, selected=selection.leads)
            facts |= {
                "leads_submitted": len(selection.leads),
                "credits": purchase.credits,
                "leads_suppressed": selection.suppressed,
                "leads_already_written": selection.already_written,
            }
            text = (
                f"{left_out} of {counted(len(purchase.leads), 'lead')} left out: {selection.suppressed} suppressed, "
                f"{selection.already_written} already written."
            )
            if not selection.leads:
                tell(self.context, "skipped", **facts)
                raise AirflowSkipException(f"Nobody is left to write to, so nothing was bought. {text}")
            self.task.log.info("%s", text)
        return purchase

    def wait_for(self, bought: Submission, attempt: Attempt) -> Any:
        """Wait for the list that was bought or adopted, and finish the task with it; may defer."""
        return self.task.wait_for(
            self.context,
            bought.list_id,
            began_at=attempt.began_at,
            submitted_at=bought.submitted_at,
            seen=bought.seen,
        )

    def _bought(self, facts: dict[str, Any], attempt: Attempt, searched_at: float, bought: Submission) -> Submission:
        """Tell of the list that was bought or adopted, and return it."""
        facts |= {
            "list_id": bought.list_id,
            "list_name": bought.list_name,
            "tag": str(bought.tag),
            "generation": bought.tag.generation,
            "bought": bought.bought,
            **({"duplicates": list(bought.duplicates)} if bought.duplicates else {}),
        }
        self.task.batch = tell(self.context, "submitted", **facts)
        conn_id = self.task.machfive_conn_id
        telemetry.purchased(conn_id, bought=bought.bought, credits=facts["credits"])
        if attempt.granted:
            telemetry.waited("capacity", conn_id, attempt.began_at, searched_at)
        return bought

    def _purchase(
        self,
        hook: MachFiveHook,
        campaign: tuple[str | None, str | None],
        leads: Sequence[Lead],
        options: GenerationOptions,
        call: str,
        *,
        one_lead: bool,
    ) -> tuple[Purchase, dict[str, Any]]:
        """Return the purchase, and what is told of it before it is made."""
        from machfive_provider.purchase.purchase import Purchase

        with _nothing_spent():
            campaign_id, campaign_name = find_campaign(hook, *campaign)
        ti, run_after = self.context["ti"], getattr(self.context["dag_run"], "run_after", None)
        purchase = Purchase(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None,
            namespace=hook.settings.namespace,
            try_number=ti.try_number,
            round=ti.max_tries,
            campaign_id=campaign_id,
            leads=tuple(leads),
            options=options,
            call=call,
            one_lead=one_lead,
            on_existing_list=self.on_existing_list,
            max_resubmissions=self.max_resubmissions,
            # run_after, because a clear resets the other times of a run; an hour for clocks that differ.
            since=run_after - timedelta(hours=1) if run_after else None,
        )
        return purchase, {
            "campaign_id": purchase.campaign_id,
            "campaign_name": campaign_name,
            "list_name": purchase.title,
            "leads_submitted": len(purchase.leads),
            "leads_skipped": self.leads_skipped,
            "credits": purchase.credits,
        }

    def _wait_for_unanswered(self, purchase: Purchase, attempt: Attempt, unanswered: WaitForUnanswered) -> None:
        """Let time pass before the next search for the list of an earlier try, on the worker or deferred."""
        from machfive_provider.waiting.decision import jittered

        if not self.task.deferrable:
            time.sleep(jittered(min(self.task.interval(), max(0.0, unanswered.until - time.time()))))
            return
        from machfive_provider.triggers.unanswered_purchase import MachFiveUnansweredPurchaseTrigger

        trigger = MachFiveUnansweredPurchaseTrigger(
            self.task.machfive_conn_id,
            tag=str(purchase.tag(unanswered.generation)),
            known=list(unanswered.known),
            since=purchase.since.timestamp() if purchase.since else 0.0,
            until=unanswered.until,
            poll_interval=self.task.interval(),
            attempt=asdict(attempt),
        )
        defer_purchase(self.task, trigger, unanswered.until)


def _cost_of(decision: Adopt, purchase: Purchase) -> dict[str, Any]:
    """Return what is known of the leads of an adopted list: others may have been left out when it was bought."""
    if decision.tag.sent == purchase.tag(1).sent:
        return {}
    return cost_of_list(decision.lead_list, purchase.options)


def cost_of_list(lead_list: LeadList, options: GenerationOptions) -> dict[str, Any]:
    """Return what a list tells of its cost, for the XCom; None where it does not tell how many leads it has."""
    from machfive_provider.purchase.purchase import credits_needed

    number = lead_list.leads_count
    return {"leads_submitted": number, "credits": None if number is None else credits_needed(number, options)}


@contextmanager
def _nothing_spent() -> Iterator[None]:
    """Let errors of the reads before the purchase say so."""
    try:
        yield
    except exceptions.MachFiveTransientError as error:
        raise error.add("Nothing was spent.") from None


def find_campaign(hook: MachFiveHook, campaign_id: str | None, campaign_name: str | None) -> tuple[str, str | None]:
    """Return the campaign's id, and its name if the user has given that."""
    from machfive_provider.api.protocol import check_uuid

    if campaign_id:
        return check_uuid("campaign_id", campaign_id), None
    campaign = hook.resolve_campaign(str(campaign_name))
    return campaign.id, campaign.name

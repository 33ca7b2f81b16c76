"""What buying one lead and buying many have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from machfive_provider import errors
from machfive_provider.operators.link import MachFiveCampaignLink
from machfive_provider.operators.waiting import DEFERRAL_MARGIN, ListWaitingOperator, seconds
from machfive_provider.texts import duration

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import AcceptedBatch, GeneratedSequence, GenerationOptions
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.leads import PreparedLeads
    from machfive_provider.submission import Intent, Submission

__all__ = ["OPTION_FIELDS", "GenerateOperator"]

OPTION_FIELDS = (
    "list_name",
    "email_count",
    "email_signature",
    "signature_id",
    "additional_details",
    "approved_ctas",
    "enrichment_enabled",
    "notification_email",
)


class GenerateOperator(ListWaitingOperator):
    """What buying one lead and buying many have in common."""

    operator_extra_links = (MachFiveCampaignLink(),)
    ui_color = "#fdf1e3"
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "leads": "json",
        "lead": "json",
        "options": "json",
        "approved_ctas": "json",
    }

    def __init__(
        self,
        *,
        campaign_id: str | None = None,
        campaign_name: str | None = None,
        list_name: str | None = None,
        email_count: int | None = None,
        email_signature: str | None = None,
        signature_id: str | None = None,
        additional_details: str | None = None,
        approved_ctas: Sequence[str] | str | None = None,
        enrichment_enabled: bool | None = None,
        options: Mapping[str, Any] | None = None,
        on_existing_list: str = "adopt",
        max_resubmissions: int = 1,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 20,
        timeout: float | timedelta = 86400,
        capacity_timeout: float | timedelta = 86400,
        machfive_conn_id: str = "machfive_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.campaign_name = campaign_name
        self.list_name = list_name
        self.email_count = email_count
        self.email_signature = email_signature
        self.signature_id = signature_id
        self.additional_details = additional_details
        self.approved_ctas = approved_ctas
        self.enrichment_enabled = enrichment_enabled
        self.options = options
        self.on_existing_list = on_existing_list
        self.max_resubmissions = max_resubmissions
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.capacity_timeout = capacity_timeout
        self.machfive_conn_id = machfive_conn_id

    def execute(self, context: Context) -> Any:
        """Buy what is asked for, unless an earlier attempt has, and see it through."""
        return self.submit(context, asked_at=time.time())

    def resume_submission(self, context: Context, event: Any = None) -> Any:
        """Come back from the triggerer with room in the workspace, and submit."""
        from machfive_provider.triggers import events

        return self.submit(context, asked_at=float(events.read(event, "room")["asked_at"]))

    def submit(self, context: Context, asked_at: float) -> Any:
        """Submit and see it through.

        :param asked_at: when this attempt first asked for room in the workspace, epoch seconds
        """
        raise NotImplementedError

    def buy(
        self,
        context: Context,
        prepared: PreparedLeads,
        options: GenerationOptions,
        send: Callable[[MachFiveHook, Intent, GenerationOptions], AcceptedBatch | GeneratedSequence],
        asked_at: float,
        before_paying: Callable[[], None] = lambda: None,
    ) -> tuple[Intent, Submission]:
        """Buy or adopt, waiting for room in the workspace where it is full.

        :param send: makes the paid call, once
        :param before_paying: last checks that only matter if credits are spent
        """
        from machfive_provider import submission

        deadline = asked_at + seconds("capacity_timeout", self.capacity_timeout)
        with self.hook() as hook:
            intent = self.intent_of(context, self.campaign(hook), hook.settings.namespace, prepared, options)
            MachFiveCampaignLink.store(context, hook.settings.client.base_url, intent.campaign_id)
            while True:
                try:
                    return intent, submission.buy(
                        hook,
                        intent,
                        lambda given: send(hook, intent, given),
                        self.log,
                        on_existing_list=self.on_existing_list,
                        max_resubmissions=self.max_resubmissions,
                        before_paying=before_paying,
                    )
                except errors.WorkspaceLimitError as error:
                    self.log.info(
                        "The workspace runs as many batches as it may; nothing was bought. Waiting for room %s, for %s "
                        "at the most (capacity_timeout). Request id %s.",
                        "in the triggerer" if self.deferrable else "on this worker",
                        duration(max(0.0, deadline - time.time())),
                        error.request_id or "not given",
                    )
                    self._wait_for_room(asked_at, deadline, error.retry_after)

    def _wait_for_room(self, asked_at: float, deadline: float, retry_after: float | None) -> None:
        from machfive_provider.polling import jittered
        from machfive_provider.triggers.capacity import MachFiveCapacityTrigger, no_room

        now, interval = time.time(), self._interval()
        if now >= deadline:
            raise no_room(now - asked_at)
        if self.deferrable:
            self.defer(
                trigger=MachFiveCapacityTrigger(self.machfive_conn_id, asked_at, deadline, interval),
                method_name="resume_submission",
                timeout=timedelta(seconds=deadline - now + DEFERRAL_MARGIN),
            )
        time.sleep(jittered(min(max(interval, retry_after or 0.0), deadline - now)))

    def check_common(self) -> None:
        """Check the parameters both operators have; raises ``ConfigurationError``."""
        from machfive_provider.leads import check_policy
        from machfive_provider.submission import EXISTING_POLICIES

        check_policy("on_existing_list", self.on_existing_list, EXISTING_POLICIES)
        if not isinstance(self.max_resubmissions, int) or self.max_resubmissions < 0:
            raise errors.ConfigurationError(f"max_resubmissions must be 0 or more, not {self.max_resubmissions!r}.")
        if bool(self.campaign_id) == bool(self.campaign_name):
            which = "both" if self.campaign_id else "neither"
            raise errors.ConfigurationError(f"campaign_id and campaign_name: {which} given; give exactly one of them.")
        seconds("poll_interval", self.poll_interval)
        seconds("timeout", self.timeout)
        seconds("capacity_timeout", self.capacity_timeout)

    def campaign(self, hook: MachFiveHook) -> str:
        """Return the campaign's id; asks the API if only its name is given."""
        from machfive_provider.api.protocol import check_uuid

        if self.campaign_id:
            return check_uuid("campaign_id", self.campaign_id)
        return hook.resolve_campaign(str(self.campaign_name)).id

    def intent_of(
        self,
        context: Context,
        campaign_id: str,
        namespace: str | None,
        prepared: PreparedLeads,
        options: GenerationOptions,
    ) -> Intent:
        """Return what this task is to buy."""
        from machfive_provider.submission import Intent, Origin

        ti, run = context["ti"], context["dag_run"]
        # Constant within one round of automatic retries, another after each clear.
        clears = ti.max_tries - (self.retries or 0) if self.on_existing_list == "resubmit" else None
        return Intent(
            origin=Origin(ti.dag_id, ti.run_id, ti.task_id, namespace, clears),
            campaign_id=campaign_id,
            leads=prepared.leads,
            options=options,
            # run_after, because a clear resets the other times of a run; an hour for clocks that differ.
            since=run.run_after - timedelta(hours=1) if getattr(run, "run_after", None) else None,
        )

    def warn_of_unknown_fields(self, source: str, prepared: PreparedLeads) -> None:
        """Name what was given and MachFive has no field for: once, whatever the number of leads."""
        if prepared.unknown_fields:
            names = ", ".join(map(repr, prepared.unknown_fields))
            self.log.warning("%s: MachFive has no fields for %s; left out.", source, names)

    def named_options(self) -> dict[str, Any]:
        """Return the options given as arguments; None means not set."""
        return {name: getattr(self, name, None) for name in OPTION_FIELDS}

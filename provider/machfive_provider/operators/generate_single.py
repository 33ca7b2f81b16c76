"""The operator that buys the emails of a single lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, conf

from machfive_provider import exceptions, telemetry
from machfive_provider.formatting import counted
from machfive_provider.lineage import Datasets, at_machfive
from machfive_provider.operators import parameters
from machfive_provider.operators.base import ListWaitingOperator, bought_list_failed
from machfive_provider.operators.filters import check_filters, select_leads, suppression_of
from machfive_provider.operators.parameters import ExistingPolicy
from machfive_provider.operators.prepared import log_left_out
from machfive_provider.operators.private import PrivateParameter
from machfive_provider.status import end_of, tell

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import GenerationOptions, LeadList
    from machfive_provider.operators.attempt import Attempt

__all__ = ["MachFiveGenerateOperator"]


class MachFiveGenerateOperator(ListWaitingOperator):
    """Writes the emails of a single lead and returns them.

    On a worker it uses the synchronous ``generate`` call, which takes 3-10 minutes; deferrable, it submits a batch
    of one and waits in the triggerer. Spends one credit, two with ``enrichment_enabled``. Returns ``lead_id``,
    ``list_id``, ``sequence`` and ``credits_remaining``; a sequence that was fetched from its list has neither the first
    nor the last.

    :param lead: a mapping, an XComArg or a JSON object as text
    :param columns: MachFive's fields to keys of yours: ``{"email": "Mail", "name": ["First", "Last"]}``. Default: by
        the keys' names, docs/leads.md
    :param suppress: who must never be written to, as for the batch operator: if the lead is among them, nothing is
        bought or delivered and the task is skipped. Default: nobody
    :param campaign_id: the campaign's UUID; either this or ``campaign_name``
    :param campaign_name: the campaign's exact name, whatever the case
    :param list_name: shown in the MachFive app, before a tag of ours. Default: DAG and task
    :param email_count: how many emails, 1-5; newer accounts: 1-4, required. Default: the campaign's
    :param email_signature: text at the end of each email. Default: none
    :param signature_id: UUID of a saved signature instead; newer accounts. Default: none
    :param additional_details: context for the writer; newer accounts. For the older ones
        ``options={"campaign_angle": …}``. Default: none
    :param approved_ctas: calls to action that the writer may use. Default: the campaign's
    :param enrichment_enabled: research the lead further, for two credits instead of one. Default: MachFive's
    :param options: further options of the API, sent as given. Default: none
    :param on_existing_list: if this very lead is bought already: ``adopt`` (default) uses its list, ``resubmit`` buys
        again once for each clear of the task, ``fail`` fails the task
    :param max_resubmissions: how often the task's retries buy the lead again because its list failed. Default: 1
    :param deferrable: wait in the triggerer and hold no worker. Default: Airflow's ``[operators] default_deferrable``
    :param poll_interval: seconds between two polls of the list, 1 at least. Default: 20; MachFive asks for 10-30
    :param timeout: seconds after which this attempt stops waiting for the list; a retry waits for the same list, since
        MachFive goes on writing it. Default: 86400, a day
    :param capacity_timeout: seconds to wait for a free slot while the workspace runs as many batches as it may.
        Default: 86400, a day
    :param machfive_conn_id: the Airflow connection. Default: ``machfive_default``
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong by then
    :raises MachFiveError: see ``machfive_provider.exceptions`` for what each class does to the task
    """

    template_fields: Sequence[str] = (
        "lead",
        "suppress",
        "campaign_id",
        "campaign_name",
        *(name for name in parameters.OPTION_FIELDS if name != "notification_email"),
        "options",
        "machfive_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"lead": "json", "options": "json", "approved_ctas": "json"}
    ui_color = "#fdf1e3"
    suppress = PrivateParameter()

    def __init__(
        self,
        *,
        lead: Mapping[str, Any] | str | Any,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        suppress: str | Sequence[str] | Any = None,
        campaign_id: str | None = None,
        campaign_name: str | None = None,
        list_name: str | None = None,
        email_count: int | str | None = None,
        email_signature: str | None = None,
        signature_id: str | None = None,
        additional_details: str | None = None,
        approved_ctas: Sequence[str] | str | None = None,
        enrichment_enabled: bool | None = None,
        options: Mapping[str, Any] | None = None,
        on_existing_list: ExistingPolicy = "adopt",
        max_resubmissions: int = 1,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 20,
        timeout: float | timedelta = 86400,
        capacity_timeout: float | timedelta = 86400,
        machfive_conn_id: str = "machfive_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lead = lead
        self.columns = columns
        self.suppress = suppress
        self.suppress_is_given = suppress is not None
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
        parameters.check_purchase(self, rendered=False)
        parameters.check_columns(columns)
        check_filters(self)

    def execute(self, context: Context) -> Any:
        """Buy the sequence, unless an earlier attempt has, and return it."""
        from machfive_provider.operators.attempt import Attempt

        with self.telling_errors(context):
            return self._submit(context, Attempt.begin(context))

    def resume_submission(self, context: Context, event: Any = None) -> Any:
        """Continue after the triggerer waited for a free slot or for the list of an unanswered purchase."""
        from machfive_provider.operators.attempt import Attempt

        with self.telling_errors(context):
            return self._submit(context, Attempt.of_event(event, context))

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Fetch the sequence of a list that has ended."""
        from machfive_provider.api.models import usable_emails
        from machfive_provider.delivery.export import find_lead
        from machfive_provider.leads.prepare import single_lead
        from machfive_provider.purchase.options import build_options

        if lead_list.is_failed:
            telemetry.failed(self.machfive_conn_id)
            raise bought_list_failed(lead_list.id, self.max_resubmissions)
        self.batch = tell(context, "completed", **end_of(lead_list))
        wanted = single_lead(self.lead, self.columns).leads[0].key
        self._skip_if_suppressed(lead_list.id, wanted)
        options = build_options(parameters.named_options(self), self.options)
        with self.hook() as hook:
            lead = find_lead(hook.stream_export(lead_list.id, "json"), wanted)
        telemetry.delivered(self.machfive_conn_id, int(lead is not None), int(lead is None))
        if lead is None:
            raise exceptions.IncompleteExportError(
                f"List {lead_list.id} has completed without the emails of its lead, which is paid for.",
                remedy="MachFive support can say why, given the list's id. "
                "To pay for it again, clear the task with on_existing_list='resubmit'.",
            )
        # None would fail a task that reads the XCom as the list that it normally is.
        sequence = [] if (sent := lead.get("sequence")) is None else sent
        self.log.info("List %s has %s for the lead.", lead_list.id, counted(len(usable_emails(sequence)), "email"))
        self._warn_if_short(lead_list.id, sequence, options)
        return {"list_id": lead_list.id, "sequence": sequence}

    def lineage(self) -> tuple[Datasets, Datasets]:
        """Return campaign and list."""
        campaign_id = self.batch.get("campaign_id") or self.campaign_id
        return (
            [at_machfive(self.machfive_conn_id, "campaign", campaign_id)],
            [at_machfive(self.machfive_conn_id, "list", self.batch.get("list_id"))],
        )

    def _submit(self, context: Context, attempt: Attempt) -> Any:
        from machfive_provider.leads.prepare import single_lead
        from machfive_provider.operators.buying import Buyer
        from machfive_provider.purchase.options import build_options
        from machfive_provider.purchase.purchase import BATCH, SINGLE

        parameters.check_purchase(self, rendered=True)
        prepared, options = (
            single_lead(self.lead, self.columns),
            build_options(parameters.named_options(self), self.options),
        )
        log_left_out(self.log, "lead", prepared)
        buyer = Buyer(
            task=self,
            context=context,
            on_existing_list=self.on_existing_list,
            max_resubmissions=self.max_resubmissions,
            capacity_timeout=parameters.check_seconds("capacity_timeout", self.capacity_timeout),
        )
        campaign, call = (self.campaign_id, self.campaign_name), BATCH if self.deferrable else SINGLE
        bought = buyer.buy(
            campaign,
            prepared.leads,
            options,
            call,
            attempt,
            select=lambda _: select_leads(self, prepared.leads, self.log),
            one_lead=True,
        )
        if bought.answer is None:
            return buyer.wait_for(bought, attempt)
        tell(context, "completed", emails_created=len(bought.answer.sequence))
        self._skip_if_suppressed(bought.list_id, prepared.leads[0].key)
        telemetry.delivered(self.machfive_conn_id, 1, 0)
        written, left = len(bought.answer.sequence), bought.answer.credits_remaining
        self.log.info(
            "%s written. Credits left in the workspace: %s.",
            counted(written, "email"),
            "unknown" if left is None else left,
        )
        self._warn_if_short(bought.list_id, bought.answer.sent, options)
        return bought.answer.to_json()

    def _skip_if_suppressed(self, list_id: str, address: str) -> None:
        """Deliver nothing for a lead that has opted out since it was bought."""
        suppression = suppression_of(self)
        if suppression and suppression.covers(address):
            raise AirflowSkipException(
                f"The lead of list {list_id} has opted out since it was bought: its emails are not delivered."
            )

    def _warn_if_short(self, list_id: str, sequence: Any, options: GenerationOptions) -> None:
        from machfive_provider.delivery.count import short_sequence

        if warning := short_sequence(list_id, sequence, options.get("email_count")):
            self.log.warning("%s", warning)

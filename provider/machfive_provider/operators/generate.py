"""The operator that buys emails for a batch of leads. The one for a single lead is in ``generate_single``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from machfive_provider import exceptions, telemetry
from machfive_provider.delivery.format import ExportFormat, ExportShape, MissingPolicy, format_for
from machfive_provider.formatting import counted
from machfive_provider.lineage import Datasets, at_machfive, file
from machfive_provider.operators import parameters
from machfive_provider.operators.asset_events import describe_outlets
from machfive_provider.operators.base import ListWaitingOperator, bought_list_failed
from machfive_provider.operators.filters import check_filters, is_suppressed_by, select_leads, suppression_of
from machfive_provider.operators.generate_single import MachFiveGenerateOperator
from machfive_provider.operators.parameters import DuplicatePolicy, ExistingPolicy, InvalidPolicy
from machfive_provider.operators.private import PrivateParameter
from machfive_provider.status import end_of, tell, told

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import GenerationOptions, LeadList
    from machfive_provider.delivery.destination import Destination
    from machfive_provider.leads.suppression import Selection
    from machfive_provider.operators.attempt import Attempt
    from machfive_provider.purchase.purchase import Purchase

__all__ = ["MachFiveGenerateBatchOperator", "MachFiveGenerateOperator"]


class MachFiveGenerateBatchOperator(ListWaitingOperator):
    """Submits leads as one batch, waits until their emails are written and, with ``export_to``, writes them to a file.

    Spends one credit for each lead, two with ``enrichment_enabled``. Returns the ``list_id``. Tells in the XCom
    ``machfive_batch`` what it does, from the first wait to the end, and in ``machfive_export`` what it wrote.

    :param leads: a list of mappings, an XComArg or a JSON array as text; either this or ``leads_path``
    :param leads_path: a CSV, TSV, JSON, JSONL or Excel file anywhere ObjectStoragePath reaches; ``book.xlsx#Sheet2``
        names a sheet
    :param columns: MachFive's fields to columns of yours: ``{"email": "E-mail 1 - Value", "name": ["First", "Last"]}``.
        Default: by the columns' names, docs/leads.md
    :param suppress: who must never be written to: a path, several, or a list of addresses and domains
        (``*.example.org`` with its subdomains). Left out of the purchase and, if they opt out later, of the result.
        Default: nobody. docs/suppression.md
    :param skip_already_written: earlier results, a path or pattern of exports or several: who has a sequence there is
        left out. If nobody is left and nothing is bought, the task is skipped. Default: none
    :param campaign_id: the campaign's UUID; either this or ``campaign_name``
    :param campaign_name: the campaign's exact name, whatever the case
    :param list_name: shown in the MachFive app, before a tag of ours. Default: DAG and task
    :param email_count: emails for each lead, 1-5; newer accounts: 1-4, required. Default: the campaign's
    :param email_signature: text at the end of each email. Default: none
    :param signature_id: UUID of a saved signature instead; newer accounts. Default: none
    :param additional_details: context for the writer; newer accounts. For the older ones
        ``options={"campaign_angle": …}``. Default: none
    :param approved_ctas: calls to action that the writer may use. Default: the campaign's
    :param enrichment_enabled: research each lead further, for two credits a lead instead of one. Default: MachFive's
    :param notification_email: MachFive writes to it when the list has completed. Default: nobody
    :param options: further options of the API, sent as given. Default: none
    :param max_credits: a batch that costs more credits is refused before anything is sent. Default: no limit
    :param approved: what ``MachFiveCheckLeadsOperator`` has returned: another batch, or one that costs more, is refused
        before anything is sent. Default: nothing has to be approved. docs/approval.md
    :param on_invalid_lead: ``fail`` (default), or ``skip`` to leave invalid leads out
    :param on_duplicate_lead: ``fail`` (default), or ``first`` to keep the first of those with the same email
    :param on_existing_list: if this very batch is bought already: ``adopt`` (default) uses its list, ``resubmit`` buys
        again once for each clear of the task, ``fail`` fails the task
    :param max_resubmissions: how often the task's retries buy a batch again whose list failed. Default: 1
    :param wait_for_completion: False returns right after the submission, whatever ``deferrable`` says. Default: True
    :param deferrable: wait in the triggerer and hold no worker. Default: Airflow's ``[operators] default_deferrable``
    :param poll_interval: seconds between two polls of the list, 1 at least. Default: 20; MachFive asks for 10-30
    :param timeout: seconds after which this attempt stops waiting for the list; a retry waits for the same list, since
        MachFive goes on writing it. Default: 86400, a day
    :param capacity_timeout: seconds to wait for a free slot while the workspace runs as many batches as it may.
        Default: 86400, a day
    :param export_to: path or URL to which the emails are written. Default: none, nothing is written
    :param export_format: ``csv``, ``json``, ``jsonl`` or ``parquet``. Default: by the ending of ``export_to``
    :param export_shape: ``api`` (default), as MachFive sends leads, or ``flat``, one row a lead with ``subject_1``,
        ``body_1``, ``subject_2`` ..., which sending tools import; csv and jsonl only
    :param escape_formulas: write an apostrophe before each cell of a csv that a spreadsheet would calculate. Default:
        False
    :param overwrite: False refuses an existing destination before anything is bought. Default: True
    :param on_missing_leads: if the result lacks leads that were bought: ``fail`` (default), ``warn`` or ``ignore``
    :param machfive_conn_id: the Airflow connection. Default: ``machfive_default``
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong by then
    :raises MachFiveError: see ``machfive_provider.exceptions`` for what each class does to the task
    """

    template_fields: Sequence[str] = (
        "leads",
        "leads_path",
        "suppress",
        "skip_already_written",
        "campaign_id",
        "campaign_name",
        *parameters.OPTION_FIELDS,
        "options",
        "approved",
        "export_to",
        "export_format",
        "machfive_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"leads": "json", "options": "json", "approved_ctas": "json"}
    ui_color = "#fdf1e3"
    leads = PrivateParameter()
    suppress = PrivateParameter()

    def __init__(
        self,
        *,
        leads: Iterable[Mapping[str, Any]] | str | Any = None,
        leads_path: str | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        suppress: str | Sequence[str] | Any = None,
        skip_already_written: str | Sequence[str] | Any = None,
        campaign_id: str | None = None,
        campaign_name: str | None = None,
        list_name: str | None = None,
        email_count: int | str | None = None,
        email_signature: str | None = None,
        signature_id: str | None = None,
        additional_details: str | None = None,
        approved_ctas: Sequence[str] | str | None = None,
        enrichment_enabled: bool | None = None,
        notification_email: str | None = None,
        options: Mapping[str, Any] | None = None,
        max_credits: int | None = None,
        approved: Mapping[str, Any] | Any = None,
        on_invalid_lead: InvalidPolicy = "fail",
        on_duplicate_lead: DuplicatePolicy = "fail",
        on_existing_list: ExistingPolicy = "adopt",
        max_resubmissions: int = 1,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 20,
        timeout: float | timedelta = 86400,
        capacity_timeout: float | timedelta = 86400,
        export_to: str | None = None,
        export_format: ExportFormat | None = None,
        export_shape: ExportShape = "api",
        escape_formulas: bool = False,
        overwrite: bool = True,
        on_missing_leads: MissingPolicy = "fail",
        machfive_conn_id: str = "machfive_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.leads = leads
        self.leads_path = leads_path
        self.columns = columns
        self.suppress = suppress
        self.suppress_is_given = suppress is not None
        self.skip_already_written = skip_already_written
        self.campaign_id = campaign_id
        self.campaign_name = campaign_name
        self.list_name = list_name
        self.email_count = email_count
        self.email_signature = email_signature
        self.signature_id = signature_id
        self.additional_details = additional_details
        self.approved_ctas = approved_ctas
        self.enrichment_enabled = enrichment_enabled
        self.notification_email = notification_email
        self.options = options
        self.max_credits = max_credits
        self.approved = approved
        self.approved_is_given = approved is not None
        self.on_invalid_lead = on_invalid_lead
        self.on_duplicate_lead = on_duplicate_lead
        self.on_existing_list = on_existing_list
        self.max_resubmissions = max_resubmissions
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.capacity_timeout = capacity_timeout
        self.export_to = export_to
        self.export_format = export_format
        self.export_shape = export_shape
        self.escape_formulas = escape_formulas
        self.overwrite = overwrite
        self.on_missing_leads = on_missing_leads
        self.machfive_conn_id = machfive_conn_id
        self._check(rendered=False)

    def execute(self, context: Context) -> Any:
        """Submit the batch, unless an earlier attempt has, and wait for it."""
        from machfive_provider.operators.attempt import Attempt

        with self.telling_errors(context):
            return self._submit(context, Attempt.begin(context))

    def resume_submission(self, context: Context, event: Any = None) -> Any:
        """Continue after the triggerer waited for a free slot or for the list of an unanswered purchase."""
        from machfive_provider.operators.attempt import Attempt

        with self.telling_errors(context):
            return self._submit(context, Attempt.of_event(event, context))

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Report, export and count a list that has ended."""
        if lead_list.is_failed:
            telemetry.failed(self.machfive_conn_id)
            raise bought_list_failed(lead_list.id, self.max_resubmissions)
        self.log.info(
            "List %s has completed: %s, %s.",
            lead_list.id,
            counted(lead_list.leads_count, "lead"),
            counted(lead_list.emails_created, "email"),
        )
        self.batch = tell(context, "completed", **self._cost(context, lead_list), **end_of(lead_list))
        if destination := self._destination():
            self._export(context, lead_list, destination)
        describe_outlets(self, context, lead_list.id)
        return lead_list.id

    def _cost(self, context: Context, lead_list: LeadList) -> dict[str, Any]:
        """Return what the list cost, where it was adopted while that was not known."""
        from machfive_provider.operators.buying import cost_of_list
        from machfive_provider.purchase.options import build_options

        batch = told(context)
        if not batch or batch.get("credits") is not None:
            return {}
        return cost_of_list(lead_list, build_options(parameters.named_options(self), self.options))

    def lineage(self) -> tuple[Datasets, Datasets]:
        """Return leads file and campaign, and list and export."""
        campaign_id = self.batch.get("campaign_id") or self.campaign_id
        return (
            [file(self.leads_path), at_machfive(self.machfive_conn_id, "campaign", campaign_id)],
            [
                at_machfive(self.machfive_conn_id, "list", self.batch.get("list_id")),
                file(self.export_to, *self.written),
            ],
        )

    def has_work_left(self) -> bool:
        """Whether there is a file to write or an XCom to push."""
        return self.export_to is not None or self.do_xcom_push

    def _check(self, *, rendered: bool) -> None:
        """Check the parameters; ``rendered=False`` leaves templates and XComArgs out."""
        parameters.check_one_of("leads", self.leads, "leads_path", self.leads_path, rendered=rendered)
        parameters.check_purchase(self, rendered=rendered)
        parameters.check_columns(self.columns)
        check_filters(self)
        parameters.check_choice("on_invalid_lead", self.on_invalid_lead, InvalidPolicy)
        parameters.check_choice("on_duplicate_lead", self.on_duplicate_lead, DuplicatePolicy)
        parameters.check_choice("on_missing_leads", self.on_missing_leads, MissingPolicy)
        parameters.check_choice("export_shape", self.export_shape, ExportShape)
        if self.max_credits is not None:
            parameters.check_whole_number("max_credits", self.max_credits, least=1)
        if self.export_to is None:
            return
        if not self.wait_for_completion:
            raise exceptions.ConfigurationError(
                "export_to needs wait_for_completion=True: there is nothing to export before the list has completed. "
                "Drop one of them, or export later with MachFiveExportListOperator."
            )
        parameters.check_export(self, rendered=rendered)

    def _submit(self, context: Context, attempt: Attempt) -> Any:
        from machfive_provider.operators.buying import Buyer
        from machfive_provider.operators.prepared import prepare_leads
        from machfive_provider.purchase.options import build_options
        from machfive_provider.purchase.purchase import BATCH

        self._check(rendered=True)
        prepared, options = (
            prepare_leads(self, self.leads_path),
            build_options(parameters.named_options(self), self.options),
        )
        if self.suppress is None and self.skip_already_written is None:
            self._guard_spending(len(prepared.leads), options)
        destination = self._destination()
        buyer = Buyer(
            task=self,
            context=context,
            on_existing_list=self.on_existing_list,
            max_resubmissions=self.max_resubmissions,
            capacity_timeout=parameters.check_seconds("capacity_timeout", self.capacity_timeout),
            leads_skipped=prepared.skipped,
        )
        bought = buyer.buy(
            (self.campaign_id, self.campaign_name),
            prepared.leads,
            options,
            BATCH,
            attempt,
            select=lambda purchase: self._select(purchase, destination),
        )
        if not self.wait_for_completion:
            describe_outlets(self, context, bought.list_id)
            return bought.list_id
        return buyer.wait_for(bought, attempt)

    def _select(self, purchase: Purchase, destination: Destination | None) -> Selection:
        """Return the leads to send, after the last checks before credits are spent."""
        selection = select_leads(self, purchase.leads, self.log)
        cost = self._guard_spending(len(selection.leads), purchase.options)
        if self.approved_is_given:
            from machfive_provider.operators.check import check_approved

            check_approved(self.approved, purchase.what, cost)
        if destination and selection.leads:
            destination.check(must_be_new=True)
        return selection

    def _guard_spending(self, leads: int, options: GenerationOptions) -> int:
        """Return what so many leads cost."""
        from machfive_provider.purchase.purchase import credits_needed

        cost = credits_needed(leads, options)
        if self.max_credits is not None and cost > self.max_credits:
            doubled = " (enrichment_enabled counts each lead twice)" if cost > leads else ""
            raise exceptions.InvalidLeadsError(
                f"{counted(leads, 'lead')} cost {counted(cost, 'credit')}{doubled}, more than "
                f"max_credits={self.max_credits} allows. Nothing was sent. Submit fewer leads or raise max_credits."
            )
        return cost

    def _destination(self) -> Destination | None:
        """Return where to write, if anything is to be written there."""
        if self.export_to is None:
            return None
        from machfive_provider.delivery.destination import Destination

        destination = Destination(self.export_to, overwrite=self.overwrite)
        destination.check(must_be_new=False)
        return destination

    def _export(self, context: Context, lead_list: LeadList, destination: Destination) -> None:
        from machfive_provider.delivery.export import write_export
        from machfive_provider.delivery.report import report_export
        from machfive_provider.operators.expected import expected_of_purchase

        form, suppression = format_for(self.export_to, self.export_format), suppression_of(self)
        expected = expected_of_purchase(self, self.batch, suppression)
        with self.hook() as hook:
            figures = write_export(
                hook,
                lead_list,
                destination,
                form,
                email_count=expected.email_count,
                shape=self.export_shape,
                escape_formulas=self.escape_formulas,
                is_suppressed=is_suppressed_by(suppression),
            )
        self.written = (figures.emails if form == "parquet" else figures.leads, figures.bytes)
        report_export(self, context, lead_list.id, destination, figures, expected)

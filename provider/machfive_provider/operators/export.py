"""The operator that exports a list, whoever bought it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from machfive_provider import exceptions
from machfive_provider.delivery.format import ExportFormat, ExportShape, MissingPolicy, format_for
from machfive_provider.lineage import Datasets, at_machfive, file
from machfive_provider.operators import parameters
from machfive_provider.operators.asset_events import describe_outlets
from machfive_provider.operators.base import ListWaitingOperator
from machfive_provider.operators.filters import check_filters, is_suppressed_by, suppression_of
from machfive_provider.operators.private import PrivateParameter
from machfive_provider.status import end_of, tell

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.delivery.destination import Destination

__all__ = ["MachFiveExportListOperator"]


class MachFiveExportListOperator(ListWaitingOperator):
    """Waits until a list has completed and writes its emails to a file or object.

    Spends nothing. The destination appears complete or not at all. Leads that are missing from it are written beside
    it, to a file with ``.missing.csv`` at the end of its name that ``leads_path`` takes. Returns the destination, and
    pushes the XCom ``machfive_export`` (path, bytes, leads, emails, missing, extra, short, missing_path).

    :param list_id: the list's UUID
    :param export_to: path or URL that ObjectStoragePath reaches
    :param export_format: ``csv``, ``json``, ``jsonl`` or ``parquet``. Default: by the ending of ``export_to``
    :param export_shape: ``api`` (default), as MachFive sends leads, or ``flat``, one row a lead with ``subject_1``,
        ``body_1``, ``subject_2`` ..., which sending tools import; csv and jsonl only
    :param escape_formulas: write an apostrophe before each cell of a csv that a spreadsheet would calculate. Default:
        False
    :param overwrite: False accepts an existing destination only if it holds these very bytes. Default: True
    :param expected_leads: a number, a list of leads or emails, or a leads file, to compare the result with. Default:
        the list's own ``leads_count``
    :param on_missing_leads: if leads are missing from the result: ``fail`` (default), ``warn`` or ``ignore``
    :param suppress: who must never be written to: a path, several, or a list of addresses and domains; they are
        left out of the result and counted as ``suppressed_later``. Default: nobody
    :param deferrable: wait in the triggerer and hold no worker. Default: Airflow's ``[operators] default_deferrable``
    :param poll_interval: seconds between two polls of the list, 1 at least. Default: 20; MachFive asks for 10-30
    :param timeout: seconds after which this attempt stops waiting for the list. Default: 86400, a day
    :param machfive_conn_id: the Airflow connection. Default: ``machfive_default``
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong by then
    :raises ListFailedError: if the list ended failed
    :raises IncompleteExportError: if leads are missing, under ``fail``
    """

    template_fields: Sequence[str] = (
        "list_id",
        "export_to",
        "export_format",
        "expected_leads",
        "suppress",
        "machfive_conn_id",
    )
    ui_color = "#e4f3ea"
    suppress = PrivateParameter()

    def __init__(
        self,
        *,
        list_id: str,
        export_to: str,
        export_format: ExportFormat | None = None,
        export_shape: ExportShape = "api",
        escape_formulas: bool = False,
        overwrite: bool = True,
        expected_leads: Any = None,
        on_missing_leads: MissingPolicy = "fail",
        suppress: str | Sequence[str] | Any = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 20,
        timeout: float | timedelta = 86400,
        machfive_conn_id: str = "machfive_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.list_id = list_id
        self.export_to = export_to
        self.export_format = export_format
        self.export_shape = export_shape
        self.escape_formulas = escape_formulas
        self.overwrite = overwrite
        self.expected_leads = expected_leads
        self.on_missing_leads = on_missing_leads
        self.suppress = suppress
        self.suppress_is_given = suppress is not None
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.machfive_conn_id = machfive_conn_id
        self._check(rendered=False)

    def execute(self, context: Context) -> Any:
        """Wait for the list, then export it."""
        from machfive_provider.api.protocol import check_uuid
        from machfive_provider.operators.expected import expected_of

        with self.telling_errors(context):
            self._check(rendered=True)
            list_id = check_uuid("list_id", self.list_id)
            expected_of(self.expected_leads, None)
            self._destination().check(must_be_new=False)
            tell(context, "submitted", conn_id=self.machfive_conn_id, list_id=list_id)
            return self.wait_for(context, list_id)

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Export and count a list that has completed."""
        from machfive_provider.delivery.export import write_export
        from machfive_provider.delivery.report import report_export
        from machfive_provider.operators.expected import expected_of

        if lead_list.is_failed:
            raise exceptions.ListFailedError(f"List {lead_list.id} failed on MachFive's side.")
        facts = {"list_name": lead_list.custom_name, "campaign_id": lead_list.campaign_id}
        tell(context, "completed", **facts, **end_of(lead_list))
        self.log.info("List %s has completed; writing it to %s.", lead_list.id, self.export_to)
        destination, form = self._destination(), format_for(self.export_to, self.export_format)
        suppression = suppression_of(self)
        with self.hook() as hook:
            figures = write_export(
                hook,
                lead_list,
                destination,
                form,
                shape=self.export_shape,
                escape_formulas=self.escape_formulas,
                is_suppressed=is_suppressed_by(suppression),
            )
        self.written = (figures.emails if form == "parquet" else figures.leads, figures.bytes)
        expected = expected_of(self.expected_leads, lead_list, suppression)
        report_export(self, context, lead_list.id, destination, figures, expected)
        describe_outlets(self, context, lead_list.id)
        return destination.url

    def lineage(self) -> tuple[Datasets, Datasets]:
        """Return list and export."""
        return (
            [at_machfive(self.machfive_conn_id, "list", self.list_id)],
            [file(self.export_to, *self.written)],
        )

    def _check(self, *, rendered: bool) -> None:
        """Check the parameters; ``rendered=False`` leaves templates and XComArgs out."""
        parameters.check_choice("on_missing_leads", self.on_missing_leads, MissingPolicy)
        parameters.check_choice("export_shape", self.export_shape, ExportShape)
        parameters.check_seconds("poll_interval", self.poll_interval)
        parameters.check_seconds("timeout", self.timeout)
        parameters.check_export(self, rendered=rendered)
        check_filters(self)

    def _destination(self) -> Destination:
        from machfive_provider.delivery.destination import Destination

        return Destination(self.export_to, overwrite=self.overwrite)

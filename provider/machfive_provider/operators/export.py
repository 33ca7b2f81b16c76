"""The operator that exports a list, whoever bought it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from machfive_provider import exceptions
from machfive_provider.formatting import kind_of
from machfive_provider.operators.link import MachFiveCampaignLink
from machfive_provider.operators.waiting import ListWaitingOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.delivery.count import Expected
    from machfive_provider.delivery.destination import Destination

__all__ = ["MachFiveExportListOperator"]


class MachFiveExportListOperator(ListWaitingOperator):
    """Waits until a list has completed and writes its emails to a file or object.

    The destination appears complete or not at all. Leads that are missing from it are written beside it, to a file
    with ``.missing.csv`` at the end of its name that ``leads_path`` takes. Returns the destination, and pushes
    ``machfive_export`` (path, bytes, leads, emails, missing, extra, short, missing_path).

    :param list_id: the list's UUID
    :param export_to: a path or URL that ObjectStoragePath reaches
    :param export_format: ``csv``, ``json`` or ``jsonl``
    :param overwrite: False accepts an existing destination only if it holds these very bytes
    :param expected_leads: a number, a list of leads or emails, or a leads file, to count against; None takes the
        list's own ``leads_count``
    :param on_missing_leads: when leads are missing from the result: ``fail``, ``warn`` or ``ignore``
    :param deferrable: wait in the triggerer and hold no worker
    :param poll_interval: seconds between looks; MachFive asks for 10-30
    :param timeout: seconds after which this attempt stops waiting
    :param machfive_conn_id: the Airflow connection
    :raises ListFailedError: if the list ended failed
    :raises IncompleteExportError: if leads are missing, under ``fail``
    """

    template_fields: Sequence[str] = (
        "list_id",
        "export_to",
        "export_format",
        "expected_leads",
        "machfive_conn_id",
    )
    operator_extra_links = (MachFiveCampaignLink(),)
    ui_color = "#e4f3ea"

    def __init__(
        self,
        *,
        list_id: str,
        export_to: str,
        export_format: str = "csv",
        overwrite: bool = True,
        expected_leads: Any = None,
        on_missing_leads: str = "fail",
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
        self.overwrite = overwrite
        self.expected_leads = expected_leads
        self.on_missing_leads = on_missing_leads
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.machfive_conn_id = machfive_conn_id

    def execute(self, context: Context) -> Any:
        """Wait for the list, then export it."""
        from machfive_provider.api.protocol import check_uuid
        from machfive_provider.delivery import export
        from machfive_provider.leads.prepare import check_policy

        check_policy("on_missing_leads", self.on_missing_leads, export.MISSING_POLICIES)
        check_policy("export_format", self.export_format, export.FORMATS)
        list_id = check_uuid("list_id", self.list_id)
        self._interval()
        self._deadline(0.0)
        self._expected(None)
        self._destination().check(must_be_new=False)
        return self.wait_for(context, list_id, seen=self._first_look(context, list_id))

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Export and count a list that has completed."""
        from machfive_provider.delivery import export
        from machfive_provider.delivery.report import report_export

        if lead_list.is_failed:
            raise exceptions.ListFailedError(f"list {lead_list.id} ended failed on MachFive's side")
        destination = self._destination()
        with self.hook() as hook:
            figures = export.write_export(hook, lead_list, destination, self.export_format)
        expected = self._expected(lead_list)
        report_export(self.log, context, lead_list.id, destination, figures, expected, self.on_missing_leads)
        return destination.url

    def _first_look(self, context: Context, list_id: str) -> LeadList | None:
        """Look once, so that the link to the campaign is there while the task waits."""
        with self.hook() as hook:
            try:
                seen = hook.get_list(list_id)
            except exceptions.MachFiveTransientError as error:
                self.log.info("The first look at list %s failed, which is tried again. %s", list_id, error)
                return None
            if seen.campaign_id:
                MachFiveCampaignLink.store(context, hook.settings.client.base_url, seen.campaign_id)
        return seen

    def _destination(self) -> Destination:
        from machfive_provider.delivery.destination import Destination

        return Destination(self.export_to, overwrite=self.overwrite)

    def _expected(self, lead_list: LeadList | None) -> Expected:
        """Return what the export should hold: leads, or their number, or nothing if nobody knows."""
        from machfive_provider.delivery.count import Expected
        from machfive_provider.leads.files import SUFFIXES
        from machfive_provider.leads.prepare import prepare, read_leads

        expected = self.expected_leads
        if expected is None:
            return Expected(lead_list.leads_count if lead_list else None)
        if isinstance(expected, str) and expected.strip().isdecimal():
            expected = int(expected)  # a template renders to text
        if isinstance(expected, int) and not isinstance(expected, bool) and expected >= 0:
            return Expected(expected)
        if isinstance(expected, str) and expected.strip().lower().endswith(SUFFIXES):
            rows = read_leads(leads_path=expected)
        elif isinstance(expected, (str, list, tuple)):
            rows = read_leads(expected)
            rows = [row._replace(fields={"email": row.fields}) if isinstance(row.fields, str) else row for row in rows]
        else:
            raise exceptions.ConfigurationError(
                "expected_leads must be a number, a list of leads or emails, or a leads file "
                f"({', '.join(SUFFIXES)}), not {kind_of(expected)}."
            )
        return Expected.of(prepare(rows, "skip", "first", "expected_leads").leads)

"""The operator that writes the emails of a list to a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import conf

from machfive_provider import exceptions
from machfive_provider.delivery.format import MissingPolicy
from machfive_provider.lineage import Datasets, at_machfive, table
from machfive_provider.operators import parameters
from machfive_provider.operators.asset_events import describe_outlets
from machfive_provider.operators.base import ListWaitingOperator
from machfive_provider.operators.filters import check_filters, is_suppressed_by, suppression_of
from machfive_provider.operators.private import PrivateParameter
from machfive_provider.status import end_of, tell

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList

__all__ = ["MachFiveToSqlOperator", "RowPolicy"]

RowPolicy = Literal["email", "lead"]


class MachFiveToSqlOperator(ListWaitingOperator):
    """Waits until a list has completed and writes its emails to a table.

    Spends nothing. The rows of the list are replaced in one transaction: a retry or clear leaves the same rows, and a
    task that is killed leaves the table as it was. Returns the table's name, and pushes the XCom ``machfive_export``
    (path, leads, emails, missing, extra, short, odd; bytes and missing_path are None).

    :param list_id: the list's UUID; a mapped task has one for each list
    :param sql_conn_id: the Airflow connection of the database: any whose hook is a ``DbApiHook``
    :param table: ``emails`` or ``schema.emails``
    :param one_row_per: ``email`` (default): list_id, email, step, subject, body, name, company, title, exported_at,
        with the key list_id, email, step. ``lead``: list_id, email, emails (how many can be sent), sequence (JSON as
        text), name, company, title, exported_at, with the key list_id, email
    :param create_table: create the table if it does not exist. Default: True. A schema is never created
    :param expected_leads: a number, a list of leads or emails, or a leads file, to compare the result with. Default:
        the list's own ``leads_count``
    :param on_missing_leads: if leads are missing from the result: ``fail`` (default), ``warn`` or ``ignore``
    :param suppress: who must never be written to: a path, several, or a list of addresses and domains; they get no rows
        and count as ``suppressed_later``. Default: nobody
    :param deferrable: wait in the triggerer and hold no worker. Default: Airflow's ``[operators] default_deferrable``
    :param poll_interval: seconds between two polls of the list, 1 at least. Default: 20; MachFive asks for 10-30
    :param timeout: seconds after which this attempt stops waiting for the list. Default: 86400, a day
    :param machfive_conn_id: the Airflow connection of MachFive. Default: ``machfive_default``
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong by then; later for a
        connection or table that cannot be used
    :raises ListFailedError: if the list ended failed
    :raises IncompleteExportError: if leads are missing, under ``fail``; the others are in the table
    """

    template_fields: Sequence[str] = (
        "list_id",
        "sql_conn_id",
        "table",
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
        sql_conn_id: str,
        table: str,
        one_row_per: RowPolicy = "email",
        create_table: bool = True,
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
        self.sql_conn_id = sql_conn_id
        self.table = table
        self.one_row_per = one_row_per
        self.create_table = create_table
        self.expected_leads = expected_leads
        self.on_missing_leads = on_missing_leads
        self.suppress = suppress
        self.suppress_is_given = suppress is not None
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.machfive_conn_id = machfive_conn_id
        self._check()

    @property
    def label(self) -> str:
        """What to call a mapped task instance: its list."""
        return str(self.list_id)

    def execute(self, context: Context) -> Any:
        """Wait for the list, then write it to the table."""
        from machfive_provider.api.protocol import check_uuid
        from machfive_provider.operators.expected import expected_of
        from machfive_provider.transfers.database import open_engine
        from machfive_provider.transfers.results_table import ResultsTable

        with self.telling_errors(context):
            self._check()
            list_id = check_uuid("list_id", self.list_id)
            expected_of(self.expected_leads, None)
            with open_engine(self.sql_conn_id) as engine:
                ResultsTable(engine, self.table, self.one_row_per).check(create=self.create_table)
            tell(context, "submitted", conn_id=self.machfive_conn_id, list_id=list_id)
            return self.wait_for(context, list_id)

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Write and count a list that has completed."""
        from machfive_provider.delivery.export import iter_leads, kept_leads
        from machfive_provider.delivery.report import report_table
        from machfive_provider.operators.expected import expected_of
        from machfive_provider.transfers.database import open_engine
        from machfive_provider.transfers.results_table import ResultsTable

        if lead_list.is_failed:
            raise exceptions.ListFailedError(f"List {lead_list.id} failed on MachFive's side.")
        facts = {"list_name": lead_list.custom_name, "campaign_id": lead_list.campaign_id}
        tell(context, "completed", **facts, **end_of(lead_list))
        path = f"{self.sql_conn_id}:{self.table}"
        self.log.info("List %s has completed; writing it to %s.", lead_list.id, path)
        suppression, suppressed = suppression_of(self), set[int]()
        with open_engine(self.sql_conn_id) as engine, self.hook() as hook:
            results = ResultsTable(engine, self.table, self.one_row_per)
            if not results.check(create=self.create_table):
                results.create()
            leads = iter_leads(hook.stream_export(lead_list.id, "json"))
            leads = kept_leads(leads, suppressed, is_suppressed_by(suppression))
            figures, changed = results.write(lead_list.id, leads)
        figures.suppressed = suppressed
        self.written = (figures.emails if self.one_row_per == "email" else figures.leads, None)
        if changed:
            self.log.warning(
                "%d texts of list %s held characters that databases do not take (zero bytes, half characters): these "
                "were removed or replaced by a question mark.",
                changed,
                lead_list.id,
            )
        expected = expected_of(self.expected_leads, lead_list, suppression)
        report_table(self, context, lead_list.id, path, figures, expected)
        describe_outlets(self, context, lead_list.id)
        return self.table

    def lineage(self) -> tuple[Datasets, Datasets]:
        """Return list and table."""
        from machfive_provider.transfers.database import split_name

        schema, name = split_name("table", self.table)
        return (
            [at_machfive(self.machfive_conn_id, "list", self.list_id)],
            [table(self.sql_conn_id, schema, name, self.written[0])],
        )

    def _check(self) -> None:
        """Check the parameters that are no templates."""
        parameters.check_choice("one_row_per", self.one_row_per, RowPolicy)
        parameters.check_choice("on_missing_leads", self.on_missing_leads, MissingPolicy)
        parameters.check_seconds("poll_interval", self.poll_interval)
        parameters.check_seconds("timeout", self.timeout)
        check_filters(self)

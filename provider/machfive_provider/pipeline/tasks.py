"""The two tasks that only the pipeline has: what is checked before money is spent, and what is told at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider import exceptions
from machfive_provider.delivery.format import ExportFormat, ExportShape, MissingPolicy, format_for
from machfive_provider.formatting import counted
from machfive_provider.operators import parameters
from machfive_provider.operators.check import MachFiveCheckLeadsOperator
from machfive_provider.operators.filters import check_filters, is_suppressed_by, suppression_of
from machfive_provider.operators.private import PrivateParameter

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["PipelineCheckOperator", "PipelineSummaryOperator"]


class PipelineCheckOperator(MachFiveCheckLeadsOperator):
    """Checks the leads, and before them whether the result can be written: after the purchase would be too late.

    :param export_to, export_format, export_shape, escape_formulas: the merged file, None for none
    :param to_table: the arguments of MachFiveToSqlOperator that name the table, None for none
    """

    template_fields: Sequence[str] = (
        *MachFiveCheckLeadsOperator.template_fields,
        "export_to",
        "export_format",
        "to_table",
    )

    def __init__(
        self,
        *,
        export_to: str | None = None,
        export_format: ExportFormat | None = None,
        export_shape: ExportShape = "api",
        escape_formulas: bool = False,
        to_table: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.export_to = export_to
        self.export_format = export_format
        self.export_shape = export_shape
        self.escape_formulas = escape_formulas
        self.to_table = to_table
        if export_to is not None:
            parameters.check_export(self, rendered=False)

    def execute(self, context: Context) -> dict[str, Any]:
        """Check where the emails go, then the leads."""
        if self.export_to is not None:
            from machfive_provider.delivery.destination import Destination

            parameters.check_export(self, rendered=True)
            Destination(self.export_to).check(must_be_new=False)
        if self.to_table is not None:
            from machfive_provider.transfers.database import open_engine
            from machfive_provider.transfers.results_table import ResultsTable

            with open_engine(self.to_table["sql_conn_id"]) as engine:
                table = ResultsTable(engine, self.to_table["table"], self.to_table["one_row_per"])
                table.check(create=self.to_table["create_table"])
        return super().execute(context)


class PipelineSummaryOperator(BaseOperator):
    """Merges the exports of all batches into one file, if one is asked for, and tells what the pipeline has done.

    Pushes the XCom ``machfive_summary``; ``machfive_pipeline`` describes it.

    :param source_id: the task that has frozen the leads
    :param check_id: the task that has checked them; how many were left out is as of then
    :param batch_id: the mapped task that has bought the batches
    :param delivery_id: the mapped task that has written the emails, to files or to the table
    :param table: the table that they were written to, None for none
    :param export_to, export_format, export_shape, escape_formulas: of the merged file, as for the batch operator.
        Without ``export_to`` nothing is merged
    :param suppress: who must never be written to: left out of the merged file
    :param on_missing_leads: what to do at the end if leads that were bought are missing
    """

    template_fields: Sequence[str] = ("export_to", "export_format", "table", "suppress")
    ui_color = "#e4f3ea"
    suppress = PrivateParameter()

    def __init__(
        self,
        *,
        source_id: str,
        check_id: str,
        batch_id: str,
        delivery_id: str,
        table: str | None = None,
        export_to: str | None = None,
        export_format: ExportFormat | None = None,
        export_shape: ExportShape = "api",
        escape_formulas: bool = False,
        suppress: str | Sequence[str] | Any = None,
        on_missing_leads: MissingPolicy = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_id = source_id
        self.check_id = check_id
        self.batch_id = batch_id
        self.delivery_id = delivery_id
        self.table = table
        self.export_to = export_to
        self.export_format = export_format
        self.export_shape = export_shape
        self.escape_formulas = escape_formulas
        self.suppress = suppress
        self.suppress_is_given = suppress is not None
        self.on_missing_leads = on_missing_leads
        check_filters(self)
        parameters.check_choice("on_missing_leads", on_missing_leads, MissingPolicy)

    def execute(self, context: Context) -> None:
        """Merge, and push the summary."""
        (source,) = _pulled(context, self.source_id, "machfive_leads")
        (check,) = _pulled(context, self.check_id, "return_value")
        batches = _pulled(context, self.batch_id, "machfive_batch")
        bought = [each for each in batches if each.get("list_id")]
        exports = _pulled(context, self.delivery_id, "machfive_export")
        if len(exports) != len(bought):
            raise exceptions.MachFivePermanentError(
                f"The tasks before this one tell of {counted(len(bought), 'list')} and of "
                f"{counted(len(exports), 'export')}. Nothing was written.",
                remedy="Clear the whole group: it finds its lists again and pays nothing.",
            )
        summary = {**_figures(source, check, batches, exports), "table": self.table if bought else None}
        merged = self._merge(bought, exports, summary) if self.export_to and bought else None
        files = [each["path"] for each in exports] if self.export_to is None and self.table is None else []
        summary |= {"paths": [merged] if merged else files}
        context["ti"].xcom_push(key="machfive_summary", value=summary)
        self._report(summary)

    def _merge(
        self, bought: Sequence[Mapping[str, Any]], exports: Sequence[Mapping[str, Any]], summary: dict[str, Any]
    ) -> str:
        """Write the merged file and the one of missing leads; correct the summary. Return where the file is."""
        from machfive_provider.delivery.destination import Destination
        from machfive_provider.delivery.merge import merge_missing, merge_results

        destination, form = Destination(self.export_to), format_for(self.export_to, self.export_format)
        left_out = merge_results(
            [(batch["list_id"], export["path"]) for batch, export in zip(bought, exports, strict=True)],
            destination,
            form,
            shape=self.export_shape,
            escape_formulas=self.escape_formulas,
            is_suppressed=is_suppressed_by(suppression_of(self)),
        )
        missing = [each["missing_path"] for each in exports if each.get("missing_path")]
        summary["missing_path"] = merge_missing(missing, destination)
        if left_out:  # they have opted out since their batch was exported
            summary["leads_written"] -= left_out
            summary["suppressed_later"] += left_out
            summary["emails"] = None
        self.log.info("Merged %s into %s.", counted(len(exports), "export"), destination.url)
        return destination.url

    def _report(self, summary: Mapping[str, Any]) -> None:
        """Log the summary.

        :raises IncompleteExportError: if leads are missing, under ``fail``
        """
        self.log.info(
            "%s given: %d invalid or duplicate, %d suppressed, %d already written. %s for %s: %s written, %s.",
            counted(summary["leads_given"], "lead"),
            summary["skipped"],
            summary["suppressed"],
            summary["already_written"],
            counted(len(summary["lists"]), "list"),
            counted(summary["credits"], "credit"),
            counted(summary["leads_written"], "lead"),
            counted(summary["emails"], "email"),
        )
        if not summary["missing"]:
            return
        where = f" They are listed in {summary['missing_path']}." if summary["missing_path"] else ""
        said = f"{counted(summary['missing'], 'lead')} that were paid for have no emails.{where}"
        if self.on_missing_leads == "fail":
            raise exceptions.IncompleteExportError(
                f"{said} Everything else was delivered.",
                remedy="MachFive support can say why, given the lists' ids. To accept it, set on_missing_leads='warn'.",
            )
        if self.on_missing_leads == "warn":
            self.log.warning("%s", said)


def _pulled(context: Context, task_id: str, key: str) -> list[dict[str, Any]]:
    """Return what the instances of a task have pushed, in the order of their map indexes."""
    found = context["ti"].xcom_pull(task_ids=task_id, key=key)
    if found is None:
        return []
    return [found] if isinstance(found, dict) else [each for each in found if each is not None]


def _figures(
    source: Mapping[str, Any],
    check: Mapping[str, Any],
    batches: Sequence[Mapping[str, Any]],
    exports: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the figures of the summary: sums over what the tasks have told."""

    def total(told: Sequence[Mapping[str, Any]], name: str, unknown: int | None = None) -> int | None:
        values = [each.get(name, unknown) for each in told]
        return None if None in values else sum(values)

    return {
        "leads_given": source["rows"],
        "skipped": source["skipped"],
        "suppressed": check["suppressed"],
        "already_written": source["already_written"] + check["already_written"],
        "credits": total(batches, "credits"),
        "bought": sum(bool(each.get("bought")) for each in batches),
        "leads_written": total(exports, "leads"),
        "emails": total(exports, "emails"),
        "missing": total(exports, "missing"),
        "suppressed_later": total(exports, "suppressed_later", 0),
        "missing_path": None,
        "lists": [each["list_id"] for each in batches if each.get("list_id")],
    }

"""The operator that freezes a file of leads into shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from machfive_provider.lineage import Datasets, file
from machfive_provider.operators.parameters import DuplicatePolicy, InvalidPolicy
from machfive_provider.transfers.sharding import ShardingOperator

if TYPE_CHECKING:
    from machfive_provider.api.models import Lead
    from machfive_provider.leads.prepare import PreparedLeads

__all__ = ["FileToMachFiveLeadsOperator"]


class FileToMachFiveLeadsOperator(ShardingOperator):
    """Splits a file of leads into files for one batch each, over which the batch operator is mapped.

    Spends nothing. Every row is checked, and duplicates are found over all rows. The leads are then kept as files
    (shards) of the DAG run: a retry of this task or of a batch reads the same people, also if the file has changed or
    gone meanwhile. Returns the paths of the shards, for
    ``MachFiveGenerateBatchOperator.partial(...).expand(leads_path=shards.output)``. A file without rows means no path,
    and Airflow skips the mapped task. Pushes the XCom ``machfive_leads`` (rows, leads, skipped, already_written, which
    is 0, shards).

    :param leads_path: a CSV, TSV, JSON, JSONL or Excel file anywhere ObjectStoragePath reaches; ``book.xlsx#Sheet2``
        names a sheet
    :param leads_folder: path or URL of a folder that all workers reach through ObjectStoragePath. It will hold personal
        data; below it each DAG, task and run has a folder
    :param columns: MachFive's fields to columns of the file: ``{"email": "E-mail 1 - Value", "name": ["First",
        "Last"]}``. Default: by the columns' names, docs/leads.md
    :param batch_size: leads in a shard, so in a batch. Default: 1000
    :param on_invalid_lead: ``fail`` (default), or ``skip`` to leave invalid leads out
    :param on_duplicate_lead: ``fail`` (default), or ``first`` to keep the first of those with the same email
    :param keep_for: how long the shards of a run are kept at least; a later run of the task removes them. Default: 30
        days
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong by then; later for a
        folder that cannot be used
    :raises InvalidLeadsError: for a file that cannot be read, and for leads that cannot be used, under the policies
    """

    template_fields: Sequence[str] = ("leads_path", "leads_folder")

    def __init__(
        self,
        *,
        leads_path: str,
        leads_folder: str,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        batch_size: int = 1000,
        on_invalid_lead: InvalidPolicy = "fail",
        on_duplicate_lead: DuplicatePolicy = "fail",
        keep_for: timedelta = timedelta(days=30),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.leads_path = leads_path
        self.leads_folder = leads_folder
        self.columns = columns
        self.batch_size = batch_size
        self.on_invalid_lead = on_invalid_lead
        self.on_duplicate_lead = on_duplicate_lead
        self.keep_for = keep_for
        self.check()

    def lineage(self) -> tuple[Datasets, Datasets]:
        """Return the file and its shards."""
        return [file(self.leads_path)], [file(each) for each in self.paths]

    def read_people(self) -> tuple[PreparedLeads | None, Sequence[Lead]]:
        """Return the checked leads of the file; all of them are to be written to."""
        from machfive_provider.leads.prepare import read_leads

        rows = read_leads(leads_path=self.leads_path, columns=self.columns)
        prepared = self.prepare(rows, f"leads_path {self.leads_path!r}")
        return prepared, self.as_read_back(prepared.leads) if prepared else ()

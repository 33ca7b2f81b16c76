"""The base class of the operators that freeze leads into shards, wherever the leads come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from operator import ne
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider.formatting import counted
from machfive_provider.leads.columns import Columns, check_columns
from machfive_provider.lineage import HasLineage
from machfive_provider.operators import parameters
from machfive_provider.operators.parameters import DuplicatePolicy, InvalidPolicy
from machfive_provider.operators.prepared import log_left_out

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import Lead
    from machfive_provider.leads.prepare import PreparedLeads
    from machfive_provider.leads.rows import Row
    from machfive_provider.transfers.shards import Shards

__all__ = ["ShardingOperator", "ShardsPolicy"]

ShardsPolicy = Literal["reuse", "query"]


class ShardingOperator(BaseOperator, HasLineage):
    """Base of the operators that write leads to shards, over which the batch operator is mapped.

    Subclasses read the leads in ``read_people``. The parameters are described there.
    """

    leads_folder: str
    columns: Mapping[str, str | Sequence[str]] | None
    batch_size: int
    on_invalid_lead: InvalidPolicy
    on_duplicate_lead: DuplicatePolicy
    on_existing_shards: ShardsPolicy = "reuse"
    keep_for: timedelta
    ui_color = "#e3ecf7"

    paths: Sequence[str] = ()  # of the shards, for lineage

    def read_people(self) -> tuple[PreparedLeads | None, Sequence[Lead]]:
        """Return the checked leads, None if the source holds nobody, and those of them to write to."""
        raise NotImplementedError

    def execute(self, context: Context) -> list[str]:
        """Return the shards of this run; read the leads and write the shards unless that is done."""
        from machfive_provider.transfers.shards import Shards

        ti = context["ti"]
        shards = Shards(self.leads_folder, ti)
        manifest = shards.read_manifest()
        if manifest and (self.on_existing_shards == "reuse" or manifest["max_tries"] == ti.max_tries):
            self.log.info(
                "This run has its leads already: %s in %s. The source is not read again.",
                counted(manifest["leads"], "lead"),
                counted(len(manifest["paths"]), "shard"),
            )
        else:
            prepared, leads = self.read_people()
            facts = {
                "rows": prepared.given if prepared else 0,
                "leads": len(leads),
                "skipped": prepared.skipped if prepared else 0,
                "already_written": len(prepared.leads) - len(leads) if prepared else 0,
            }
            # A clear changes max_tries, an automatic retry does not.
            manifest = shards.write(leads, self.batch_size, {**facts, "max_tries": ti.max_tries})
        self.paths = manifest["paths"]
        self._remove_older(shards)
        return self._report(context, manifest)

    def check(self) -> None:
        """Check the parameters that are no templates."""
        check_columns(self.columns)
        parameters.check_whole_number("batch_size", self.batch_size, least=1)
        parameters.check_choice("on_invalid_lead", self.on_invalid_lead, InvalidPolicy)
        parameters.check_choice("on_duplicate_lead", self.on_duplicate_lead, DuplicatePolicy)
        parameters.check_choice("on_existing_shards", self.on_existing_shards, ShardsPolicy)
        parameters.check_seconds("keep_for", self.keep_for)

    def prepare(self, rows: Iterable[Row], source: str) -> PreparedLeads | None:
        """Return the checked leads, None if there is no row.

        :param source: what to call the leads in messages
        """
        from machfive_provider.leads.prepare import prepare

        left = iter(rows)
        first = next(left, None)
        if first is None:
            return None
        prepared = prepare(chain([first], left), self.on_invalid_lead, self.on_duplicate_lead, source, self.columns)
        log_left_out(self.log, source, prepared)
        return prepared

    def as_read_back(self, leads: Sequence[Lead]) -> Sequence[Lead]:
        """Return the leads as the batch operator will read them: it knows nothing of ``columns``.

        A value that only the mapping accepts, such as a LinkedIn page as the company's website, is not read back.
        """
        from machfive_provider.leads.matching import Matcher

        if not self.columns:
            return leads
        matcher = Matcher(Columns())
        read = [matcher.lead(lead.to_json()) for lead in leads]
        if changed := sum(map(ne, leads, read)):
            self.log.warning(
                "%s: columns= names a value that cannot be what the field says, such as a web address as a name. It is "
                "left out.",
                counted(changed, "lead"),
            )
        return read

    def _remove_older(self, shards: Shards) -> None:
        """Remove the shards of runs that are long past. That they cannot be removed fails no task."""
        try:
            removed = shards.remove_older(parameters.check_seconds("keep_for", self.keep_for))
        except Exception as error:  # noqa: BLE001 - of any file system
            self.log.warning("Shards of older runs could not be removed (%s): %s", type(error).__name__, error)
            return
        if removed:
            self.log.info("Removed the shards of %s, older than keep_for.", counted(len(removed), "run"))

    def _report(self, context: Context, manifest: Mapping[str, Any]) -> list[str]:
        paths: list[str] = manifest["paths"]
        told = {name: manifest[name] for name in ("rows", "leads", "skipped", "already_written")}
        context["ti"].xcom_push(key="machfive_leads", value={**told, "shards": len(paths)})
        self.log.info(
            "%s: %s to write to, %d skipped, %d already written; %s.",
            counted(told["rows"], "row"),
            counted(told["leads"], "lead"),
            told["skipped"],
            told["already_written"],
            counted(len(paths), "shard"),
        )
        if not paths:
            self.log.info(
                "Nobody is left to write to and nothing is bought: Airflow skips what is mapped over the shards."
            )
        return paths

"""The operator that freezes what a query returns into files of leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from operator import ne
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider import exceptions
from machfive_provider.formatting import counted, kind_of
from machfive_provider.leads.columns import Columns, check_columns
from machfive_provider.operators import parameters
from machfive_provider.operators.parameters import DuplicatePolicy, InvalidPolicy
from machfive_provider.operators.prepared import log_left_out

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from sqlalchemy.engine import Engine

    from machfive_provider.api.models import Lead
    from machfive_provider.leads.prepare import PreparedLeads
    from machfive_provider.leads.rows import Row
    from machfive_provider.transfers.shards import Shards

__all__ = ["ShardsPolicy", "SqlToMachFiveLeadsOperator"]

ShardsPolicy = Literal["reuse", "query"]


class SqlToMachFiveLeadsOperator(BaseOperator):
    """Writes the people that a query returns to files of leads, over which the batch operator is mapped.

    Spends nothing. Every row is checked as ``leads_path`` checks a file's, and duplicates are found over all rows. The
    leads are then kept as files (shards) of the DAG run: a retry of this task or of a batch reads the same people, also
    if the table has changed meanwhile. Returns the paths of the shards, for
    ``MachFiveGenerateBatchOperator.partial(...).expand(leads_path=shards.output)``. Nobody left means no path, and
    Airflow skips the mapped task. Pushes the XCom ``machfive_leads`` (rows, leads, skipped, already_written, shards).

    :param sql: one query, or the path of a file ``.sql``. Write placeholders in the style of the connection's driver
        (``%(since)s`` for PostgreSQL, ``:since`` for SQLite, ``%s`` for MySQL), and give ``parameters`` the values
    :param sql_conn_id: the Airflow connection of the database: any whose hook is a ``DbApiHook``
    :param leads_folder: path or URL of a folder that all workers reach through ObjectStoragePath. It will hold personal
        data; below it each DAG, task and run has a folder
    :param parameters: a mapping or list of values for the query, which are bound, never written into it. Default: none
    :param columns: MachFive's fields to columns of the query: ``{"email": "work_mail", "name": ["first", "last"]}``.
        Default: by the columns' names, docs/leads.md
    :param batch_size: leads in a shard, so in a batch. Default: 1000
    :param on_invalid_lead: ``fail`` (default), or ``skip`` to leave invalid leads out
    :param on_duplicate_lead: ``fail`` (default), or ``first`` to keep the first of those with the same email
    :param skip_already_written: a table, ``emails`` or ``schema.emails``, on the same connection: whoever has an email
        in it, as MachFiveToSqlOperator writes them, is left out. Default: none, nobody is left out
    :param on_existing_shards: when the run has shards already: ``reuse`` (default) returns them; ``query`` queries
        again once for each clear of the task, never in a retry
    :param keep_for: how long the shards of a run are kept at least; a later run of the task removes them. Default: 30
        days
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong by then; later for a
        connection, query, table or folder that cannot be used
    :raises InvalidLeadsError: for leads that cannot be used, under the policies
    """

    template_fields: Sequence[str] = (
        "sql",
        "parameters",
        "sql_conn_id",
        "leads_folder",
        "skip_already_written",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json"}
    template_ext: Sequence[str] = (".sql",)
    ui_color = "#e3ecf7"

    def __init__(
        self,
        *,
        sql: str,
        sql_conn_id: str,
        leads_folder: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        batch_size: int = 1000,
        on_invalid_lead: InvalidPolicy = "fail",
        on_duplicate_lead: DuplicatePolicy = "fail",
        skip_already_written: str | None = None,
        on_existing_shards: ShardsPolicy = "reuse",
        keep_for: timedelta = timedelta(days=30),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.leads_folder = leads_folder
        self.parameters = parameters
        self.columns = columns
        self.batch_size = batch_size
        self.on_invalid_lead = on_invalid_lead
        self.on_duplicate_lead = on_duplicate_lead
        self.skip_already_written = skip_already_written
        self.on_existing_shards = on_existing_shards
        self.keep_for = keep_for
        self._check()

    def execute(self, context: Context) -> list[str]:
        """Return the shards of this run; query and write them unless that is done."""
        from machfive_provider.transfers.shards import Shards

        ti = context["ti"]
        shards = Shards(self.leads_folder, ti)
        manifest = shards.read_manifest()
        if manifest and (self.on_existing_shards == "reuse" or manifest["max_tries"] == ti.max_tries):
            self.log.info(
                "This run has its leads already: %s in %s. The database is not asked again.",
                counted(manifest["leads"], "lead"),
                counted(len(manifest["paths"]), "shard"),
            )
        else:
            leads, facts = self._query()
            # A clear changes max_tries, an automatic retry does not.
            manifest = shards.write(leads, self.batch_size, {**facts, "max_tries": ti.max_tries})
        self._remove_older(shards)
        return self._report(context, manifest)

    def _check(self) -> None:
        check_columns(self.columns)
        parameters.check_whole_number("batch_size", self.batch_size, least=1)
        parameters.check_choice("on_invalid_lead", self.on_invalid_lead, InvalidPolicy)
        parameters.check_choice("on_duplicate_lead", self.on_duplicate_lead, DuplicatePolicy)
        parameters.check_choice("on_existing_shards", self.on_existing_shards, ShardsPolicy)
        parameters.check_seconds("keep_for", self.keep_for)

    def _query(self) -> tuple[Sequence[Lead], dict[str, int]]:
        """Return the leads to write to, and what the XCom tells of them."""
        from machfive_provider.transfers.database import open_engine

        with open_engine(self.sql_conn_id) as engine:
            prepared = self._prepare(engine)
            if prepared is None:
                return (), {"rows": 0, "leads": 0, "skipped": 0, "already_written": 0}
            left = self._not_yet_written(engine, self._as_read_back(prepared.leads))
        facts = {
            "rows": prepared.given,
            "leads": len(left),
            "skipped": prepared.skipped,
            "already_written": len(prepared.leads) - len(left),
        }
        return left, facts

    def _prepare(self, engine: Engine) -> PreparedLeads | None:
        """Return the checked leads, None if the query returns no row."""
        from machfive_provider.leads.prepare import prepare

        source = f"the query on {self.sql_conn_id!r}"
        with engine.connect() as connection:
            # Never committed, so that a statement which is no query changes nothing; SQLAlchemy 1.4 commits by itself.
            connection.begin()
            rows = self._rows(connection, source)
            first = next(rows, None)
            if first is None:
                return None
            prepared = prepare(chain([first], rows), self.on_invalid_lead, self.on_duplicate_lead, source, self.columns)
        log_left_out(self.log, source, prepared)
        return prepared

    def _rows(self, connection: Any, source: str) -> Iterator[Row]:
        from machfive_provider.leads.rows import Row
        from machfive_provider.transfers.database import read_rows

        if not isinstance(self.sql, str) or not self.sql.strip():
            raise exceptions.ConfigurationError(f"sql must be a query as text, not {kind_of(self.sql)}.")
        if isinstance(self.parameters, str) or not isinstance(self.parameters, (Mapping, Sequence, type(None))):
            raise exceptions.ConfigurationError(
                f"parameters must be a mapping or a list of values, not {kind_of(self.parameters)}. Write a template "
                "around each value: parameters={'since': '{{ ds }}'}."
            )
        columns = Columns(check_columns(self.columns))
        found = read_rows(connection, self.sql, self.parameters, lambda names: columns.check_repeated(names, source))
        for number, fields in enumerate(found, 1):
            yield Row("row {}", number, fields)

    def _as_read_back(self, leads: Sequence[Lead]) -> Sequence[Lead]:
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

    def _not_yet_written(self, engine: Engine, leads: Sequence[Lead]) -> Sequence[Lead]:
        """Leave out who has an email in the table of results. Digests are kept of this query's people alone."""
        from machfive_provider.api.models import address_digest
        from machfive_provider.transfers.database import read_addresses

        if self.skip_already_written is None:
            return leads
        wanted = {address_digest(lead.email) for lead in leads}
        with engine.connect() as connection:
            for address in read_addresses(connection, "skip_already_written", self.skip_already_written):
                wanted.discard(address_digest(address))
        return [lead for lead in leads if address_digest(lead.email) in wanted]

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

"""The operator that freezes what a query returns into files of leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from machfive_provider import exceptions
from machfive_provider.formatting import kind_of
from machfive_provider.leads.columns import Columns, check_columns
from machfive_provider.lineage import Datasets, file, queried_tables
from machfive_provider.operators.parameters import DuplicatePolicy, InvalidPolicy
from machfive_provider.transfers.sharding import ShardingOperator, ShardsPolicy

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from machfive_provider.api.models import Lead
    from machfive_provider.leads.prepare import PreparedLeads
    from machfive_provider.leads.rows import Row

__all__ = ["SqlToMachFiveLeadsOperator"]


class SqlToMachFiveLeadsOperator(ShardingOperator):
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
        self.check()

    def lineage(self) -> tuple[Datasets, Datasets]:
        """Return the tables of the query and the shards."""
        return queried_tables(self.sql_conn_id, self.sql), [file(each) for each in self.paths]

    def read_people(self) -> tuple[PreparedLeads | None, Sequence[Lead]]:
        """Return the checked leads of the query, and those of them without an email in the table of results."""
        from machfive_provider.transfers.database import open_engine

        source = f"the query on {self.sql_conn_id!r}"
        with open_engine(self.sql_conn_id) as engine:
            with engine.connect() as connection:
                # Never committed, so that a statement which is no query changes nothing; SQLAlchemy 1.4 commits by
                # itself.
                connection.begin()
                prepared = self.prepare(self._rows(connection, source), source)
            return prepared, self._not_yet_written(engine, self.as_read_back(prepared.leads)) if prepared else ()

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

"""The database behind an Airflow connection, by way of SQLAlchemy: values are bound, names quoted.

Messages name tables, columns and the database's own codes, never a value: it may be a lead's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sqlalchemy import column, inspect, select
from sqlalchemy import table as table_of
from sqlalchemy.exc import DataError, DBAPIError, NotSupportedError, ProgrammingError

from machfive_provider.exceptions import ConfigurationError, MachFiveError, MachFiveTransientError
from machfive_provider.formatting import kind_of, one_line

if TYPE_CHECKING:
    from sqlalchemy import ColumnClause
    from sqlalchemy.engine import Connection, Engine

__all__ = ["CHUNK", "columns_of", "failed_statement", "open_engine", "read_addresses", "read_rows", "split_name"]

CHUNK = 1000  # rows that are fetched or sent at a time

_ADDRESS = re.compile(r"[^\s@'\"()]+@[^\s@'\"()]+")


@contextmanager
def open_engine(conn_id: str) -> Iterator[Engine]:
    """Reach the database of an Airflow connection, and close what is open to it at the end.

    :raises ConfigurationError: if there is no such connection, or SQLAlchemy has no way to its database
    :raises MachFiveTransientError: if Airflow cannot be asked for the connection now
    """
    engine = _engine(conn_id)
    try:
        yield engine
    finally:
        engine.dispose()


def _engine(conn_id: str) -> Engine:
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} does not exist. Add it, or name another in sql_conn_id."
        ) from None
    except Exception as error:
        raise MachFiveTransientError(
            f"The Airflow connection {conn_id!r} could not be read ({type(error).__name__}). Airflow may be busy."
        ) from error
    try:
        hook = connection.get_hook()  # type: ignore[no-untyped-call]
        if not hasattr(hook, "get_sqlalchemy_engine"):
            raise TypeError(f"{type(hook).__name__} is no DbApiHook")
        engine: Engine = hook.get_sqlalchemy_engine()
    except Exception as error:
        raise ConfigurationError(
            f"sql_conn_id {conn_id!r}, of type {connection.conn_type!r}, is no SQL database that can be reached here "
            f"({type(error).__name__}: {one_line(str(error))}). Name a connection of an SQL database, and install its "
            "provider, driver and SQLAlchemy dialect on the workers."
        ) from error
    return engine


def split_name(parameter: str, name: Any, longest: int | None = None) -> tuple[str | None, str]:
    """Return schema and table of ``table`` or ``schema.table``.

    :param longest: bytes in which a name has to fit: some databases cut a longer one without a word; None if not known
    :raises ConfigurationError: if it is no such name
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        given = repr(name) if isinstance(name, str) else kind_of(name)
        raise ConfigurationError(f"{parameter} must be the name of a table, such as 'crm.emails', not {given}.")
    schema, dot, table = name.strip().rpartition(".")
    if not table or (dot and not schema):
        raise ConfigurationError(f"{parameter} {name!r} must be 'table' or 'schema.table'.")
    if longest and len(table.encode("utf-8", "replace")) > longest:
        raise ConfigurationError(f"{parameter} {name!r} is too long: a table's name has at most {longest} bytes here.")
    return schema or None, table


def columns_of(connection: Connection, schema: str | None, table: str) -> dict[str, Mapping[str, Any]] | None:
    """Return what the database tells of a table's or view's columns, by name; None if there is no such table."""
    inspector = inspect(connection)
    if not inspector.has_table(table, schema=schema):
        return None
    return {str(each["name"]): each for each in inspector.get_columns(table, schema=schema)}


def read_rows(
    connection: Connection, sql: str, parameters: Any, check_names: Callable[[Sequence[str]], Any]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query, as values by the names of their columns. They are fetched in chunks.

    :param sql: with placeholders in the driver's own style, as everywhere in Airflow
    :param parameters: a mapping or a sequence of values, which are bound; None for none
    :param check_names: called with the names of the columns, of which some may be the same
    :raises ConfigurationError: if the database does not accept the query, or it returns no rows
    """
    values = dict(parameters) if isinstance(parameters, Mapping) else tuple(parameters or ())
    # Without no_parameters, drivers take the % of LIKE 'a%' for a placeholder.
    streaming = connection.execution_options(stream_results=True, max_row_buffer=CHUNK, no_parameters=True)
    try:
        result = streaming.exec_driver_sql(sql, values or None)
        if not result.returns_rows:
            raise ConfigurationError("sql returns no rows: give a query, such as SELECT email FROM people.")
        names = list(result.keys())
        check_names(names)
        while rows := result.fetchmany(CHUNK):
            for row in rows:
                yield dict(zip(names, row, strict=True))
    except DBAPIError as error:
        raise failed_statement("The query", error, says=True) from None


def read_addresses(connection: Connection, parameter: str, name: str) -> Iterator[str]:
    """Yield the addresses that a table of results has, each once. A table that does not exist has none.

    Rows whose email cannot be sent, because it lacks its subject or body, do not count: that person has nothing yet.

    :param parameter: which one names the table, for messages
    :raises ConfigurationError: if the table has no column ``email``
    """
    schema, table = split_name(parameter, name)
    columns = columns_of(connection, schema, table)
    if columns is None:
        return
    if "email" not in columns:
        known = ", ".join(map(repr, columns))
        raise ConfigurationError(f"{parameter}: the table {name!r} has no column 'email'. It has {known}.")
    email: ColumnClause[Any] = column("email")
    emails: ColumnClause[Any] = column("emails")
    query = select(email).select_from(table_of(table, email, schema=schema)).distinct()
    if {"subject", "body"} <= columns.keys():
        query = query.where(column("subject").is_not(None), column("body").is_not(None))
    elif "emails" in columns:
        query = query.where(emails > 0)
    try:
        result = connection.execution_options(stream_results=True, max_row_buffer=CHUNK).execute(query)
        while rows := result.fetchmany(CHUNK):
            yield from (row[0] for row in rows if isinstance(row[0], str))
    except DBAPIError as error:
        raise failed_statement(f"Reading the table {name!r}", error) from None


def failed_statement(what: str, error: DBAPIError, *, says: bool = False) -> MachFiveError:
    """Return the error for a statement that the database did not accept: permanent if a retry cannot help.

    :param says: whether to quote the first line of what the database says; not where it may quote a lead
    """
    cause = error.orig
    code = _code(cause)
    told = f"{type(cause).__name__}{f' {code}' if code else ''}"
    if says:
        told += f": {_ADDRESS.sub('(an address)', one_line(str(cause).strip().partition(chr(10))[0]))}"
    message = f"{what} failed in the database ({told})."
    # SQLite calls every mistake in a statement an OperationalError.
    if isinstance(error, (ProgrammingError, DataError, NotSupportedError)) or code == "SQLITE_ERROR":
        return ConfigurationError(message)
    return MachFiveTransientError(message)


def _code(cause: Any) -> str:
    """Return the database's own code: SQLSTATE, the name that SQLite has for it, or MySQL's number."""
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if code := getattr(cause, name, None):
            return str(code)
    first = next(iter(getattr(cause, "args", ())), None)
    return str(first) if isinstance(first, int) else ""

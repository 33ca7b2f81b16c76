"""OpenLineage: which campaign, lists, files and tables a task reads and writes.

Airflow's OpenLineage provider calls the two methods of :class:`HasLineage`, in a process of its own, where an exception
fails no task. Without that provider nobody calls them, so all imports of it are here and inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from machfive_provider.formatting import absolute

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

__all__ = ["Datasets", "HasLineage", "at_machfive", "file", "queried_tables", "table"]

Datasets = list[Any]
"""Datasets of OpenLineage. None stands for one that is not known, and is left out."""


class HasLineage:
    """Mixin of the operators that tell their lineage, named after ``BaseOperator``.

    Before it, Airflow's metaclass takes the first base class for one without an ``__init__``, and mapped tasks get None
    for ``inlets``.
    """

    def lineage(self) -> tuple[Datasets, Datasets]:
        """Return what the task reads and what it writes, as far as it is known by now."""
        raise NotImplementedError

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return what is known before the task begins."""
        return _facets(*self.lineage())

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what is known when the task has ended, well or not."""
        return _facets(*self.lineage())


def at_machfive(conn_id: str, kind: str, id: Any) -> Any:  # noqa: A002 - MachFive's word
    """Return the dataset of a campaign or list, for example ``campaign/<id>`` in ``machfive://app.machfive.io``.

    :param kind: ``campaign`` or ``list``
    :param id: its UUID, None if it is not known
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    from machfive_provider.hooks.machfive import MachFiveHook

    if not isinstance(id, str):
        return None
    address = urlsplit(MachFiveHook(conn_id).settings.client.base_url)
    return Dataset(namespace=f"machfive://{address.netloc}", name=f"{kind}/{id}")


def file(path: Any, rows: int | None = None, size: int | None = None) -> Any:
    """Return the dataset of a file or object, named as OpenLineage's own integrations name it; None without a path.

    :param rows: how many were written to it, None if that is not known or it is read
    :param size: how many bytes were written to it
    """
    if not isinstance(path, str) or not path.strip():
        return None
    # Without an Airflow connection (s3://conn_id@bucket), a password, or the sheet of a workbook.
    url = urlsplit(absolute(path.strip()).partition("#")[0])
    host = url.netloc.rpartition("@")[2]
    if url.scheme in ("", "file"):
        return _dataset("file", url.path, rows, size)
    return _dataset(f"{url.scheme}://{host}", url.path.strip("/"), rows, size)


def table(sql_conn_id: str, schema: str | None, name: str, rows: int | None = None) -> Any:
    """Return the dataset of a table, named as the hook of its database names it; None where the hook does not.

    :param rows: as for :func:`file`
    """
    from airflow.providers.openlineage.sqlparser import SQLParser

    connection, hook = _database(sql_conn_id)
    info = hook.get_openlineage_database_info(connection)
    if info is None:
        return None
    parts = (info.database, schema or hook.get_openlineage_default_schema(), name)
    return _dataset(SQLParser.create_namespace(info), ".".join(filter(None, parts)), rows)


def queried_tables(sql_conn_id: str, sql: Any) -> Datasets:
    """Return the tables that a query reads. The query itself is left out: it may name people."""
    from airflow.providers.common.compat.openlineage.utils.sql import get_openlineage_facets_with_sql

    if not isinstance(sql, str):
        return []
    _, hook = _database(sql_conn_id)
    found = get_openlineage_facets_with_sql(hook, sql, sql_conn_id, None)
    return list(found.inputs) if found else []


def _database(sql_conn_id: str) -> tuple[Any, Any]:
    from airflow.providers.common.compat.sdk import BaseHook

    connection = BaseHook.get_connection(sql_conn_id)
    return connection, connection.get_hook()  # type: ignore[no-untyped-call]


def _dataset(namespace: str, name: str, rows: int | None, size: int | None = None) -> Any:
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )

    if rows is None:
        return Dataset(namespace=namespace, name=name)
    statistics = OutputStatisticsOutputDatasetFacet(rowCount=rows, size=size)
    return OutputDataset(namespace=namespace, name=name, outputFacets={"outputStatistics": statistics})


def _facets(inputs: Iterable[Any], outputs: Iterable[Any]) -> OperatorLineage[Any, Any]:
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(
        inputs=[each for each in inputs if each is not None], outputs=[each for each in outputs if each is not None]
    )

"""Who may see what: Airflow's own login and rights.

Whoever may read a connection sees its lists. Whoever may not sees what the DAGs bought that he may read. A task, its
reason of failure and its figures are shown only to those who may read its DAG.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.configuration import conf

from machfive_provider.ui.rows import Row, TaskSeen
from machfive_provider.ui.tasks import Tasks, machfive_connections

__all__ = ["Viewer", "visible"]


@dataclass(frozen=True, slots=True)
class Viewer:
    """A logged-in user and what he may see."""

    user: Any
    tasks: tuple[TaskSeen, ...]
    readable: frozenset[str]

    @classmethod
    def of(cls, user: Any, tasks: Tasks) -> Viewer:
        """Look up what a user may see."""
        manager = get_auth_manager()
        seen = tuple(tasks.read(manager.get_authorized_dag_ids(user=user)))
        listed = conf.get("machfive", "ui_connections", fallback="")
        ids = machfive_connections() | {each.strip() for each in listed.split(",") if each.strip()} | _conn_ids(seen)
        return cls(user, seen, frozenset(each for each in ids if _may_read(manager, user, each)))

    @property
    def connections(self) -> list[str]:
        """The connections that can be chosen."""
        return sorted(self.readable | _conn_ids(self.tasks))

    def may_preview(self, row: Row) -> bool:
        """Whether he may read the XComs of a DAG that the row belongs to."""
        manager = get_auth_manager()
        return any(
            manager.is_authorized_dag(
                method="GET", access_entity=DagAccessEntity.XCOM, details=DagDetails(id=dag_id), user=self.user
            )
            for dag_id in {task.dag_id for task in row.tasks}
        )


def visible(rows: Iterable[Row], viewer: Viewer, conn_id: str) -> list[Row]:
    """Return the rows that a viewer may see."""
    return list(rows) if conn_id in viewer.readable else [row for row in rows if row.tasks]


def _conn_ids(tasks: Iterable[TaskSeen]) -> set[str]:
    return {str(task.told["conn_id"]) for task in tasks if task.told.get("conn_id")}


def _may_read(manager: Any, user: Any, conn_id: str) -> bool:
    return bool(manager.is_authorized_connection(method="GET", details=ConnectionDetails(conn_id=conn_id), user=user))

"""Reads from Airflow's database what the tasks of ours have told, with their states."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pendulum
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import defer, lazyload

from machfive_provider.status import KEY
from machfive_provider.ui.rows import TaskSeen

__all__ = ["Tasks", "machfive_connections"]

_KEPT_FOR = 2.0  # seconds
_SHOWN_FOR = timedelta(days=32)  # a whole month, for the credits of this month
_EXPORT = "machfive_export"


class Tasks:
    """What the tasks have told, read at most every two seconds for all viewers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._known: list[TaskSeen] = []

    def read(self, dag_ids: Iterable[str]) -> list[TaskSeen]:
        """Return the task instances of these DAGs that have told something within 32 days."""
        with self._lock:
            if time.time() >= self._read_at + _KEPT_FOR:
                self._known, self._read_at = _read(pendulum.now("UTC") - _SHOWN_FOR), time.time()
            known = self._known
        allowed = set(dag_ids)
        return [task for task in known if task.dag_id in allowed]


def _read(since: datetime) -> list[TaskSeen]:
    # The whole objects, never single columns of XComs: Airflow 3.4 changes the columns.
    query = (
        select(XComModel, TaskInstance)
        .join(
            TaskInstance,
            (XComModel.dag_id == TaskInstance.dag_id)
            & (XComModel.task_id == TaskInstance.task_id)
            & (XComModel.run_id == TaskInstance.run_id)
            & (XComModel.map_index == TaskInstance.map_index),
        )
        # Neither the runs and versions that both models would join, nor the pickled configuration of each task.
        .options(lazyload("*"), defer(TaskInstance.executor_config))
        .where(XComModel.key.in_((KEY, _EXPORT)), XComModel.timestamp >= since)
    )
    told: dict[TaskInstance, dict[str, Any]] = defaultdict(dict)
    with create_session() as session:
        for xcom, ti in session.execute(query):
            value = XComModel.deserialize_value(xcom)
            if isinstance(value, dict):
                told[ti][xcom.key] = value
        return [_seen(ti, each[KEY], each.get(_EXPORT, {})) for ti, each in told.items() if KEY in each]


def _seen(ti: TaskInstance, told: dict[str, Any], export: dict[str, Any]) -> TaskSeen:
    return TaskSeen(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.state, told, export, ti.rendered_map_index)


def machfive_connections() -> set[str]:
    """Return the ids of the connections of our type in Airflow's database; other backends list none."""
    from airflow.models.connection import Connection

    with create_session() as session:
        return set(session.scalars(select(Connection.conn_id).where(Connection.conn_type == "machfive")))

"""The button on a task instance that leads to its row on the MachFive page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sensors.lead_list import MachFiveListSensor
from machfive_provider.transfers.list_to_sql import MachFiveToSqlOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

__all__ = ["MachFiveListLink", "base_path"]


class MachFiveListLink(BaseOperatorLink):
    """Links a task instance to its row. The API server computes it, so that it is there in every state of a task."""

    name = "MachFive list"
    operators: ClassVar[list[type[Any]]] = [
        MachFiveGenerateBatchOperator,
        MachFiveGenerateOperator,
        MachFiveExportListOperator,
        MachFiveListSensor,
        MachFiveToSqlOperator,
    ]

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the address of the row of this task instance."""
        key = quote(f"{ti_key.dag_id}|{ti_key.run_id}|{ti_key.task_id}|{ti_key.map_index}", safe="")
        return f"{base_path()}/plugin/machfive/machfive/?row={key}"


def base_path() -> str:
    """Return the path under which Airflow is served, without a slash at its end: empty, or ``/airflow``."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")

"""What the asset events of our operators tell: the figures of the list, for the DAGs that run on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machfive_provider.status import told

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

__all__ = ["describe_outlets"]

_OF_BATCH = ("list_name", "campaign_id", "campaign_name", "credits", "leads_count", "emails_created", "completed_at")
_OF_EXPORT = ("path", "leads", "emails", "missing", "extra", "short", "missing_path")


def describe_outlets(task: BaseOperator, context: Context, list_id: str) -> None:
    """Put the figures of a list into the ``extra`` of the task's asset events, if it has ``outlets``.

    They are those of the XComs ``machfive_batch`` and ``machfive_export`` that this try has pushed before. An asset
    alias is left out: only the DAG author knows which assets it stands for.
    """
    from airflow.sdk.definitions.asset import Asset, AssetRef

    outlets = [each for each in task.outlets or () if isinstance(each, (Asset, AssetRef))]
    if not outlets:
        return
    ti = context["ti"]
    exported = ti.xcom_pull(task_ids=ti.task_id, key="machfive_export", map_indexes=ti.map_index) or {}
    facts = {name: told(context).get(name) for name in _OF_BATCH} | {name: exported.get(name) for name in _OF_EXPORT}
    extra = {"list_id": list_id, **{name: value for name, value in facts.items() if value is not None}}
    for outlet in outlets:
        context["outlet_events"][outlet].extra.update(extra)

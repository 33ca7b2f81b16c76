"""One mapped task that tells of a list, as ours do; the benchmark multiplies it."""

from __future__ import annotations

from airflow.sdk import DAG, task

from machfive_provider.status import tell

with DAG("page_benchmark", schedule=None):

    @task
    def buy(number: int, **context: object) -> None:
        """Tell of the list that the run was given."""
        conf = context["dag_run"].conf  # type: ignore[attr-defined]
        facts = {"conn_id": "machfive_default", "leads_submitted": 1, "credits": 1, "bought": True}
        tell(context, "completed", list_id=conf["list_id"], **facts)  # type: ignore[arg-type]

    buy.expand(number=[0])

"""The task that asks a person whether to spend the credits, with Airflow's own human-in-the-loop operator."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from machfive_provider.operators import parameters

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.pipeline.tasks import PipelineCheckOperator

__all__ = ["ask_for_approval"]

# Both are templates, in which "found" is what the check has returned.
_SUBJECT = (
    "Spend {{ found.credits }} credits on {{ found.leads }} leads, "
    "campaign {{ found.campaign_name or found.campaign_id }}?"
)
_BODY = """{{ found.summary }}

*Approve* buys this and nothing else; what this run has bought before is not paid for again.
*Reject* fails the task, and nothing is bought."""


def ask_for_approval(check: PipelineCheckOperator, task_id: str, timeout: float | timedelta | None) -> Any:
    """Return the task that waits for a person's answer to what ``check`` has found.

    A rejection fails the task at once, and so does a ``timeout`` without an answer. If nothing would be spent, nobody
    is asked and the task is skipped.

    :param timeout: seconds or a ``timedelta``; None waits as long as it takes
    """
    from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

    def skip_if_free(context: Context) -> None:
        found = context["ti"].xcom_pull(task_ids=check.task_id)
        if not found["credits"]:
            raise AirflowSkipException("Nothing would be spent, so nobody is asked.")

    found = f"{{% set found = ti.xcom_pull(task_ids='{check.task_id}') %}}"
    # The standard provider of Airflow 3.1 takes execution_timeout, later ones deprecate it.
    limit = None if timeout is None else timedelta(seconds=parameters.check_seconds("approval_timeout", timeout))
    named = "response_timeout" if "response_timeout" in inspect.signature(HITLOperator.__init__).parameters else None
    waits: dict[str, Any] = {named or "execution_timeout": limit}
    return ApprovalOperator(
        task_id=task_id,
        subject=found + _SUBJECT,
        body=found + _BODY,
        fail_on_reject=True,
        defaults="Reject",
        retries=0,  # a rejection is an answer, not an error to be tried again
        pre_execute=skip_if_free,
        **waits,
    )

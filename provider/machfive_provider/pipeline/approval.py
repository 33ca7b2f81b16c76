"""The task that asks a person whether to spend the credits, with Airflow's own human-in-the-loop operator."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from machfive_provider.operators import parameters

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.pipeline.tasks import PipelineCheckOperator

__all__ = ["ask_for_approval"]

# Both are templates, in which "found" is what the check has returned.
_SUBJECT = (
    "Spend {{ found.credits }} credit{{ '' if found.credits == 1 else 's' }} "
    "on {{ found.leads }} lead{{ '' if found.leads == 1 else 's' }}, "
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

    def before_asking(context: Context) -> None:
        found = context["ti"].xcom_pull(task_ids=check.task_id)
        if not found["credits"]:
            raise AirflowSkipException("Nothing would be spent, so nobody is asked.")
        _refuse_an_old_question(context)

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
        pre_execute=before_asking,
        **waits,
    )


def _refuse_an_old_question(context: Context) -> None:
    """Fail if a person would be shown another question than the one that this task asks.

    Airflow 3.1 to 3.3 keep the first question of a task in a run, also when the task is cleared (``upsert_hitl_detail``
    in ``execution_api/routes/hitl.py``): an approval would be of something that nobody has read.
    """
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    task: Any = context["task"]
    # What Airflow's operator sends right after this; only the supervisor's response tells what is stored.
    question = CreateHITLDetailPayload(
        ti_id=context["ti"].id,
        options=task.options,
        subject=task.subject,
        body=task.body,
        defaults=task.defaults,
        params=task.serialized_params,
        multiple=task.multiple,
        assigned_users=[],
    )
    stored: Any = SUPERVISOR_COMMS.send(question)
    if (stored.subject, stored.body) != (task.subject, task.body):
        raise AirflowFailException(
            "The purchase is another one than this run has asked about, and Airflow keeps the first question of a run: "
            "a person would approve what nobody has read. Nothing was bought. Start a new run."
        )

"""The XCom ``machfive_batch``: what a task does at MachFive, told as soon as it is known.

The page in the Airflow UI reads it, as may any other task. Airflow keeps no text of an exception, so the reason of a
failure is told here as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pendulum
from airflow.providers.common.compat.sdk import AirflowSkipException

from machfive_provider.exceptions import MachFiveError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList

__all__ = ["KEY", "Phase", "end_of", "tell", "telling_errors", "told"]

KEY = "machfive_batch"

Phase = Literal["waiting_for_room", "looking_for_purchase", "submitted", "completed", "skipped", "failed"]

_ADDRESS = re.compile(r"[^\s@,;:<>()'\"]+@[^\s@,;:<>()'\"]+")


def told(context: Context) -> dict[str, Any]:
    """Return what this try has told so far. Airflow removes it when the next try begins."""
    if not context or "ti" not in context:  # a DAG author's own test calls poke() and the like without a task instance
        return {}
    ti = context["ti"]
    known = ti.xcom_pull(task_ids=ti.task_id, key=KEY, map_indexes=ti.map_index)
    return known if isinstance(known, dict) else {}


def tell(context: Context, phase: Phase, **facts: Any) -> dict[str, Any]:
    """Add to what this try has told, and return all of it.

    :param phase: what the task does now; ``times`` keeps when each phase began
    :param facts: plain JSON values
    """
    known = told(context)
    times: Mapping[str, str] = known.get("times", {})
    if known.get("phase") != phase:
        times = {**times, phase: pendulum.now("UTC").to_iso8601_string()}
    value = {**known, **facts, "phase": phase, "times": times}
    if value != known and context and "ti" in context:
        context["ti"].xcom_push(key=KEY, value=value)
    return value


@contextmanager
def telling_errors(context: Context, log: Any, facts: Mapping[str, Any]) -> Iterator[None]:
    """Tell the error with which the task fails: its class, code, message, remedy and request id.

    :param facts: what else is known by then, as for :func:`tell`
    """
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as error:
        try:
            tell(context, "failed", **facts, error=_plain(error))
        except Exception as failure:  # noqa: BLE001 - the task's own error matters more
            log.warning("The reason of the failure could not be written to XCom: %s", type(failure).__name__)
        raise


def end_of(lead_list: LeadList) -> dict[str, Any]:
    """Return what is told of a list that has ended."""
    return {
        "leads_count": lead_list.leads_count,
        "emails_created": lead_list.emails_created,
        "completed_at": lead_list.completed_at.to_iso8601_string() if lead_list.completed_at else None,
    }


def _plain(error: Exception) -> dict[str, Any]:
    """Return an error without lead data: other libraries' texts may hold some, and the API's may quote an address."""
    if not isinstance(error, MachFiveError):
        return {"class": type(error).__name__, "message": "See the task's log.", "retryable": True}
    return {
        "class": type(error).__name__,
        "status_code": error.status_code,
        "code": error.code,
        "message": _ADDRESS.sub("(an address)", error.message),
        "remedy": error.remedy,
        "request_id": error.request_id,
        "occurred_at": error.occurred_at.to_iso8601_string(),
        "retryable": error.retryable,
    }

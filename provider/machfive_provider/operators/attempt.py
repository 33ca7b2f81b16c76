"""How far a try is with its purchase, and how it comes back after a deferral."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from machfive_provider.waiting.deferral import DEFERRAL_MARGIN

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

__all__ = ["Attempt", "defer_purchase"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far a try is with its purchase. It survives deferrals: triggers carry it as JSON and return it.

    :param try_number: of the task instance
    :param began_at: epoch seconds at which the try began; it gives its position in the queue for capacity
    :param absent_since: epoch seconds of its first complete search without the list of an earlier try
    :param granted: whether it comes from the queue for capacity: then a slot is reserved for it
    :param limit: how many batches may run at once, as that queue knows; None while it does not
    """

    try_number: int
    began_at: float
    absent_since: float | None = None
    granted: bool = False
    limit: int | None = None

    @classmethod
    def begin(cls, context: Context) -> Attempt:
        """Return the attempt of a try that begins now."""
        return cls(context["ti"].try_number, time.time())

    @classmethod
    def of_event(cls, event: Any, context: Context) -> Attempt:
        """Return the attempt that a trigger's event continues; raises the error that the event carries."""
        from machfive_provider.triggers import events

        found = cls(**events.read(event, "submit")["attempt"])
        if found.try_number == context["ti"].try_number:
            return found
        # After losing a task Airflow may resume it with the event of an earlier try: its search proves nothing now.
        return replace(found, try_number=context["ti"].try_number, absent_since=None)


def defer_purchase(task: BaseOperator, trigger: Any, until: float) -> NoReturn:
    """Leave the worker until the trigger fires; the task comes back in its method ``resume_submission``.

    :param until: epoch seconds at which the trigger gives up
    """
    left = max(0.0, until - time.time())
    task.defer(trigger=trigger, method_name="resume_submission", timeout=timedelta(seconds=left + DEFERRAL_MARGIN))

"""What every deferral of this provider has in common: how long it may last, and how it may end."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import BaseOperator

__all__ = ["DEFERRAL_MARGIN", "needs_a_worker"]

# Seconds. Our own deadline has to pass before the deferral's, because our message says what happens to the list.
DEFERRAL_MARGIN = 300.0


def needs_a_worker(task: BaseOperator) -> bool:
    """Whether a success has effects that only a worker gives it: asset events, and what follows ``execute``.

    ``on_success_callback`` is among them: Airflow asks the DAG processor to run it, and that runs only the callbacks
    of failures.
    """
    own_post_execute = type(task).post_execute is not BaseOperator.post_execute
    hook = getattr(task, "_post_execute_hook", None)
    return bool(task.outlets or own_post_execute or hook or task.on_success_callback)

"""What a task decides before it waits in the triggerer. Light to import: DAG files that are parsed load it."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import BaseOperator

__all__ = ["DEFERRAL_MARGIN", "needs_a_worker"]

DEFERRAL_MARGIN = 300.0
"""Seconds by which Airflow's timeout of a deferral is later than our deadline, whose message says more."""


def needs_a_worker(task: BaseOperator) -> bool:
    """Whether a task must end on a worker, because its success has effects that only a worker brings about.

    They are asset events, ``post_execute`` and ``on_success_callback``: the DAG processor, which Airflow asks to run
    the callbacks of a task that ends in the triggerer, runs those of failures alone.
    """
    own_post_execute = type(task).post_execute is not BaseOperator.post_execute
    hook = getattr(task, "_post_execute_hook", None)
    return bool(task.outlets or own_post_execute or hook or task.on_success_callback)

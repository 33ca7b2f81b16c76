"""Waits of a purchase for a free slot: before a request that is sure to be refused, and after a 429."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.formatting import counted, duration
from machfive_provider.operators.attempt import Attempt, defer_purchase
from machfive_provider.operators.base import ListWaitingOperator

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook

__all__ = ["check_for_slot", "wait_after_429"]

# Seconds to wait after a 429 that is not about capacity and names no time: MachFive asks for restraint (docs/api.md).
_PAUSE_AFTER_429 = 30.0


def check_for_slot(hook: MachFiveHook, task: ListWaitingOperator, ti: Any, attempt: Attempt) -> None:
    """Raise if the workspace is known to be full: then the task queues without being refused first.

    Every triggerer has a queue of its own, and the tasks that wait in another one are after the same slots. So a task
    that was granted one reads again what runs, right before its POST.

    :raises WorkspaceLimitError: without a ``status_code``: MachFive has not been asked
    """
    from machfive_provider.waiting.capacity import running_batches

    limit = attempt.limit if attempt.granted else hook.settings.max_concurrent_batches
    if limit is not None:
        running = len(running_batches(hook))
        if running >= limit:
            raise exceptions.WorkspaceLimitError(
                f"the workspace runs {counted(running, 'batch', 'batches')}, and its limit is taken to be {limit}"
            )
    elif task.deferrable and not attempt.granted and (deferred := _deferred(task, ti)):
        running = len(running_batches(hook))
        # A task stays deferred for a while after its list has ended, so a few more than run prove nothing.
        if deferred > 1.5 * running + 1:
            raise exceptions.WorkspaceLimitError(
                f"{deferred} instances of this task are deferred and the workspace runs "
                f"{counted(running, 'batch', 'batches')}, so some of them wait for a slot already"
            )


def wait_after_429(
    hook: MachFiveHook,
    task: ListWaitingOperator,
    attempt: Attempt,
    error: exceptions.RateLimitedError,
    capacity_timeout: float,
) -> Attempt:
    """Return the attempt when it may ask again, or defer.

    :param error: a 429, or what :func:`check_for_slot` raises
    :param capacity_timeout: seconds to wait for a free slot, from when the attempt began
    :raises CapacityTimeoutError: after ``capacity_timeout``
    """
    from machfive_provider.api.retries import ONCE
    from machfive_provider.waiting.capacity import no_capacity, wait_on_worker

    log, now = task.log, time.time()
    deadline = task.deadline(started_at=attempt.began_at, timeout=capacity_timeout, began_at=attempt.began_at)
    is_full = isinstance(error, exceptions.WorkspaceLimitError)
    if now >= deadline:
        raise no_capacity(now - attempt.began_at, None if is_full else error)
    why = "for a free slot in the workspace" if is_full else "because MachFive asks for fewer requests"
    where = "in the triggerer" if task.deferrable else "on this worker"
    log.info("Waiting %s, %s, for %s at the most. %s", why, where, duration(deadline - now), error)
    was_refused = error.status_code is not None
    # What runs right after a 429 is the workspace's limit.
    limit = _running_now(hook, log) if is_full and was_refused else None
    pause = error.retry_after
    if pause is None:
        pause = 0.0 if is_full else _PAUSE_AFTER_429
    granted = replace(attempt, granted=True)  # once the wait has ended
    if task.deferrable:
        from machfive_provider.triggers.capacity import MachFiveCapacityTrigger

        trigger = MachFiveCapacityTrigger(
            task.machfive_conn_id,
            attempt.began_at,
            deadline,
            task.interval(),
            limit=limit,
            not_before=now + pause,
            granted_limit=None if was_refused else attempt.limit,
            attempt=asdict(granted),
        )
        defer_purchase(task, trigger, deadline)
    with task.hook(ONCE) as reader:
        known = wait_on_worker(
            reader,
            asked_at=attempt.began_at,
            deadline=deadline,
            interval=task.interval(),
            limit=limit,
            not_before=now + pause,
            log=log,
            sleep=time.sleep,
            now=time.time,
        )
    return replace(granted, limit=known)


def _deferred(task: ListWaitingOperator, ti: Any) -> int:
    """Count the instances of this task, of all runs and mapped ones, that wait in a triggerer."""
    try:
        return int(ti.get_ti_count(dag_id=ti.dag_id, task_ids=[ti.task_id], states=["deferred"]))
    except Exception as error:  # noqa: BLE001 - Airflow's API may be out; a purchase that is refused costs nothing
        task.log.debug("The deferred instances of this task could not be counted: %s", error)
        return 0


def _running_now(hook: MachFiveHook, log: Any) -> int | None:
    """Count the batches that run right after a 429: that many the workspace may have."""
    from machfive_provider.waiting.capacity import running_batches

    try:
        return len(running_batches(hook))
    except exceptions.MachFiveTransientError as error:
        log.info("The running batches could not be counted. %s", error)
        return None

"""The trigger that waits for a free slot in the workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from machfive_provider import exceptions
from machfive_provider.triggers import events
from machfive_provider.triggers.base import PlainTrigger
from machfive_provider.waiting.capacity_watcher import wait_for_capacity

__all__ = ["MachFiveCapacityTrigger"]


class MachFiveCapacityTrigger(PlainTrigger):
    """Waits until this task may submit, queued with all that wait for the same workspace; sends GETs only.

    :param machfive_conn_id: the connection; only its id travels
    :param asked_at: epoch seconds at which the task first asked, which gives its position in the queue
    :param deadline: epoch seconds after which the wait is given up
    :param poll_interval: seconds between reads of the workspace
    :param limit: how many batches were counted right after the task was refused; None if it was not refused, or if
        they could not be counted
    :param not_before: epoch seconds before which the API may not be asked (Retry-After), 0 if it did not say
    :param granted_limit: for a task that comes back because others took its slot before it could submit: the limit by
        which the slot was granted; else None
    :param attempt: returned in the event, with the workspace's limit as ``limit``
    """

    def __init__(
        self,
        machfive_conn_id: str,
        asked_at: float,
        deadline: float,
        poll_interval: float,
        limit: int | None = None,
        not_before: float = 0.0,
        granted_limit: int | None = None,
        attempt: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.machfive_conn_id = machfive_conn_id
        self.asked_at = asked_at
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.limit = limit
        self.not_before = not_before
        self.granted_limit = granted_limit
        self.attempt = dict(attempt or {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: that the task may submit, or the error that it is to raise."""
        try:
            limit = await wait_for_capacity(
                self.machfive_conn_id,
                asked_at=self.asked_at,
                deadline=self.deadline,
                interval=self.poll_interval,
                limit=self.limit,
                not_before=self.not_before,
                granted_limit=self.granted_limit,
                log=self.log,
            )
        except exceptions.MachFiveError as error:
            payload = events.failed(error)
        else:
            payload = events.submit({**self.attempt, "limit": limit})
        # Nothing may follow the yield: a trigger that goes on is told that it was killed.
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Say that nothing was bought. It can fire by mistake, so it does nothing else."""
        self.log.warning(
            "The task may have been ended by a user while it waited for a free slot in the workspace. Nothing was "
            "bought by this wait; clearing the task asks again."
        )

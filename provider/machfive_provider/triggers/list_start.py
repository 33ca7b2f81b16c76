"""The trigger that waits for lists on behalf of a task that no worker has seen yet."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from airflow.triggers.base import TriggerEvent

from machfive_provider import exceptions
from machfive_provider.api.protocol import check_uuids
from machfive_provider.triggers import events
from machfive_provider.triggers.lead_list import MachFiveListTrigger

__all__ = ["MachFiveListStartTrigger"]


class MachFiveListStartTrigger(MachFiveListTrigger):
    """Waits like its base, but its arguments were written while the DAG was parsed.

    Airflow renders ``list_id`` and ``machfive_conn_id`` here, because they are the names of the sensor's template
    fields. No moment is among the arguments: they are part of the DAG, which would change with every parse. The
    start is reckoned from the deferral's end, which Airflow keeps with the task instance, so that a move to another
    triggerer does not set the clock back.

    :param list_id: the list's UUID or several, or templates of them
    :param machfive_conn_id: the connection, or a template of it
    :param poll_interval: seconds between polls of a list
    :param wait_seconds: seconds after which the wait is given up
    :param deferral_seconds: seconds after which Airflow would end the deferral
    :param ends_task: end the task from here when all have completed, without a worker
    """

    # What Airflow's triggerer sets: when it will end the deferral.
    timeout_after: datetime | None = None

    def __init__(
        self,
        list_id: str | list[str],
        machfive_conn_id: str,
        poll_interval: float,
        wait_seconds: float,
        deferral_seconds: float,
        ends_task: bool,
    ) -> None:
        super().__init__([], machfive_conn_id, poll_interval, started_at=0.0, deadline=0.0, ends_task=ends_task)
        self.list_id = list_id
        self.wait_seconds = wait_seconds
        self.deferral_seconds = deferral_seconds

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: success, the lists that ended, or the error that the task is to raise."""
        try:
            self.list_ids = self._ids()
        except exceptions.MachFiveError as error:
            yield TriggerEvent(events.failed(error))  # type: ignore[no-untyped-call]
            return
        self.started_at = self._start()
        self.deadline = self.started_at + self.wait_seconds
        async for event in super().run():
            yield event

    def _ids(self) -> list[str]:
        if isinstance(self.list_id, str) and self.list_id.lstrip().startswith(("[", "(")):
            raise exceptions.ConfigurationError(
                "list_id is the text of a list: in the triggerer a template gives text and nothing else. For several "
                "lists give several templates, or leave start_from_trigger out."
            )
        return check_uuids("list_id", self.list_id)

    def _start(self) -> float:
        end = self.timeout_after
        if end is None:
            return time.time()
        return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp() - self.deferral_seconds

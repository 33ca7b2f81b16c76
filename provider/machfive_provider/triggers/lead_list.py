"""The triggers that wait for lists: for a task that a worker has begun, and for one that no worker has seen yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from machfive_provider import exceptions, telemetry
from machfive_provider.api.models import LeadList
from machfive_provider.api.protocol import check_uuids
from machfive_provider.formatting import duration
from machfive_provider.triggers import events
from machfive_provider.triggers.base import PlainTrigger
from machfive_provider.waiting.decision import Done, GiveUp, Progress, Wait, Watch, decide_poll, next_news
from machfive_provider.waiting.poller import SharedPoller, shared_poller

__all__ = ["MachFiveListStartTrigger", "MachFiveListTrigger"]


class MachFiveListTrigger(PlainTrigger):
    """Waits until every list has completed or one has failed; sends GETs only.

    :param list_ids: the lists to wait for
    :param machfive_conn_id: the connection; only its id travels
    :param poll_interval: seconds between polls of a list
    :param started_at: epoch seconds at which the wait began
    :param deadline: epoch seconds after which it is given up
    :param submitted_at: epoch seconds of this task's own submission, None for somebody else's lists
    :param first_poll_at: epoch seconds before which no poll is needed, because the worker has just polled
    :param ends_task: end the task from here when all have completed, without a worker
    """

    def __init__(
        self,
        list_ids: list[str],
        machfive_conn_id: str,
        poll_interval: float,
        started_at: float,
        deadline: float,
        submitted_at: float | None = None,
        first_poll_at: float = 0.0,
        ends_task: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.list_ids = list_ids
        self.machfive_conn_id = machfive_conn_id
        self.poll_interval = poll_interval
        self.started_at = started_at
        self.deadline = deadline
        self.submitted_at = submitted_at
        self.first_poll_at = first_poll_at
        self.ends_task = ends_task

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the lists that ended, or the error that the task is to raise."""
        try:
            lists = await self._wait_for_all()
        except exceptions.MachFiveError as error:
            event = TriggerEvent(events.failed(error))  # type: ignore[no-untyped-call]
        else:
            telemetry.waited("completion", self.machfive_conn_id, self.started_at)
            event = self._event(lists)
        # Nothing may follow the yield: a trigger that goes on is told that it was killed.
        yield event

    def _event(self, lists: list[LeadList]) -> TriggerEvent:
        if self.ends_task and all(each.is_completed for each in lists):
            return TaskSuccessEvent()
        return TriggerEvent(events.ended(lists, self.started_at, self.deadline))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Say what becomes of the lists. It can fire by mistake, so it does nothing else."""
        self.log.warning(
            "The task may have been ended by a user. MachFive has no cancel: list %s keeps running and its credits "
            "are spent. Clearing the task picks it up again without paying again.",
            ", ".join(self.list_ids),
        )

    async def _wait_for_all(self) -> list[LeadList]:
        async with shared_poller(self.machfive_conn_id) as poller:
            if len(self.list_ids) == 1:  # the usual case, and there may be thousands: no task beside the trigger's own
                return [await self._wait_for(self.list_ids[0], poller)]
            tasks = [asyncio.create_task(self._wait_for(list_id, poller)) for list_id in self.list_ids]
            try:
                for next_one in asyncio.as_completed(tasks):
                    ended = await next_one
                    if not ended.is_completed:
                        return [ended]
                return [task.result() for task in tasks]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for(self, list_id: str, poller: SharedPoller) -> LeadList:
        watch = Watch(list_id, self.poll_interval, self.started_at, self.deadline, self.submitted_at)
        progress, after = Progress(), max(0.0, self.first_poll_at - time.time())
        while True:
            known, quiet_until = next_news(watch, progress)
            polled = await poller.next_poll(
                list_id, after, interval=watch.interval, deadline=watch.deadline, known=known, quiet_until=quiet_until
            )
            match decide_poll(watch, progress, polled, time.time()):
                case Done(lead_list):
                    waited = duration(time.time() - self.started_at)
                    self.log.info("List %s has %s after %s.", list_id, lead_list.processing_status, waited)
                    return lead_list
                case GiveUp(reason):
                    raise reason
                case Wait(after, progress) as wait:
                    wait.tell(self.log)


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

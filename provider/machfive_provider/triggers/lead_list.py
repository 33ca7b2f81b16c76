"""The trigger that waits for lists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.formatting import duration
from machfive_provider.triggers import events
from machfive_provider.triggers.base import PlainTrigger
from machfive_provider.waiting.decision import Done, GiveUp, Progress, Wait, Watch, decide_poll, next_news
from machfive_provider.waiting.poller import SharedPoller, shared_poller

__all__ = ["MachFiveListTrigger"]


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
                case Wait(after, progress, notice):
                    if notice:
                        self.log.info("%s", notice)

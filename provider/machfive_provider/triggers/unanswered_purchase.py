"""The trigger that waits for the list of an unanswered purchase to show up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from airflow.triggers.base import TriggerEvent

from machfive_provider import exceptions
from machfive_provider.api import protocol
from machfive_provider.triggers import events
from machfive_provider.triggers.base import PlainTrigger
from machfive_provider.waiting.decision import jittered
from machfive_provider.waiting.shared_client import SharedClient, shared_client

__all__ = ["MachFiveUnansweredPurchaseTrigger"]


class MachFiveUnansweredPurchaseTrigger(PlainTrigger):
    """Ends when a list with the tag shows up, or at ``until``; sends GETs only.

    Either way the task then searches once more and decides itself (``purchase.decision``).

    :param machfive_conn_id: the connection's id
    :param campaign_id: the campaign to search
    :param tag: the tag to search for in the lists' names
    :param since: epoch seconds; the search stops at lists created before it
    :param until: epoch seconds at which to stop waiting
    :param poll_interval: seconds between searches
    :param asked_at: epoch seconds at which the task first asked for capacity; returned in the event
    :param try_number: of the task; returned in the event
    :param absent_since: epoch seconds of the task's first search without the list; returned in the event
    """

    def __init__(
        self,
        machfive_conn_id: str,
        campaign_id: str,
        tag: str,
        since: float,
        until: float,
        poll_interval: float,
        asked_at: float,
        try_number: int,
        absent_since: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.machfive_conn_id = machfive_conn_id
        self.campaign_id = campaign_id
        self.tag = tag
        self.since = since
        self.until = until
        self.poll_interval = poll_interval
        self.asked_at = asked_at
        self.try_number = try_number
        self.absent_since = absent_since

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the task is to search again and decide, or to raise the error."""
        try:
            async with shared_client(self.machfive_conn_id) as reader:
                await self._wait(reader)
        except exceptions.MachFiveError as error:
            event = TriggerEvent(events.failed(error))  # type: ignore[no-untyped-call]
        else:
            carried = events.submit(self.asked_at, self.try_number, self.absent_since, granted=False)
            event = TriggerEvent(carried)  # type: ignore[no-untyped-call]
        yield event

    async def on_kill(self) -> None:
        """Only log: Airflow 3.3 also calls this when a stalled triggerer wakes up, without any action by a user."""
        self.log.warning(
            "The task may have been ended by a user while it was not known whether its batch %s had been bought. "
            "If you clear the task, it searches for the list again and pays only if there is none.",
            self.tag,
        )

    async def _wait(self, reader: SharedClient) -> None:
        while (left := self.until - time.time()) > 0:
            await asyncio.sleep(min(jittered(self.poll_interval), left))
            try:
                if await self._is_listed(reader):
                    self.log.info("The list of the earlier submission has shown up.")
                    return
            except exceptions.MachFiveTransientError as error:
                self.log.info("The search for the list failed and is tried again. %s", error)

    async def _is_listed(self, reader: SharedClient) -> bool:
        pages = protocol.ListPages(self.campaign_id)
        while not pages.done:
            for each in pages.take(await reader.send(pages.call())):
                if each.created_at and each.created_at.timestamp() < self.since:
                    return False
                if self.tag in (each.custom_name or ""):
                    return True
        return False

"""The trigger that waits for the list of an unanswered purchase to show up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import TriggerEvent

from machfive_provider import exceptions
from machfive_provider.api import protocol
from machfive_provider.purchase.tag import Tag
from machfive_provider.triggers import events
from machfive_provider.triggers.base import PlainTrigger
from machfive_provider.waiting.decision import jittered
from machfive_provider.waiting.shared_client import SharedClient, shared_client

__all__ = ["MachFiveUnansweredPurchaseTrigger"]


class MachFiveUnansweredPurchaseTrigger(PlainTrigger):
    """Ends when a list shows up that the task has to know of, or at ``until``; sends GETs only.

    Such a list has the task's tag: of the same purchase, or of the same round and map index. Either way the task then
    searches once more and decides itself (``purchase.decision``).

    :param machfive_conn_id: the connection's id
    :param tag: the tag of the list that the task would buy
    :param known: ids of lists that the task has seen already
    :param since: epoch seconds; the search stops at lists created before it
    :param until: epoch seconds at which to stop waiting
    :param poll_interval: seconds between searches
    :param attempt: returned in the event as it is
    """

    def __init__(
        self,
        machfive_conn_id: str,
        tag: str,
        known: list[str],
        since: float,
        until: float,
        poll_interval: float,
        attempt: dict[str, Any],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.machfive_conn_id = machfive_conn_id
        self.tag = tag
        self.known = known
        self.since = since
        self.until = until
        self.poll_interval = poll_interval
        self.attempt = attempt

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the task is to search again and decide, or to raise the error."""
        try:
            async with shared_client(self.machfive_conn_id) as reader:
                await self._wait(reader)
        except exceptions.MachFiveError as error:
            payload = events.failed(error)
        else:
            payload = events.submit(self.attempt)
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

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
                if await self._shows_up(reader):
                    self.log.info("A list of an earlier submission has shown up.")
                    return
            except exceptions.MachFiveTransientError as error:
                self.log.warning("The search for the list failed and is tried again. %s", error)

    async def _shows_up(self, reader: SharedClient) -> bool:
        ours, pages = Tag.all_in(self.tag)[0], protocol.ListPages()
        while not pages.done:
            for each in pages.take(await reader.send(pages.call())):
                if each.created_at and each.created_at.timestamp() < self.since:
                    return False
                tags = Tag.all_in(each.custom_name)
                if each.id not in self.known and any(tag.is_of_same_task(ours) for tag in tags):
                    return True
        return False

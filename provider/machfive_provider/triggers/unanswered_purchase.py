"""The trigger that looks for the list of a submission whose answer was lost."""

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
    """Waits until a list with a tag turns up or the settling time has passed; sends GETs only.

    Either way the task looks once more itself: what it does then is decided in one place.

    :param machfive_conn_id: the connection; only its id travels
    :param campaign_id: the campaign whose lists are looked through
    :param tag: what the list's name would hold
    :param since: epoch seconds; lists created before it are not looked at
    :param until: epoch seconds at which the settling time has passed
    :param poll_interval: seconds between looks
    :param asked_at: epoch seconds at which the task first asked for room; carried through
    :param try_number: of the task; carried through
    :param absent_since: epoch seconds of the task's first look without the list; carried through
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
        """Yield one event: time to look again and decide, or the error that the task is to raise."""
        try:
            async with shared_client(self.machfive_conn_id) as reader:
                await self._look_on(reader)
        except exceptions.MachFiveError as error:
            event = TriggerEvent(events.failed(error))  # type: ignore[no-untyped-call]
        else:
            carried = events.submit(self.asked_at, self.try_number, self.absent_since, granted=False)
            event = TriggerEvent(carried)  # type: ignore[no-untyped-call]
        yield event

    async def on_kill(self) -> None:
        """Say what is open. It can fire by mistake, so it does nothing else."""
        self.log.warning(
            "The task may have been ended by a user while it was not known whether its batch %s had been bought. "
            "Clearing the task looks again and pays only if no list has turned up.",
            self.tag,
        )

    async def _look_on(self, reader: SharedClient) -> None:
        while (left := self.until - time.time()) > 0:
            await asyncio.sleep(min(jittered(self.poll_interval), left))
            try:
                if await self._is_there(reader):
                    self.log.info("The list of the earlier submission has turned up.")
                    return
            except exceptions.MachFiveTransientError as error:
                self.log.info("The lists could not be looked at, which is tried again. %s", error)

    async def _is_there(self, reader: SharedClient) -> bool:
        pages = protocol.ListPages(self.campaign_id)
        while not pages.done:
            for each in pages.take(await reader.send(pages.call())):
                if each.created_at and each.created_at.timestamp() < self.since:
                    return False
                if self.tag in (each.custom_name or ""):
                    return True
        return False

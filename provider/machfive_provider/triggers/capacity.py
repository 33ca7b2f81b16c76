"""The trigger that waits for room in the workspace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from machfive_provider import errors
from machfive_provider.api import protocol
from machfive_provider.polling import jittered
from machfive_provider.shared_poller import SharedPoller, shared_poller
from machfive_provider.texts import duration
from machfive_provider.triggers import events

__all__ = ["MachFiveCapacityTrigger", "no_room"]

_ASK_AGAIN = 120.0  # seconds without seeing a batch end, after which the task asks the API itself


class MachFiveCapacityTrigger(BaseTrigger):
    """Waits after a 429 WORKSPACE_LIMIT until a batch of the workspace has ended; sends GETs only.

    :param machfive_conn_id: the connection; only its id travels
    :param asked_at: epoch seconds at which the task first asked for room
    :param deadline: epoch seconds after which the wait is given up
    :param poll_interval: seconds between looks
    """

    def __init__(self, machfive_conn_id: str, asked_at: float, deadline: float, poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.machfive_conn_id = machfive_conn_id
        self.asked_at = asked_at
        self.deadline = deadline
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the trigger is made of again: plain values."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "machfive_conn_id": self.machfive_conn_id,
                "asked_at": self.asked_at,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: room, or the error that the task is to raise."""
        try:
            async with shared_poller(self.machfive_conn_id) as poller:
                await self._wait_for_room(poller)
        except errors.MachFiveError as error:
            event = TriggerEvent(events.failed(error))  # type: ignore[no-untyped-call]
        else:
            event = TriggerEvent(events.room(self.asked_at))  # type: ignore[no-untyped-call]
        yield event

    async def _wait_for_room(self, poller: SharedPoller) -> None:
        busy: set[str] | None = None
        pause, began = 0.0, time.time()
        while True:
            try:
                running = await self._running(poller, pause)
            except errors.MachFiveTransientError as error:
                self.log.info("The workspace could not be looked at, which is tried again: %s", error)
            else:
                # What ended before the first look cannot be seen to end: so an empty workspace is room too,
                # and after a while asking again is the better look.
                if not running or (busy is not None and busy - running) or time.time() - began >= _ASK_AGAIN:
                    return
                busy = running if busy is None else busy | running
            now = time.time()
            if now >= self.deadline:
                raise no_room(now - self.asked_at)
            pause = jittered(min(self.poll_interval, self.deadline - now))

    @staticmethod
    async def _running(poller: SharedPoller, pause: float) -> set[str]:
        await asyncio.sleep(pause)
        pages = [await poller.send(protocol.list_lists(status=status)) for status in ("pending", "processing")]
        return {each.id for page in pages for each in page}


def no_room(waited: float) -> errors.CapacityTimeoutError:
    """Return the error for a workspace that stayed full; ``waited`` in seconds."""
    return errors.CapacityTimeoutError(
        f"the workspace had no room for another batch for {duration(waited)} (capacity_timeout). Nothing was bought. "
        "Raise capacity_timeout, submit fewer batches at a time (an Airflow pool helps), or ask MachFive for a "
        "higher limit."
    )

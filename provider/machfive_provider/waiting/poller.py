"""One poller for all triggers of a connection in a triggerer: it asks for all their lists at once.

A trigger says when it wants a look at a list and what would be no news. The poller takes looks in rounds and hands
on what is news, so that a list that goes on running costs next to nothing. It only ever sends GETs, so running a
trigger twice is harmless.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from contextlib import AbstractAsyncContextManager

from machfive_provider.waiting.per_loop import PerLoop
from machfive_provider.waiting.rounds import Rounds
from machfive_provider.waiting.shared_client import shared_client
from machfive_provider.waiting.wishes import NEVER, Look, Wish, Wishes

__all__ = ["SharedPoller", "shared_poller"]

_SPREAD = 0.1  # of an interval: how far first looks are spread, so that triggerers that start together part
_ROUNDS = 10  # at most, in the shortest interval: who comes one after the other is looked at together ...
_LONGEST_GATHERING = 1.0  # ... and waits no longer than so many seconds for it


class SharedPoller:
    """Takes looks at lists when they are due, for any number of waiters.

    :param conn_id: the Airflow connection all its waiters share
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._wishes = Wishes()
        self._last_round = float("-inf")
        self._loop = asyncio.get_running_loop()
        # An empty context: what the poller logs belongs to the triggerer, not to the task that came first.
        self._runner = self._loop.create_task(self._run(), context=contextvars.Context())

    async def look(
        self,
        list_id: str,
        after: float,
        *,
        interval: float,
        deadline: float,
        known: str | None = None,
        quiet_until: float = 0.0,
        since: float | None = None,
    ) -> Look:
        """Return the first look at a list that is news; waits for as long as there is none.

        :param after: seconds before the first look
        :param interval: seconds between looks from then on
        :param deadline: epoch seconds at which there is a look whatever the interval
        :param known: a status that is no news, None if every look is
        :param quiet_until: epoch seconds from which on every look is news
        :param since: ``taken_at`` of the look before, from which ``after`` counts; None for now
        """
        now, ahead = self._loop.time(), self._loop.time() - time.time()
        if since is None:
            due = now + after - random.uniform(0, _SPREAD) * min(after, interval)  # noqa: S311 - not for secrets
        else:
            due = max(now, since + after)  # what was looked at in one round stays together
        wish = Wish(
            answer=self._loop.create_future(),
            interval=interval,
            due=due,
            deadline=deadline + ahead,
            known=known,
            quiet_until=quiet_until + ahead,
            looked_at=since or 0.0,
        )
        self._wishes.add(list_id.lower(), wish)
        try:
            return await wish.answer
        finally:
            self._wishes.remove(list_id.lower(), wish)

    async def close(self) -> None:
        """Stop looking and let go of the reader."""
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        async with shared_client(self.conn_id) as reader:
            rounds = Rounds(reader, self._wishes)
            try:
                while True:
                    await self._until_due(rounds)
                    self._last_round = began = self._loop.time()
                    due = self._wishes.due(began)
                    try:
                        await rounds.take(due, began)
                    except Exception as error:  # noqa: BLE001 - the waiters must hear of it, not hang
                        self._wishes.break_off(due, error)
                    self._wishes.plan()
            finally:
                await rounds.close()

    async def _until_due(self, rounds: Rounds) -> None:
        while True:
            self._wishes.sooner.clear()
            gathered = self._last_round + min(_LONGEST_GATHERING, self._wishes.shortest / _ROUNDS)
            left = max(self._wishes.next_due, gathered, rounds.backing_off_until) - self._loop.time()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(None if left == NEVER else left):
                    await self._wishes.sooner.wait()
            except TimeoutError:
                continue


_pollers: PerLoop[SharedPoller] = PerLoop()


def shared_poller(conn_id: str) -> AbstractAsyncContextManager[SharedPoller]:
    """Join the poller of a connection on this event loop; the last one to leave ends it."""
    return _pollers.use(conn_id, lambda: SharedPoller(conn_id))

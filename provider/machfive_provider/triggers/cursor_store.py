"""Where an event trigger keeps its cursor, so that a restart loses no event."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["AIRFLOW_TAKES", "CursorStore"]

AIRFLOW_TAKES = 10.0
"""Seconds in which Airflow surely has written an event to its database and has created the run of a first event.

Both take a second or two: triggerer and scheduler look for work once a second (``triggerer_job_runner.py``,
``scheduler_job_runner.py``).
"""


class CursorStore:
    """Keeps a cursor in Airflow's asset state store, which has awaitable calls from 3.3.2 on; else nowhere.

    A cursor is written only when Airflow surely has what was reported before it. If the triggerer dies earlier, the
    cursor before brings those events again.

    :param store: the trigger's ``asset_state_store``, None if it has none
    :param key: under which the cursor is kept, so that several watchers of an asset have one each
    :param log: of the trigger
    """

    def __init__(self, store: Any, key: str, log: Any) -> None:
        self._store: Any = store if hasattr(store, "aget") else None
        self._key, self._log = key, log
        self._written: Any = None
        self._held: Any = None  # a cursor that waits to be written
        self._held_needs_event = False
        self._reported_at = self._last_report = float("-inf")

    async def load(self) -> Any:
        """Return the cursor that was kept last, None if there is none. Raises what Airflow raises."""
        if self._store is None:
            return None
        try:
            self._written = await self._store.aget(self._key)
        except ValueError:
            # Two assets whose watchers have equal arguments share one trigger, and the store does not know which.
            self._store = None
            self._log.warning(
                "The cursor of this watcher cannot be kept, because several assets have watchers with equal arguments. "
                "What ends while the triggerer is down may be missed. Give each a watcher_id of its own."
            )
        return self._written

    async def keep(self, cursor: Any, *, reported: bool, needs_event: bool) -> None:
        """Keep a cursor, now or with a later call.

        :param cursor: plain JSON
        :param reported: whether events were reported since the last call
        :param needs_event: whether Airflow puts the last of them into a run only together with a later event
        """
        if self._store is None:
            return
        now = time.time()
        if self._held is not None and self._held_needs_event and reported:
            self._held_needs_event, self._reported_at = False, now
        if self._held is not None and not self._held_needs_event and now - self._reported_at >= AIRFLOW_TAKES:
            await self._write(self._held)
            self._held = None
        if reported:
            self._last_report = now
        if self._held is not None:
            return
        if needs_event or now - self._last_report < AIRFLOW_TAKES:
            self._held, self._held_needs_event, self._reported_at = cursor, needs_event, now
        else:
            await self._write(cursor)

    async def _write(self, cursor: Any) -> None:
        if cursor != self._written:
            await self._store.aset(self._key, cursor)
            self._written = cursor

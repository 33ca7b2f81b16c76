"""Where an event trigger keeps its cursor, so that a restart loses no event."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["CursorStore"]

# Seconds between an event and the writing of a cursor that lies behind it. Airflow takes events to its database in two
# steps of a second each (triggerer_job_runner.py); if it dies in between, the older cursor brings the event again.
_DELAY = 10.0


class CursorStore:
    """Keeps a cursor in Airflow's asset state store, which has awaitable calls from 3.3.2 on; else nowhere.

    :param store: the trigger's ``asset_state_store``, None if it has none
    :param key: under which the cursor is kept, so that several watchers of an asset have one each
    :param log: of the trigger
    """

    def __init__(self, store: Any, key: str, log: Any) -> None:
        self._store: Any = store if hasattr(store, "aget") else None
        self._key, self._log = key, log
        self._written: Any = None
        self._held: Any = None  # a cursor that waits for its events to be written
        self._held_since = self._reported_at = 0.0

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
                "This watcher's place cannot be kept, because several assets have watchers with equal arguments: what "
                "ends while the triggerer is down may be missed. Give each a watcher_id of its own."
            )
        return self._written

    async def keep(self, cursor: Any, *, reported: bool) -> None:
        """Keep a cursor: at once, or with a later call if events were reported that Airflow may not have written yet.

        :param cursor: plain JSON
        :param reported: whether events were reported with this very cursor
        """
        if self._store is None:
            return
        now = time.time()
        if reported:
            self._reported_at = now
        if self._held is not None and now - self._held_since >= _DELAY:
            await self._write(self._held)
            self._held = None
        if self._held is None and now - self._reported_at >= _DELAY:
            await self._write(cursor)
        elif self._held is None:
            self._held, self._held_since = cursor, now

    async def _write(self, cursor: Any) -> None:
        if cursor != self._written:
            await self._store.aset(self._key, cursor)
            self._written = cursor

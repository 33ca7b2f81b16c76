"""Waiting in real time that does not outlive the server."""

from __future__ import annotations

import asyncio
import contextlib
import math


class Pause:
    """Call it to wait; `stop` ends every wait, now and later. Belongs to the server's event loop."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    async def __call__(self, seconds: float) -> bool:
        """Wait for so many seconds; False where the server stops before they are over."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), None if seconds == math.inf else seconds)
                return False
        return True

    def stop(self) -> None:
        """End every wait; to be called on the server's loop."""
        self._stopping.set()

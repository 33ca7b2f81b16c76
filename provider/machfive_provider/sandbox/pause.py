"""Waiting inside a response, on the running event loop."""

from __future__ import annotations

import asyncio
import math


async def pause(seconds: float) -> None:
    """Wait so many seconds of the running loop's time, or for ever."""
    await (asyncio.Event().wait() if seconds == math.inf else asyncio.sleep(seconds))

"""What the triggers on one event loop share, such as one HTTP client per connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerLoop"]


class _Closable(Protocol):
    async def close(self) -> None:
        """Let go of what it holds."""


T = TypeVar("T", bound=_Closable)


@dataclass(slots=True)
class _Share(Generic[T]):
    shared: T
    users: int = 0


class PerLoop(Generic[T]):
    """One object for each key and running loop, made for its first user and closed after its last.

    By loop, because ``dag.test()`` makes a new one for each trigger.
    """

    def __init__(self) -> None:
        self._shares: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Share[T]]] = WeakKeyDictionary()

    @asynccontextmanager
    async def use(self, key: str, make: Callable[[], T]) -> AsyncIterator[T]:
        """Join the object of this key on the running loop; it is made if there is none."""
        shares = self._shares.setdefault(asyncio.get_running_loop(), {})
        if key not in shares:
            shares[key] = _Share(make())
        share = shares[key]
        share.users += 1
        try:
            yield share.shared
        finally:
            share.users -= 1
            if not share.users:
                del shares[key]
                await share.shared.close()

    def in_use(self) -> dict[str, T]:
        """Return what is in use on the running loop, by key."""
        shares = self._shares.get(asyncio.get_running_loop(), {})
        return {key: share.shared for key, share in shares.items()}

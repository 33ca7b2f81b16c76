"""How long each callback holds an event loop, and whose it is."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Callbacks", "watched"]


@dataclass
class Callbacks:
    """CPU seconds of a phase's callbacks, those of the watched package apart from all others.

    :param worst: by name, the longest callback of that name
    :param number: how many there were
    :param total: seconds of all of them
    :param worst_other: the longest of those that are not the package's, with its name
    :param collection: the longest full garbage collection, which is in no callback's time
    """

    worst: dict[str, float] = field(default_factory=dict)
    number: int = 0
    total: float = 0.0
    worst_other: tuple[float, str] = (0.0, "")
    collection: float = 0.0

    def add(self, name: str, seconds: float, *, ours: bool) -> None:
        """Take in one callback."""
        if not ours:
            self.worst_other = max(self.worst_other, (seconds, name))
            return
        self.number += 1
        self.total += seconds
        self.worst[name] = max(seconds, self.worst.get(name, 0.0))

    def top(self, number: int) -> list[tuple[str, float]]:
        """Return the longest, one of each name."""
        return Counter(self.worst).most_common(number)


@contextmanager
def watched(package: str, tasks_of: str, into: Callable[[], Callbacks]) -> Iterator[None]:
    """Time every callback of every loop by the CPU its thread uses.

    A callback is the package's if its function, or the coroutine of the task it steps, is written there; so is every
    step of a task whose coroutine is called ``tasks_of``: the harness's, around a trigger's ``run``. Full collections
    are timed by themselves: what they cost is set by all objects of the process, and whose callback they fall into
    is luck.

    :param into: returns the phase that a callback counts for
    """
    run, collecting = asyncio.Handle._run, [0.0, 0.0]  # when the collection began; how much is not the callback's

    def timed(handle: asyncio.Handle) -> None:
        callback, began, collecting[1] = handle._callback, time.thread_time(), 0.0
        run(handle)
        taken = time.thread_time() - began - collecting[1]
        module, name = _origin(callback)
        into().add(name, taken, ours=module.startswith(package) or name == tasks_of)

    def collected(phase: str, about: dict[str, int]) -> None:
        if about["generation"] < 2:
            return
        if phase == "start":
            collecting[0] = time.thread_time()
        else:
            taken = time.thread_time() - collecting[0]
            collecting[1] += taken
            into().collection = max(into().collection, taken)

    asyncio.Handle._run = timed
    gc.callbacks.append(collected)
    try:
        yield
    finally:
        asyncio.Handle._run = run
        gc.callbacks.remove(collected)


def _origin(callback: Any) -> tuple[str, str]:
    """Return the module and the name of what a callback runs."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coroutine = owner.get_coro()
        code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
        return _module(code.co_filename) if code else "", getattr(coroutine, "__qualname__", "a task")
    module = getattr(callback, "__module__", None) or type(owner).__module__
    return module, getattr(callback, "__qualname__", type(callback).__name__)


@functools.cache
def _module(file: str) -> str:
    """Return the dotted name of a source file, as far as packages are told by it."""
    parts = file.removesuffix(".py").replace("\\", "/").split("/")
    for root in ("provider", "site-packages"):
        if root in parts:
            return ".".join(parts[len(parts) - parts[::-1].index(root) :])
    return parts[-1]

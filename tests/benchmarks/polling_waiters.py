"""Waiters of one provider on one event loop, in a process of their own: what they cost and when they notice the end.

Everything here happens in this order: one waiter first, so that all code is loaded; the others, traced for the memory
they hold; a round at full speed; the count; the lag; some of them completed at random moments; all cancelled.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
import time
import tracemalloc
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import SUBJECTS
from tests.benchmarks.polling_server import ask
from tests.benchmarks.waiters import Waiters, answer, in_fresh_process

__all__ = ["NEVER", "TOLD", "Counted", "Task", "count"]

TICK = 0.05
TOLD = 20  # of the waiters, how many are completed
NEVER = 3.0  # intervals after which a completion counts as not noticed


@dataclass(frozen=True)
class Task:
    """What is to be measured.

    :param connections: to which the waiters are dealt; MachFive's only
    :param traced: whether memory is what Python has allocated, not what the process holds of the machine's
    """

    subject: str
    waiters: int
    foreign: int = 0
    interval: float = 10.0
    counted: float = 60.0
    connections: int = 1
    traced: bool = True


@dataclass
class Counted:
    """What one process has found.

    :param polls_due: waiters times seconds counted, by the interval
    :param requests: at the server
    :param per_interval: requests an interval, from the first to the last one counted: no edge of the count in it
    :param cpu: seconds of the loop's process, all its threads
    :param lag: seconds by which the latest tick was late
    :param lags: seconds by which half and 99 of 100 ticks were late at most
    :param bytes_each: memory a waiter, None where there is one only
    :param noticed: intervals from each completion to the trigger's event
    """

    polls_due: float = 0.0
    requests: int = 0
    per_interval: float = 0.0
    cpu: float = 0.0
    lag: float = 0.0
    lags: tuple[float, float] = (0.0, 0.0)
    bytes_each: float | None = None
    noticed: list[float] = field(default_factory=list)


def count(task: Task) -> Counted:
    """Measure in a fresh process beside a fresh server; raises ``RuntimeError`` with the reason if that broke."""
    limit = 15 * task.interval + task.counted + 120
    found = in_fresh_process(
        "polling_waiters", task.subject, asdict(task), task.waiters, task.foreign, limit, task.connections
    )
    return Counted(**found)


class Ticker:
    """Notes how late the loop calls back what is due every 50 ms."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late, self._last = list[float](), self._loop.time()
        self._next = self._loop.call_later(TICK, self._tick)

    def stop(self) -> list[float]:
        """End it; return how many seconds each tick was late, sorted, the tick that is due included."""
        self._next.cancel()
        return sorted([*self._late, self._loop.time() - self._last - TICK])

    def _tick(self) -> None:
        now = self._loop.time()
        self._late.append(now - self._last - TICK)
        self._last = now
        self._next = self._loop.call_later(TICK, self._tick)


async def measure(task: Task, port: int) -> dict[str, Any]:
    """Do all of it; the module's docstring says in which order."""
    waiters, found = Waiters(SUBJECTS[task.subject], task.interval, task.connections), Counted()
    waiters.add(range(1))
    await asyncio.sleep(1)
    began = time.monotonic()
    if task.waiters > 1:
        found.bytes_each = await memory(task, waiters)
    # Half-way between two rounds, so that neither edge of the count cuts one in two.
    await asyncio.sleep(max(0.0, began + 2.5 * task.interval - time.monotonic()))
    await load(task, port, found)
    waiters.check()
    if len(waiters.ended):
        raise RuntimeError(f"{len(waiters.ended)} waiters ended while all was running")
    found.noticed = await completions(task, port, waiters)
    await waiters.cancel()
    return asdict(found)


async def memory(task: Task, waiters: Waiters) -> float:
    """Start the waiters but the first; return the bytes each holds when all have looked once and rest."""
    gc.collect()
    if task.traced:
        tracemalloc.start()
    before = held(traced=task.traced)
    waiters.add(range(1, task.waiters))
    await asyncio.sleep(0.95 * task.interval)
    gc.collect()
    more = held(traced=task.traced) - before
    tracemalloc.stop()
    return more / (task.waiters - 1)


def held(*, traced: bool) -> int:
    """Return the bytes that Python has allocated since it is traced, or the resident set of this process."""
    if traced:
        return tracemalloc.get_traced_memory()[0]
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def load(task: Task, port: int, found: Counted) -> None:
    """Count requests and CPU for a while in which nothing ends, then for how long the loop is held."""
    began = (await ask(port, "/control/count"))["now"]
    cpu = time.process_time()
    await asyncio.sleep(began + task.counted - time.monotonic())
    found.cpu = time.process_time() - cpu
    told = await ask(port, f"/control/count?since={began}")
    found.polls_due = task.waiters * (told["now"] - began) / task.interval
    found.requests = told["requests"]
    if found.requests > 1:
        found.per_interval = (found.requests - 1) / ((told["last"][0] - told["first"][0]) / task.interval)
    # Apart, because the ticks cost more CPU than waiters that are polled for together.
    ticker = Ticker()
    await asyncio.sleep(2 * task.interval)
    late = ticker.stop()
    found.lag, found.lags = late[-1], (late[len(late) // 2], late[len(late) * 99 // 100])


async def completions(task: Task, port: int, waiters: Waiters) -> list[float]:
    """Complete a few at random moments; return after how many intervals each had its event, NEVER at most."""
    chance = random.Random(task.waiters)
    keys = chance.sample(sorted(waiters.tasks), min(TOLD, task.waiters))

    async def complete(key: str, moment: float) -> float:
        await asyncio.sleep(moment)
        at = (await ask(port, f"/control/end?ids={key}"))["now"]
        await asyncio.wait([waiters.tasks[key]], timeout=at + NEVER * task.interval - time.monotonic())
        waiters.check()
        return min(NEVER, (waiters.ended.get(key, float("inf")) - at) / task.interval)

    return await asyncio.gather(*(complete(key, chance.uniform(0, task.interval)) for key in keys))


if __name__ == "__main__":
    answer(measure(Task(**json.loads(sys.argv[1])), int(sys.argv[2])))

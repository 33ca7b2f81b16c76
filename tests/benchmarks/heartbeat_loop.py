"""A day in the life of thousands of waiters on one loop, every callback timed: the process that the heartbeat runs."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.callbacks import Callbacks, watched
from tests.benchmarks.peers import SUBJECTS
from tests.benchmarks.polling_server import ask
from tests.benchmarks.waiters import Waiters, answer

__all__ = ["PHASES", "Day"]

PHASES = ("all join", "rounds", "hundreds end at once", "a round fails", "all are cancelled")


@dataclass(frozen=True)
class Day:
    """What happens.

    :param package: whose callbacks are the subject's
    :param survives: whether its waiters are to outlive a failed round
    """

    subject: str
    package: str
    survives: bool = True
    waiters: int = 5_000
    ending: int = 300
    interval: float = 10.0


async def live(day: Day, port: int) -> dict[str, Any]:
    """Go through the phases; return what the callbacks of each took."""
    waiters = Waiters(SUBJECTS[day.subject], day.interval)
    found: dict[str, Callbacks] = defaultdict(Callbacks)
    now = [""]
    with watched(day.package, "Waiters._run", lambda: found[now[0]]):
        now[0] = PHASES[0]
        for number in range(day.waiters):
            waiters.add([number])
            await asyncio.sleep(0)  # as the triggerer does between two
        await asyncio.sleep(0.9 * day.interval)
        now[0] = PHASES[1]
        await asyncio.sleep(2.5 * day.interval)
        waiters.check()
        now[0] = PHASES[2]
        await end_some(day, port, waiters)
        waiters.check()
        now[0] = PHASES[3]
        await ask(port, "/control/fail?on=1")
        await asyncio.sleep(1.1 * day.interval)
        await ask(port, "/control/fail?on=0")
        await asyncio.sleep(2 * day.interval)
        if day.survives:
            waiters.check()
        now[0] = PHASES[4]
        await waiters.cancel()
        await asyncio.sleep(0.1)
    # What the harness does in between is in no phase.
    return {phase: {**asdict(found[phase]), "ended": len(waiters.ended)} for phase in PHASES}


async def end_some(day: Day, port: int, waiters: Waiters) -> None:
    """Complete hundreds at once and wait until their triggers have said so."""
    keys = random.Random(day.waiters).sample(sorted(waiters.tasks), day.ending)
    await ask(port, f"/control/end?ids={','.join(keys)}")
    await asyncio.wait([waiters.tasks[key] for key in keys], timeout=3 * day.interval)


if __name__ == "__main__":
    answer(live(Day(**json.loads(sys.argv[1])), int(sys.argv[2])))

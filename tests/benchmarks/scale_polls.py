"""How many requests waiting costs where up to 100 triggerers share the lists of one connection. Computed.

``python -m tests.benchmarks.scale_polls`` takes a minute.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import httpx

from machfive_provider.triggers.lead_list import MachFiveListTrigger
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.polling_server import Server, list_id
from tests.benchmarks.running import run
from tests.benchmarks.scale_fleet import connection_of, on_virtual_time

__all__ = ["measure"]

TRIGGERERS = (1, 2, 5, 10, 30, 100)
LISTS = (10, 100, 1_000)
INTERVAL = 20.0  # seconds: the operators' default
COUNTED = 3 * INTERVAL
AT_MOST = 1.25  # requests a poll due: one by id for each list, and pages that show too few of them

HOW = f"""\
**Computed**, not measured: the real triggers and pollers on virtual time, with a stand-in for the API in the same
process. So many lists of one connection are waited for with `poll_interval` {INTERVAL:g} s, spread evenly over so many
triggerers, and begun at random moments; none ends. {COUNTED:g} s are counted after a warm-up. A triggerer asks for its
lists together, a hundred a page, and knows nothing of what others ask for. The more triggerers share the lists, the
fewer of its own a triggerer finds on a page, down to one request for each list and interval."""


def measure() -> Figure:
    """Go through all numbers of triggerers and lists."""
    found = {(here, lists): simulate(here, lists) for here in TRIGGERERS for lists in LISTS}
    due = {lists: lists * 60 / INTERVAL for lists in LISTS}
    worst = max(each / due[lists] for (_, lists), each in found.items())
    return Figure(
        name="scale_polls",
        title="Computed: requests with many triggerers",
        how=HOW,
        columns=("triggerers", *(f"requests a minute, {lists:,} lists" for lists in LISTS)),
        rows=(
            *((f"{here}", *(found[here, lists] for lists in LISTS)) for here in TRIGGERERS),
            ("a request for each list", *due.values()),
        ),
        limits=(
            Limit("requests per poll due, the worst of all", worst, AT_MOST),
            Limit("requests per poll due, 1,000 lists, 1 triggerer", found[1, 1_000] / due[1_000], 1 / 50),
        ),
        plots=(
            Plot(
                "Computed: requests a minute for 1,000 lists",
                "requests a minute",
                {f"MachFive, triggerers: {here}": found[here, 1_000] for here in TRIGGERERS}
                | {"a request for each list": due[1_000]},
                log=True,
            ),
        ),
    )


def simulate(triggerers: int, lists: int) -> float:
    """Return the requests a minute."""
    server, chance = Server(lists, 0), random.Random(lists)

    async def answer(request: httpx.Request) -> httpx.Response:
        head, _, content = server.answer(request.url.raw_path.decode()).partition(b"\r\n\r\n")
        return httpx.Response(int(head.split(b" ", 2)[1]), content=content)

    async def wait(number: int) -> None:
        await asyncio.sleep(chance.uniform(0, INTERVAL))
        now = time.time()
        trigger = MachFiveListTrigger([list_id(number)], connection_of(number % triggerers), INTERVAL, now, now + 86400)
        async for event in trigger.run():
            raise RuntimeError(f"a list ended: {event.payload}")

    async def count() -> int:
        waiters = [asyncio.create_task(wait(number)) for number in range(lists)]
        await asyncio.sleep(3 * INTERVAL)
        before = len(server.requests)
        await asyncio.sleep(COUNTED)
        counted = len(server.requests) - before
        if ended := [each for each in waiters if each.done()]:
            raise RuntimeError(f"{len(ended)} waiters ended while all was running")
        for each in waiters:
            each.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        return counted

    connections = {connection_of(each): {} for each in range(triggerers)}
    counted = on_virtual_time(count, answer, connections)
    print(f"{triggerers} triggerers, {lists:,} lists: {counted * 60 / COUNTED:g} requests a minute", flush=True)
    return counted * 60 / COUNTED


if __name__ == "__main__":
    sys.exit(run("scale_polls"))

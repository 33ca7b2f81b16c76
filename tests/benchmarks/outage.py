"""What an outage of 30 s before the purchase costs a task, beside a client that repeats nothing.

Usage: ``python -m tests.benchmarks.outage``; takes a minute.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.benchmarks.figures import Figure, Limit
from tests.benchmarks.running import run

__all__ = ["measure"]

OUTAGE = 30.0  # seconds
AFTERWARDS = 40.0  # seconds within which the purchase has to follow: the longest pause is 8 s
KINDS = ("500", "429", "refused connections")
HOW = f"""
A try of MachFiveGenerateBatchOperator begins with an outage of {OUTAGE:g} s: every search responds 500, or 429
RATE_LIMITED without Retry-After, or its port refuses connections. Counted are the tries of the task that the outage
costs, the reads sent, and the seconds from the beginning to the purchase. With one request and no repetition, as the
Test button asks, the same outage is an error at once.
""".strip().replace("\n", " ")


def measure() -> Figure:
    """Sit out all kinds of outage at once, each in a thread."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        found = dict(zip(KINDS, pool.map(outage, KINDS), strict=True))
    return Figure(
        name="outage",
        title="An outage before the purchase",
        how=HOW,
        columns=("outage of 30 s", "tries lost", "reads sent", "s until the purchase", "tries lost without repetition"),
        rows=tuple(
            (kind, each["lost"], each["reads"], round(each["seconds"], 1), each["lost_once"])
            for kind, each in found.items()
        ),
        limits=(
            *(Limit(f"tries lost: {kind}", each["lost"], 0) for kind, each in found.items()),
            *(
                Limit(f"time to the purchase: {kind}", each["seconds"], AFTERWARDS, unit="s")
                for kind, each in found.items()
            ),
        ),
    )


def outage(kind: str) -> dict[str, float]:
    """Let one task meet one outage."""
    from machfive_provider import exceptions
    from machfive_provider.api.retries import ONCE
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.sandbox import Sandbox, SandboxSettings

    conn_id, refused = f"outage_{KINDS.index(kind)}", kind == "refused connections"
    sandbox = Sandbox(SandboxSettings(port=free_port()))
    host = f"http://127.0.0.1:{sandbox.settings.port}"
    connection = {"conn_type": "machfive", "host": host, "password": sandbox.api_key}
    os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)
    if not refused:
        sandbox.start()
        sandbox.fault("status", endpoint="lists", times=None, status=int(kind))

    def heal() -> None:
        if refused:
            sandbox.start()
        else:
            sandbox.clear_faults()

    try:
        MachFiveHook(conn_id, ONCE).get_conn().send(next_page())
        lost_once = 0
    except exceptions.MachFiveTransientError:
        lost_once = 1
    began, timer = time.monotonic(), threading.Timer(OUTAGE, heal)
    timer.start()
    try:
        lost = 0 if try_once(conn_id, sandbox.campaign_id) else 1
        seconds = time.monotonic() - began
        timer.join()
        return {"lost": lost, "reads": len(sandbox.requests_to("lists")), "seconds": seconds, "lost_once": lost_once}
    finally:
        sandbox.stop()


def next_page() -> Any:
    """Return the read that a try begins with."""
    from machfive_provider.api import protocol

    return protocol.list_lists()


def try_once(conn_id: str, campaign_id: str) -> bool:
    """Run one try of a task; return whether it bought."""
    from machfive_provider import exceptions
    from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
    from tests.tasks import LEADS, task_context

    operator = MachFiveGenerateBatchOperator(
        task_id="write",
        leads=list(LEADS),
        campaign_id=campaign_id,
        wait_for_completion=False,
        machfive_conn_id=conn_id,
    )
    try:
        return bool(operator.execute(task_context(operator)))
    except exceptions.MachFiveError as error:
        print(error)
        return False


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(run("outage"))

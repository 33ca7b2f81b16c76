"""Waiters of one provider on one event loop, in a process of their own beside a server in another."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from tests.benchmarks.environment import ROOT
from tests.benchmarks.peers import SUBJECTS, Subject
from tests.benchmarks.polling_server import ServerProcess

__all__ = ["Waiters", "answer", "in_fresh_process"]


class Waiters:
    """The waiters, and when each had its event.

    :param connections: they are dealt to so many of MachFive's, in turn
    """

    def __init__(self, subject: Subject, interval: float, connections: int = 1) -> None:
        self.subject, self.interval, self.connections = subject, interval, connections
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ended: dict[str, float] = {}

    def add(self, numbers: Iterable[int]) -> None:
        """Start waiters as the triggerer does: from the class and plain arguments, a task each."""
        for number in numbers:
            key = self.subject.key(number)
            made = self.subject.trigger(key, self.interval)
            # Through JSON, as from the database: no argument is shared between two of them.
            arguments = json.loads(json.dumps(made.serialize()[1]))
            if self.connections > 1:
                arguments["machfive_conn_id"] = f"bench_{number % self.connections}"
            trigger = type(made)(**arguments)
            self.tasks[key] = asyncio.create_task(self._run(key, trigger))

    async def _run(self, key: str, trigger: Any) -> None:
        async for event in trigger.run():
            said = event.payload
            if isinstance(said, dict) and said.get("status") not in ("success", "ended"):
                raise RuntimeError(f"a waiter gave up: {said}")
            self.ended[key] = time.monotonic()

    def check(self) -> None:
        """Raise what a waiter raised: a figure with dead waiters in it would flatter."""
        for key, task in self.tasks.items():
            if task.done() and (task.exception() or key not in self.ended):
                raise task.exception() or RuntimeError(f"the waiter for {key} ended without an event")

    async def cancel(self) -> None:
        """End them all."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def in_fresh_process(
    module: str,
    subject: str,
    task: dict[str, Any],
    waiters: int,
    foreign: int,
    limit: float,
    connections: int = 1,
) -> Any:
    """Run a module of this package on its own beside a fresh server; return its answer.

    :param task: its first argument; the second is the server's port
    :param limit: seconds
    :raises RuntimeError: with the reason, if that broke
    """
    with ServerProcess(waiters, foreign, connections) as server:
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", json.dumps(task), str(server.port)]
        env = {**os.environ, **SUBJECTS[subject].environment(server.port, connections)}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{subject} with {waiters:,} waiters was not done after {limit:.0f} s") from None
    if done.returncode:
        raise RuntimeError(f"{subject} with {waiters:,} waiters broke: {done.stdout.strip()[-200:]}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(work: Coroutine[Any, Any, Any]) -> None:
    """Be that module: do the work, print what it returns, end the process."""
    status = 0
    try:
        print(json.dumps(asyncio.run(work)), flush=True)
    except Exception as error:  # noqa: BLE001 - the reason is for whoever started this
        print(f"{type(error).__name__}: {error}", flush=True)
        status = 1
    # Threads that a provider has left in a request would keep the process.
    os._exit(status)

"""Workers and triggerers on virtual time: the real operator, triggers, poller and queue, without an Airflow.

A triggerer is an event loop in which all waits for a connection share a client, a poller and a queue. Here all are on
one loop, and each triggerer looks the workspace up under a connection id of its own: so it shares nothing with others.
Workers run the operator in threads. Time stands still while one of them computes, and goes on while it waits for a
response or sleeps.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import mock

import httpx
import pendulum
import structlog
from airflow.providers.common.compat.sdk import TaskDeferred

from tests.tasks import task_context
from tests.virtual import EPOCH, VirtualLoop

__all__ = ["Fleet", "connection_of", "on_virtual_time"]

LATENCY = (0.05, 0.3)  # seconds from a request to its response: between a near and a far API
HOST = "http://127.0.0.1:1"  # nothing listens there: no request leaves the process

T = TypeVar("T")
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


def connection_of(triggerer: int) -> str:
    """Return the connection id under which a triggerer knows the workspace."""
    return f"triggerer_{triggerer}"


def on_virtual_time(work: Callable[[], Coroutine[Any, Any, T]], answer: Answer, connections: dict[str, dict]) -> T:
    """Run on a loop with virtual time; every request goes to ``answer``, after half of its latency.

    :param connections: fields of the Airflow connections by id; all of them lead to ``answer``
    """
    loop = VirtualLoop()
    network = _Network(loop, answer)
    env = {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps({"conn_type": "machfive", "host": HOST, "password": "key", **fields})
        for name, fields in connections.items()
    }
    with (
        mock.patch.dict(os.environ, env),
        mock.patch.object(time, "time", network.now),
        mock.patch.object(time, "sleep", network.sleep),
        mock.patch("httpx._client.AsyncHTTPTransport", network.for_loop),
        mock.patch("httpx._client.HTTPTransport", network.for_worker),
        _quiet(),
        _same_luck(),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        return runner.run(work())


@contextmanager
def _quiet() -> Iterator[None]:
    """Write no logs: thousands of tasks would fill the screen."""
    configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        if configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()


@contextmanager
def _same_luck() -> Iterator[None]:
    """Let pauses and orders that are drawn by lot be the same in each run."""
    before = random.getstate()
    random.seed(11)
    try:
        yield
    finally:
        random.setstate(before)


class _Network:
    """Virtual time and requests, for the loop and for workers' threads."""

    def __init__(self, loop: VirtualLoop, answer: Answer) -> None:
        self._loop, self._answer, self._chance = loop, answer, random.Random(3)

    def now(self) -> float:
        """Take the place of ``time.time``."""
        return EPOCH + self._loop.now

    def for_loop(self, **_: Any) -> _FromLoop:
        """Take the place of ``httpx.AsyncHTTPTransport``."""
        return _FromLoop(self)

    def for_worker(self, **_: Any) -> _FromWorker:
        """Take the place of ``httpx.HTTPTransport``."""
        return _FromWorker(self)

    async def carry(self, request: httpx.Request) -> httpx.Response:
        way = self._chance.uniform(*LATENCY) / 2
        await asyncio.sleep(way)
        response = await self._answer(request)
        content = await response.aread()
        await asyncio.sleep(way)
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait on a worker; virtual time goes on meanwhile."""

        async def waiting() -> T:
            self._loop.in_threads -= 1
            try:
                return await work
            finally:
                self._loop.in_threads += 1

        return asyncio.run_coroutine_threadsafe(waiting(), self._loop).result()

    def sleep(self, seconds: float) -> None:
        """Take the place of ``time.sleep``, for workers."""
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("the loop itself may not sleep")
        self.wait_for(asyncio.sleep(seconds))


@dataclass
class _FromLoop(httpx.AsyncBaseTransport):
    network: _Network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.network.carry(request)


@dataclass
class _FromWorker(httpx.BaseTransport):
    network: _Network

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.network.wait_for(self.network.carry(request))


@dataclass
class Fleet:
    """An Airflow's workers and triggerers, as far as they matter to a workspace.

    :param slots: tasks on workers at a time
    :param pool: tasks at a time, deferred ones included, as in a pool with ``include_deferred``; None for no such pool
    :param start: seconds from the moment when a task may run until its process runs, between these two
    :param pick_up: seconds until a triggerer runs a trigger, between these two
    :param starts: how often a task's process has been started
    """

    triggerers: int
    slots: int = 16
    pool: int | None = None
    start: tuple[float, float] = (0.6, 1.8)
    pick_up: tuple[float, float] = (0.0, 2.0)
    starts: int = field(default=0, init=False)
    _deferred: int = field(default=0, init=False)
    _chance: random.Random = field(default_factory=lambda: random.Random(5))

    async def run(self, tasks: list[Any]) -> None:
        """Run these operators as the mapped tasks of one run, to their ends; raises what a task raises."""
        self._workers = asyncio.Semaphore(self.slots)
        self._threads = ThreadPoolExecutor(self.slots)
        self._pool = asyncio.Semaphore(self.pool or len(tasks))
        async with asyncio.TaskGroup() as group:
            for number, task in enumerate(tasks):
                group.create_task(self._run(task, number))
        self._threads.shutdown()

    async def _run(self, task: Any, number: int) -> None:
        context = task_context(task, map_index=number)
        context["dag_run"].run_after = pendulum.from_timestamp(EPOCH)
        context["ti"].deferred = lambda: self._deferred
        method, kwargs = "execute", {}
        async with self._pool:
            while deferred := await self._on_worker(task, method, context, kwargs):
                self._deferred += 1
                event = await self._in_triggerer(deferred.trigger)
                self._deferred -= 1
                method, kwargs = deferred.method_name, {**(deferred.kwargs or {}), "event": event}

    async def _on_worker(self, task: Any, method: str, context: Any, kwargs: dict[str, Any]) -> TaskDeferred | None:
        def attempt() -> TaskDeferred | None:
            try:
                # A deferred task resumes in another process: only the arguments of the operator survive.
                getattr(copy.copy(task), method)(context, **kwargs)
            except TaskDeferred as deferred:
                return deferred
            return None

        async with self._workers:
            self.starts += 1
            await asyncio.sleep(self._chance.uniform(*self.start))
            return await asyncio.get_running_loop().run_in_executor(self._threads, attempt)

    async def _in_triggerer(self, trigger: Any) -> Any:
        """Run a trigger in one of the triggerers: Airflow gives it to whichever asks next."""
        await asyncio.sleep(self._chance.uniform(*self.pick_up))
        kwargs = json.loads(json.dumps(trigger.serialize()[1]))
        kwargs["machfive_conn_id"] = connection_of(self._chance.randrange(self.triggerers))
        async for event in type(trigger)(**kwargs).run():
            return json.loads(json.dumps(event.payload))
        raise RuntimeError("a trigger ended without an event")

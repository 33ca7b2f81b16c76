"""The loop of a worker that waits for a free slot, and what a task is told meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.api.models import Lead
from machfive_provider.api.retries import RetryPolicy
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.waiting.capacity import RUNNING, ProgressLog, no_capacity, running_batches, wait_on_worker
from machfive_provider.waiting.capacity_queue import QueuePosition
from tests.clock import Pauses
from tests.tasks import Logs

Connect = Callable[..., None]
T0 = 1_770_000_000.0


# --- what is logged


def test_the_log_is_told_of_changes_and_else_rarely():
    progress = ProgressLog(T0, T0 + 86400)
    third = QueuePosition(3, 18, 3, 3)
    line = progress.line(third, T0 + 20)
    assert line == (
        "Waiting for a free slot in the workspace, number 3 of 18 in the queue: 3 batches run, its limit is taken "
        "to be 3. It has waited 20 s and gives up in 23 h 59 min (capacity_timeout)."
    )
    told = [at for at in range(20, 20_000, 20) if progress.line(third, T0 + at)]
    assert told == [320, 920, 2120, 4520, 8120, 11720, 15320, 18920]
    assert "number 1 of 17 in the queue: 1 batch runs, its limit is not known." in str(
        progress.line(QueuePosition(1, 17, 1, None), T0 + 20_000)
    )


def test_a_long_queue_that_moves_does_not_fill_the_log():
    progress = ProgressLog(T0, T0 + 86400)
    moving = [at for at in range(0, 1000, 10) if progress.line(QueuePosition(200 - at // 10, 200, 3, 3), T0 + at)]
    assert moving == list(range(0, 1000, 60))


def test_failed_reads_are_logged_rarely_and_so_is_their_end():
    progress = ProgressLog(T0, T0 + 86400)
    trouble = exceptions.ServerError("down", status_code=503, request_id="r1")
    lines = {number: progress.line(trouble, T0 + number) for number in range(1, 31)}
    assert [number for number, line in lines.items() if line] == [1, 3, 10, 20, 30]
    assert "could not be read (3 in a row), which is tried again: down" in str(lines[3])
    assert "r1" in str(lines[3])
    assert progress.line(QueuePosition(1, 1, 3, 3), T0 + 31)
    assert progress.line(QueuePosition(1, 1, 3, 3), T0 + 32) is None


def test_the_timeout_says_why_the_last_read_failed():
    assert str(no_capacity(7200)).startswith(
        "The workspace had no free slot for another batch for 2 h. Nothing was bought. Raise"
    )
    trouble = no_capacity(7200, exceptions.ServerError("down", status_code=503))
    assert "Nothing was bought. The last read of it failed: down. Raise" in str(trouble)
    assert trouble.retryable


# --- on a worker


class Worker:
    """A worker with a clock that only pauses move; ``meanwhile`` is called in each of them, with its number."""

    def __init__(self, sandbox: Sandbox, meanwhile: Callable[[int], Any] = lambda _: None) -> None:
        self.sandbox, self.meanwhile = sandbox, meanwhile
        self.pauses = Pauses()
        self.clock = T0

    def sleep(self, seconds: float) -> None:
        self.pauses(seconds)
        self.clock += seconds
        self.meanwhile(len(self.pauses))

    def wait(self, hook: MachFiveHook, **arguments: Any) -> int | None:
        known = {"asked_at": T0, "deadline": T0 + 3600, "interval": 20, "limit": None, "not_before": 0.0}
        log, now = logging.getLogger("airflow.task"), lambda: self.clock
        return wait_on_worker(hook, log=log, sleep=self.sleep, now=now, **{**known, **arguments})


def fill(sandbox: Sandbox, places: int = 3) -> list[str]:
    with MachFiveHook() as hook:
        return [hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com")]).list_id for _ in range(places)]


def test_running_batches(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    pending, done, processing = fill(slow_sandbox)
    slow_sandbox.set_status(pending, "pending")
    slow_sandbox.complete(done)
    with MachFiveHook() as hook:
        assert running_batches(hook) == {pending, processing}
    # In this order: a list that moves on between the two reads is in both, not in none.
    assert [request.query["status"] for request in slow_sandbox.requests_to("lists")] == list(RUNNING)


def test_running_batches_on_several_pages(connect: Connect):
    with Sandbox(SandboxSettings(processing_seconds=float("inf"), concurrency=130)) as sandbox:
        connect(sandbox)
        running = fill(sandbox, 130)
        with MachFiveHook() as hook:
            assert running_batches(hook) == set(running)


def test_a_worker_waits_until_a_batch_ends(slow_sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    worker = Worker(slow_sandbox, lambda pauses: slow_sandbox.complete(running[1]) if pauses == 4 else None)
    with MachFiveHook() as hook:
        worker.wait(hook, limit=3)
    assert len(worker.pauses) == 4
    assert all(18 <= each <= 22 for each in worker.pauses)
    assert "Waiting for a free slot in the workspace: 3 batches run" in logs.text
    assert {request.method for request in slow_sandbox.requests[3:]} == {"GET"}


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ({"limit": 3}, 20),  # it was refused just now
        ({"limit": 0}, 20),  # ... by a workspace that looks empty
        ({}, 20),  # there is nothing to judge by, so it is going to ask again
        ({"limit": 3, "not_before": T0 + 90}, 90),
        ({"not_before": T0 + 90}, 90),
    ],
    ids=str,
)
def test_a_worker_does_not_ask_again_at_once(
    arguments: dict[str, Any], first: float, slow_sandbox: Sandbox, connect: Connect
):
    connect(slow_sandbox)
    worker = Worker(slow_sandbox)
    with MachFiveHook() as hook:
        worker.wait(hook, **arguments)
    assert len(worker.pauses) == 1
    assert 0.9 * first <= worker.pauses[0] <= 1.1 * first


def test_a_worker_with_a_hint_looks_at_once(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox, extra={"max_concurrent_batches": 2})
    running = fill(slow_sandbox, 1)
    worker = Worker(slow_sandbox)
    with MachFiveHook() as hook:
        worker.wait(hook)
        assert worker.pauses == []
        running += fill(slow_sandbox, 1)
        worker.meanwhile = lambda pauses: slow_sandbox.fail(running[0]) if pauses == 2 else None
        worker.wait(hook)
    assert len(worker.pauses) == 2


def test_no_capacity_on_a_worker(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    worker = Worker(slow_sandbox)
    with (
        MachFiveHook() as hook,
        pytest.raises(exceptions.CapacityTimeoutError, match=r"for 8 min\. Nothing was bought"),
    ):
        worker.wait(hook, deadline=T0 + 480, limit=3, interval=60)
    assert worker.clock == T0 + 480
    # A first look at the very end counts; after it there is none.
    with MachFiveHook() as hook, pytest.raises(exceptions.CapacityTimeoutError):
        worker.wait(hook, deadline=T0 + 480, limit=3)
    assert worker.clock == T0 + 480


def test_a_worker_is_told_the_limit(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    with MachFiveHook() as hook:
        assert Worker(slow_sandbox, lambda _: slow_sandbox.complete(running[0])).wait(hook, limit=3) == 3
        assert Worker(slow_sandbox).wait(hook) is None


def test_after_ten_minutes_the_worker_asks_itself(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    fill(slow_sandbox)
    worker = Worker(slow_sandbox)
    with MachFiveHook() as hook:
        worker.wait(hook, limit=3)
    assert 600 <= worker.clock - T0 <= 622


def test_failed_reads_on_a_worker_are_repeated(slow_sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(slow_sandbox)
    running = fill(slow_sandbox)
    slow_sandbox.fault("status", endpoint="lists", times=2, status=500)
    slow_sandbox.fault("status", endpoint="lists", status=429, headers={"Retry-After": "70"})
    worker = Worker(slow_sandbox, lambda pauses: slow_sandbox.complete(running[0]) if pauses == 5 else None)
    with MachFiveHook(retry_policy=RetryPolicy(attempts=1)) as hook:
        worker.wait(hook, limit=3)
    assert len(worker.pauses) == 5
    assert worker.pauses[3] == 70
    (first, third) = logs.warnings
    assert "could not be read (1 in a row), which is tried again: " in first
    assert "could not be read (3 in a row), which is tried again: " in third
    assert "[429 " in third


@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_key_ends_the_wait_on_a_worker(status: int, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    slow_sandbox.fault("status", endpoint="lists", times=None, status=status)
    with MachFiveHook() as hook, pytest.raises(exceptions.MachFivePermanentError) as caught:
        Worker(slow_sandbox).wait(hook, limit=3)
    assert caught.value.status_code == status


def test_a_rotated_key_on_a_worker(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    running = fill(slow_sandbox)

    def rotate(pauses: int) -> None:
        if pauses == 2:
            connect(slow_sandbox, password="mf_live_new")
            slow_sandbox.workspaces[0].api_key = "mf_live_new"
        if pauses == 3:
            slow_sandbox.complete(running[0])

    worker = Worker(slow_sandbox, rotate)
    with MachFiveHook() as hook:
        worker.wait(hook, limit=3)
    assert len(worker.pauses) == 3

"""A task that can know that the workspace is full queues for a slot without being refused first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from tests.tasks import Logs, Run, batch

Connect = Callable[..., None]


def fill(sandbox: Sandbox, batches: int) -> list[str]:
    """Let another client submit batches; return their lists."""
    with MachFiveHook() as hook:
        return [hook.generate_batch(sandbox.campaign_id, [Lead("a@example.com")]).list_id for _ in range(batches)]


def refused(sandbox: Sandbox) -> int:
    return sum(request.status == 429 for request in sandbox.requests)


@pytest.mark.parametrize("hint", [None, 3])
def test_a_slot_that_was_taken_meanwhile_costs_no_request_to_buy(
    hint: int | None, slow_sandbox: Sandbox, connect: Connect, logs: Logs
):
    """Two triggerers grant the same slot; the second task reads before its POST that it is taken."""
    connect(slow_sandbox, extra={"max_concurrent_batches": hint} if hint else {})
    running = fill(slow_sandbox, 3)

    class TwoTriggerers(Run):
        def _event_of(self, trigger: Any) -> Any:
            event = super()._event_of(trigger)
            if len(self.triggers) == 1:
                running.extend(fill(slow_sandbox, 1))  # a task from the other triggerer is faster
            return event

    def end_one(trigger: Any) -> None:
        slow_sandbox.complete(getattr(trigger, "list_ids", running)[0])
        del running[0]

    run = TwoTriggerers(batch(slow_sandbox, deferrable=True), between=end_one)
    assert run() == slow_sandbox.purchases[-1].list_id
    first, again, _ = run.triggers
    assert (first.granted_limit, again.granted_limit) == (None, 3)
    assert first.asked_at == again.asked_at  # it is first in the queue again
    assert refused(slow_sandbox) == (0 if hint else 1)
    assert "the workspace runs 3 batches, and its limit is taken to be 3" in logs.text


@pytest.mark.parametrize(
    ("deferred", "running", "queues"),
    [
        (3, 1, True),  # one has a list that runs; of the others one may have a list that has just ended
        (2, 1, False),
        (0, 3, False),
        (RuntimeError("Airflow's API does not answer"), 1, False),
    ],
)
def test_a_task_joins_those_of_its_kind_that_wait(
    deferred: int | Exception, running: int, *, queues: bool, slow_sandbox: Sandbox, connect: Connect, logs: Logs
):
    connect(slow_sandbox)
    others = fill(slow_sandbox, running)
    run = Run(
        batch(slow_sandbox, deferrable=True),
        between=lambda trigger: slow_sandbox.complete(getattr(trigger, "list_ids", others)[0]),
    )
    run.context["ti"].deferred = deferred
    assert run() == slow_sandbox.purchases[-1].list_id
    is_full = running == 3
    assert len(run.triggers) == (2 if queues or is_full else 1)
    assert refused(slow_sandbox) == is_full
    assert queues == ("3 instances of this task are deferred and the workspace runs 1 batch, so" in logs.text)


def test_on_a_worker_no_others_are_counted(slow_sandbox: Sandbox, connect: Connect):
    """Those that wait there are not deferred."""
    connect(slow_sandbox)
    run = Run(batch(slow_sandbox, deferrable=False, wait_for_completion=False))
    run.context["ti"].deferred = 5
    assert run() == slow_sandbox.purchases[0].list_id
    assert slow_sandbox.requests_to("lists")[1:] == []  # the search for an earlier purchase

"""What people do between two tries: edit the DAG, clear the task at an odd moment, empty the state store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.operators.generate import MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers.capacity import MachFiveCapacityTrigger
from tests.clock import Clock
from tests.tasks import LEADS, Logs, Run, StateStore, batch

STORES = pytest.mark.parametrize("stored", [False, True], ids=["no store", "store"])
CHANGED = [{**LEADS[0], "title": "CEO"}, *LEADS[1:]]
REFUSED = "changed between two tries"


@pytest.fixture
def sandbox(timed_sandbox: Sandbox, connect: Callable[..., None]) -> Sandbox:
    """Give the sandbox that lives by the test's clock, connected."""
    connect(timed_sandbox)
    return timed_sandbox


class Task:
    """A task in its DAG run: one try after the other, with ``max_tries`` as Airflow keeps it."""

    def __init__(self, make: Callable[..., Any], *, stored: bool = False, retries: int = 3) -> None:
        self.make, self.retries = make, retries
        self.max_tries, self.tries = retries, 0
        self.store = StateStore() if stored else None

    def run(self, *, retries: int | None = None, **arguments: Any) -> Run:
        """Return the next try, with the DAG as it is now."""
        self.tries += 1
        self.retries = self.retries if retries is None else retries
        task = self.make(**arguments, retries=self.retries)
        return Run(task, store=self.store, try_number=self.tries, clears=self.max_tries - self.retries)

    def clear(self) -> None:
        """Clear it, as Airflow does."""
        self.max_tries = self.tries + self.retries


@pytest.fixture
def task(sandbox: Sandbox) -> Callable[..., Task]:
    """Make a task at the sandbox."""
    return lambda **more: Task(lambda **arguments: batch(sandbox, **arguments), **more)


def lose_response(sandbox: Sandbox, late: float) -> None:
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("visible_late", endpoint="generate-batch", seconds=late)


@STORES
@pytest.mark.parametrize("retries", [5, 1])
def test_retries_edited_between_two_tries_is_no_clear(
    retries: int, stored: bool, sandbox: Sandbox, task: Callable[..., Task]
):
    each = task(stored=stored)
    first = each.run(on_existing_list="resubmit")()
    assert each.run(on_existing_list="resubmit", retries=retries)() == first
    assert len(sandbox.purchases) == 1


@STORES
@pytest.mark.parametrize("by", ["campaign_id", "campaign_name"])
def test_another_campaign_at_the_second_try_is_refused(
    by: str, stored: bool, sandbox: Sandbox, task: Callable[..., Task]
):
    one, other = sandbox.workspaces[0].campaigns[:2]
    field = {"campaign_id": "id", "campaign_name": "name"}[by]
    each = task(stored=stored)
    first = each.run(**{by: getattr(one, field)})()
    with pytest.raises(exceptions.MachFivePermanentError, match=REFUSED) as caught:
        each.run(**{by: getattr(other, field)})()
    assert first in str(caught.value)
    assert len(sandbox.purchases) == 1
    each.clear()
    assert each.run(**{by: getattr(other, field)})() == sandbox.purchases[1].list_id


@STORES
@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
@pytest.mark.parametrize("late", [60, 1000], ids=["shows up", "does not show up"])
def test_other_leads_after_an_unanswered_purchase_wait_for_it(
    late: float, deferrable: bool, stored: bool, sandbox: Sandbox, clock: Clock, task: Callable[..., Task], logs: Logs
):
    each = task(stored=stored)
    lose_response(sandbox, late)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    before = clock()
    second = each.run(leads=CHANGED, deferrable=deferrable)
    if late < 120:
        with pytest.raises(exceptions.MachFivePermanentError, match=REFUSED):
            second()
        assert 60 <= clock() - before < 120
        assert len(sandbox.purchases) == 1
    else:
        assert second() == sandbox.purchases[1].list_id
        assert clock() - before >= 120
        assert "paid for twice" in logs.text


@STORES
def test_a_clear_in_a_running_run_whose_first_try_fails_buys_the_change(
    stored: bool, sandbox: Sandbox, task: Callable[..., Task]
):
    """The start of the DAG run, which a clear leaves alone while the run goes on, decides nothing."""
    each = task(stored=stored)
    each.run()()
    each.clear()
    sandbox.fault("status", endpoint="lists", times=None, status=500)
    with pytest.raises(exceptions.ServerError, match="Nothing was spent"):
        each.run(leads=CHANGED)()
    sandbox.clear_faults()
    assert each.run(leads=CHANGED)() == sandbox.purchases[1].list_id
    assert each.run(leads=CHANGED)() == sandbox.purchases[1].list_id
    assert len(sandbox.purchases) == 2


@STORES
def test_an_unanswered_generate_is_waited_for_as_long_in_deferrable_mode(stored: bool, sandbox: Sandbox, clock: Clock):
    def make(**more: Any) -> MachFiveGenerateOperator:
        return MachFiveGenerateOperator(task_id="write", lead=dict(LEADS[0]), campaign_id=sandbox.campaign_id, **more)

    each = Task(make, stored=stored)
    sandbox.fault("reset", endpoint="generate", accepted=True)
    sandbox.fault("visible_late", endpoint="generate", seconds=600)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    before = clock()
    assert each.run(deferrable=True)()["list_id"] == sandbox.purchases[0].list_id
    assert 580 <= clock() - before < 720
    assert len(sandbox.purchases) == 1


def test_an_emptied_state_store_proves_nothing(sandbox: Sandbox, clock: Clock, task: Callable[..., Task], logs: Logs):
    """A user, ``clear_on_success`` or an upgrade emptied it."""
    each = task(stored=True)
    lose_response(sandbox, 60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    assert each.store is not None
    each.store.kept.clear()
    assert each.run()() == sandbox.purchases[0].list_id
    assert "before buying" in logs.text
    assert len(sandbox.purchases) == 1


@STORES
@pytest.mark.parametrize("cleared", [False, True], ids=["retried", "cleared"])
def test_after_resubmit_adopt_takes_what_was_paid_for_last(
    cleared: bool, stored: bool, sandbox: Sandbox, clock: Clock, task: Callable[..., Task]
):
    each = task(stored=stored)
    first = each.run(on_existing_list="resubmit")()
    each.clear()
    clock.advance(3600)
    sandbox.fault("stuck", endpoint="generate-batch")
    second = each.run(on_existing_list="resubmit", wait_for_completion=False)()
    if cleared:
        each.clear()
    assert each.run(on_existing_list="adopt", wait_for_completion=False)() == second != first
    assert len(sandbox.purchases) == 2


@STORES
def test_a_clear_after_list_failed_buys_again(stored: bool, sandbox: Sandbox, task: Callable[..., Task]):
    each = task(stored=stored)
    sandbox.fault("fail_list", endpoint="generate-batch", times=2)
    for _ in range(2):
        with pytest.raises(exceptions.BatchFailedError):
            each.run()()
    with pytest.raises(exceptions.ListFailedError) as caught:
        each.run()()
    assert "clear this task now that it has failed" in str(caught.value)
    each.clear()
    assert each.run()() == sandbox.purchases[2].list_id


def test_a_search_that_is_older_than_30_s_is_repeated(
    sandbox: Sandbox, clock: Clock, connect: Callable[..., None], task: Callable[..., Task]
):
    """Another try may have bought while the workspace was read for ``max_concurrent_batches``."""
    connect(sandbox, extra='{"max_concurrent_batches": 3}')
    read = sandbox.fault("status", endpoint="lists", after=1, status=503, headers={"Retry-After": "40"})
    assert task().run()() == sandbox.purchases[0].list_id
    assert read.used == 1
    everything, pending, processing = {}, {"status": "pending"}, {"status": "processing"}
    asked = [
        {name: each.query.get(name) for name in each.query if name == "status"} for each in sandbox.requests_to("lists")
    ]
    assert asked == [everything, pending, pending, processing, everything, pending, processing]


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_execution_timeout_bounds_the_wait_for_capacity(deferrable: bool, sandbox: Sandbox, clock: Clock):
    sandbox.fault("stuck", endpoint="generate-batch")
    Run(batch(sandbox, task_id="other", wait_for_completion=False))()
    sandbox.fault("status", endpoint="generate-batch", times=None, status=429, code="WORKSPACE_LIMIT")
    before = clock()
    run = Run(batch(sandbox, deferrable=deferrable, execution_timeout=timedelta(hours=1)))
    with pytest.raises(exceptions.CapacityTimeoutError, match="execution_timeout"):
        run()
    assert 3500 < clock() - before <= 3700
    assert all(each.deadline - before < 3600 for each in run.triggers if isinstance(each, MachFiveCapacityTrigger))

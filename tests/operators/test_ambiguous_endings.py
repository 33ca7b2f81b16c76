"""Every way a paid request can end without a usable response, and what the next try does, over real sockets.

``tests/purchase/test_small_worlds.py`` goes through the sequences of attempts. Here are the responses themselves, the
wait on a worker and in the triggerer, and what the user gets to see. Each try has a context of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from machfive_provider import exceptions
from machfive_provider.api import protocol
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.operators.attempt import Attempt
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers import events
from machfive_provider.triggers.unanswered_purchase import MachFiveUnansweredPurchaseTrigger
from tests.clock import Clock
from tests.tasks import LEADS, PERSONAL, Killed, Logs, Run, StateStore, assert_plain, leaks

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
STORES = pytest.mark.parametrize("stored", [False, True], ids=["no store", "store"])
RETRY_DELAY = 5.0
WAITS, MAY_PAY_TWICE = "before buying", "the batch is paid for twice"

# How the response is lost: the sandbox's fault and its arguments.
ENDINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "500": ("status", {"status": 500}),
    "502": ("html", {"status": 502}),
    "503": ("html", {"status": 503}),
    "504": ("html", {"status": 504}),
    "reset": ("reset", {}),
    "unparsable 202": ("garbage", {}),
    "wrong shape": ("wrong_shape", {}),
    "read timeout": ("hang", {}),
    "truncated 202": ("truncate", {}),
    "202 without list_id": ("drop_field", {"field": "list_id"}),
}


@pytest.fixture(autouse=True)
def _short_read_timeout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "read timeout" in request.node.name:
        monkeypatch.setattr(protocol, "_BATCH", 0.5)
        monkeypatch.setattr(protocol, "_GENERATE", 0.5)


@dataclass
class Task:
    """A task in its DAG run: gives one try after the other."""

    sandbox: Sandbox
    clock: Clock
    deferrable: bool
    store: StateStore | None
    endpoint: str = "generate-batch"
    tries: int = 0

    def run(self, **arguments: Any) -> Run:
        """Return the next try."""
        self.tries += 1
        known: dict[str, Any] = {"task_id": "write", "campaign_id": self.sandbox.campaign_id}
        known["deferrable"] = self.deferrable
        if self.endpoint == "generate-batch":
            operator: Any = MachFiveGenerateBatchOperator(**{**known, "leads": list(LEADS), **arguments})
        else:
            operator = MachFiveGenerateOperator(**{**known, "lead": dict(LEADS[0]), **arguments})
        return Run(operator, store=self.store, try_number=self.tries)

    def fault(self, kind: str, **arguments: Any) -> None:
        self.sandbox.fault(kind, endpoint=self.endpoint, **arguments)

    def lose_response(self, ending: str = "reset", *, accepted: bool, late: float = 0) -> None:
        """Let the next try end without knowing whether it bought.

        :param late: seconds for which the list that it bought is not visible
        """
        kind, arguments = ENDINGS[ending]
        self.fault(kind, accepted=accepted, **arguments)
        if late:
            self.fault("visible_late", seconds=late)
        with pytest.raises(exceptions.AmbiguousSubmissionError):
            self.run()()
        self.clock.advance(RETRY_DELAY)

    @property
    def posts(self) -> int:
        return len(self.sandbox.requests_to(self.endpoint))

    @property
    def lists(self) -> list[str]:
        return [purchase.list_id for purchase in self.sandbox.purchases]

    @contextmanager
    def waiting(self, run: Run, seconds: float) -> Iterator[None]:
        """Check that a try waits for so long, and that it searches for the list all the while."""
        before = self.clock()
        yield
        assert self.clock() - before >= seconds
        waits = [each for each in run.triggers if isinstance(each, MachFiveUnansweredPurchaseTrigger)]
        assert bool(waits) == self.deferrable
        searches = [each.at for each in self.sandbox.requests_to("lists") if each.at >= before]
        assert all(later - each <= 23 for each, later in pairwise(searches))
        for each in waits:
            _, kwargs = each.serialize()
            for value in kwargs.values():
                assert_plain(value)
            assert leaks([self.sandbox.api_key, *PERSONAL], kwargs) == []


@pytest.fixture
def task(timed_sandbox: Sandbox, clock: Clock, connect: Connect) -> Callable[..., Task]:
    """Make a task at the sandbox."""
    connect(timed_sandbox)

    def make(deferrable: bool, stored: bool = False, **more: Any) -> Task:
        endpoint = more.pop("endpoint", "generate-batch")
        return Task(timed_sandbox, clock, deferrable, StateStore(**more) if stored else None, endpoint)

    return make


def batch_of(run: Run) -> dict[str, Any]:
    """Return what a try pushed, without what may differ: whether it paid, and when the list completed."""
    batch = dict(run.xcoms["machfive_batch"])
    assert batch.pop("completed_at", "2").startswith("2")
    del batch["bought"], batch["times"], batch["phase"]
    return batch


def undisturbed(task: Task) -> tuple[Any, dict[str, Any]]:
    """Return what a task that nothing happens to returns and pushes; the sandbox gives the same ids after a reset."""
    run = Task(task.sandbox, task.clock, task.deferrable, None).run()
    found = run(), batch_of(run)
    task.sandbox.reset()
    return found


# --- the response is lost


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_list_that_is_visible_at_once_is_found_by_the_try_that_bought_it(ending: str, task: Callable[..., Task]):
    each = task(deferrable=False)
    expected = undisturbed(each)
    kind, arguments = ENDINGS[ending]
    each.fault(kind, accepted=True, **arguments)
    first, second = each.run(), each.run()
    for run, bought in ((first, True), (second, False)):
        assert (run(), batch_of(run)) == expected
        assert run.xcoms["machfive_batch"]["bought"] is bought
    assert (each.posts, len(each.lists)) == (1, 1)


@MODES
@STORES
@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
def test_the_next_try_waits_for_the_list_before_it_buys(
    deferrable: bool, stored: bool, accepted: bool, task: Callable[..., Task], logs: Logs
):
    each = task(deferrable, stored)
    expected = undisturbed(each)
    each.lose_response(accepted=accepted, late=60 if accepted else 0)
    second = each.run()
    with each.waiting(second, 50 if accepted else 120):
        assert (second(), batch_of(second)) == expected
    assert second.xcoms["machfive_batch"]["bought"] is not accepted
    assert logs.count("looking for its list for 2 min before buying") == 1
    assert logs.count(MAY_PAY_TWICE) == (0 if accepted else 1)
    assert (each.posts, len(each.lists)) == (1 if accepted else 2, 1)


def test_a_search_that_fails_proves_nothing(task: Callable[..., Task]):
    """Neither in the try that lost the response nor in the next one."""
    each = task(deferrable=False)
    each.sandbox.fault("status", endpoint="lists", after=1, times=None, status=500)
    each.lose_response(accepted=True)
    with pytest.raises(exceptions.ServerError):
        each.run()()
    each.sandbox.clear_faults()
    assert each.run()() == each.lists[0]
    assert (each.posts, len(each.lists)) == (1, 1)


@STORES
def test_a_list_that_shows_up_after_the_wait_is_named_as_a_duplicate(
    stored: bool, task: Callable[..., Task], logs: Logs, clock: Clock
):
    each = task(False, stored)
    each.lose_response(accepted=True, late=1000)
    each.run()()
    assert logs.count(MAY_PAY_TWICE) == 1
    clock.advance(1000)
    third = each.run()
    assert third() in each.lists
    assert "bought more than once" in logs.text
    (duplicate,) = third.xcoms["machfive_batch"]["duplicates"]
    assert {third.xcoms["machfive_batch"]["list_id"], duplicate} == set(each.lists)
    assert len(each.lists) == 2


def test_a_list_that_shows_up_during_the_second_purchase_is_used(
    task: Callable[..., Task], logs: Logs, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    each = task(deferrable=True)
    each.lose_response(accepted=True, late=1000)
    send = MachFiveHook.generate_batch

    def slowly(*arguments: Any, **named: Any) -> Any:
        clock.advance(1000)
        return send(*arguments, **named)

    monkeypatch.setattr(MachFiveHook, "generate_batch", slowly)
    run = each.run()
    assert run() == each.lists[0]
    assert run.xcoms["machfive_batch"].items() >= {"bought": True, "duplicates": [each.lists[1]]}.items()
    assert f"paid for and not used: {each.lists[1]}." in logs.text
    assert (each.posts, len(each.lists)) == (2, 2)


def test_a_refused_purchase_leaves_nothing_to_wait_for(task: Callable[..., Task], logs: Logs):
    """The record is as it was before, so a retry or a clear buys at once."""
    each = task(deferrable=False, stored=True)
    each.fault("status", status=402, accepted=False)
    with pytest.raises(exceptions.InsufficientCreditsError):
        each.run()()
    assert each.run()() == each.lists[0]
    assert WAITS not in logs.text


# --- the worker dies


@pytest.mark.parametrize(
    ("dies", "late", "waits"),
    [("intent", 0, False), ("submitted", 0, False), ("submitted", 60, True)],
    ids=["before the POST", "after the POST", "after the POST, list visible late"],
)
def test_a_worker_killed_around_the_post(
    dies: str, late: float, waits: bool, task: Callable[..., Task], logs: Logs, clock: Clock
):
    """Who does not wait for the completion is as safe as who does."""
    each = task(deferrable=True, stored=True, dies=dies)
    if late:
        each.fault("visible_late", seconds=late)
    with pytest.raises(Killed):
        each.run(wait_for_completion=False)()
    clock.advance(RETRY_DELAY)
    second = each.run(wait_for_completion=False)
    assert second() == each.lists[0]
    assert second.xcoms["machfive_batch"]["bought"] is (dies == "intent")
    assert (each.posts, len(each.lists)) == (1, 1)
    assert (WAITS in logs.text) is waits


@MODES
@STORES
def test_a_worker_killed_while_it_waits_for_the_list(
    deferrable: bool, stored: bool, task: Callable[..., Task], logs: Logs, clock: Clock
):
    """With its id on record the list can be waited for before it is visible; without, it is searched for."""
    each = task(deferrable, stored)
    each.fault("visible_late", seconds=60)
    first = each.run(wait_for_completion=False)
    assert first() == each.lists[0]
    second = each.run()
    if stored and deferrable:
        second.between = lambda _: clock.advance(60)  # the poll by id does not move the test's clock
    assert second() == each.lists[0]
    assert batch_of(first).items() <= batch_of(second).items()
    assert (each.posts, len(each.lists)) == (1, 1)
    assert (WAITS in logs.text) is not stored


# --- names that do not come back as they were sent


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("cut_name", {"length": 30}), ("cut_name", {"length": 8}), ("rewrite_name", {"name": "List of 3 leads"})],
    ids=["cut within the tag", "cut before the tag", "rewritten"],
)
def test_a_name_without_its_tag_is_reported_at_once(
    kind: str, arguments: dict[str, Any], task: Callable[..., Task], logs: Logs
):
    each = task(deferrable=False, stored=True)
    each.fault(kind, **arguments)
    assert each.run()() == each.lists[0]
    assert f"MachFive shows list {each.lists[0]} as" in logs.text
    assert "could not recognise it by name" in logs.text
    second = each.run()  # the record has the list's id
    assert second() == each.lists[0]
    assert second.xcoms["machfive_batch"]["bought"] is False
    assert (each.posts, len(each.lists)) == (1, 1)


@STORES
def test_a_cut_tag_without_a_response_stops_the_buying(stored: bool, task: Callable[..., Task], clock: Clock):
    """Renamed so that it holds the tag, as the message advises, the list is adopted."""
    each = task(False, stored)
    each.fault("cut_name", length=30)
    each.lose_response(accepted=True)
    for _ in range(2):
        clock.advance(1000)
        with pytest.raises(exceptions.AmbiguousSubmissionError, match=f"cut the names of lists {each.lists[0]} within"):
            each.run()()
    each.sandbox.rename(each.lists[0], str(each.sandbox.purchases[0].list_name))
    assert each.run()() == each.lists[0]
    assert (each.posts, len(each.lists)) == (1, 1)


# --- the wait for an unanswered purchase


def test_a_search_that_fails_during_the_wait_is_tried_again(task: Callable[..., Task], logs: Logs):
    each = task(deferrable=True)
    each.lose_response(accepted=False)
    each.sandbox.fault("status", endpoint="lists", after=1, times=2, status=500)
    run = each.run()
    assert run() == each.lists[0]
    assert "The search for the list failed and is tried again" in logs.text
    assert len(run.triggers) == 1


def test_a_permanent_error_during_the_wait_ends_the_task(task: Callable[..., Task]):
    each = task(deferrable=True)
    each.lose_response(accepted=False)
    each.sandbox.fault("status", endpoint="lists", after=1, times=None, status=403)
    with pytest.raises(exceptions.ForbiddenError):
        each.run()()
    assert (each.posts, each.lists) == (1, [])


def test_waiting_for_capacity_does_not_begin_the_wait_anew(task: Callable[..., Task], clock: Clock):
    each = task(deferrable=False)
    each.lose_response(accepted=False)
    each.fault("status", status=429, code="WORKSPACE_LIMIT")
    run, before = each.run(), clock()
    assert run() == each.lists[0]
    assert 120 <= clock() - before < 120 + 60
    assert each.posts == 3


def test_a_later_try_does_not_take_over_what_an_earlier_one_waited_for(task: Callable[..., Task], clock: Clock):
    """Airflow may resume a lost task with the event of its earlier try."""
    each = task(deferrable=True)
    each.lose_response(accepted=False)
    run = each.run()
    with pytest.raises(TaskDeferred) as caught:
        run.task.resume_submission(run.context, events.submit(asdict(Attempt(1, clock(), clock() - 9999))))
    assert isinstance(caught.value.trigger, MachFiveUnansweredPurchaseTrigger)
    assert each.posts == 1


# --- a single lead


@pytest.mark.parametrize("ending", [each for each in ENDINGS if each != "202 without list_id"])
def test_a_lost_generate_is_recovered_from_its_list(ending: str, task: Callable[..., Task]):
    each = task(deferrable=False, endpoint="generate")
    whole = each.run()()
    each.sandbox.reset()
    each.tries = 0
    kind, arguments = ENDINGS[ending]
    each.fault(kind, accepted=True, **arguments)
    expected = {"list_id": whole["list_id"], "sequence": whole["sequence"]}
    assert each.run()() == each.run()() == expected
    assert (each.posts, len(each.lists)) == (1, 1)


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
def test_a_lost_generate_is_waited_for_longer(accepted: bool, task: Callable[..., Task], logs: Logs):
    """A generate call takes up to ten minutes."""
    each = task(deferrable=False, endpoint="generate")
    each.lose_response("502", accepted=accepted, late=600 if accepted else 0)
    second = each.run()
    with each.waiting(second, 580 if accepted else 720):
        result = second()
    assert set(result) == {"list_id", "sequence"} | (set() if accepted else {"lead_id", "credits_remaining"})
    assert result["list_id"] == each.lists[0]
    assert "looking for its list for 12 min before buying" in logs.text
    assert logs.count(MAY_PAY_TWICE) == (0 if accepted else 1)
    assert (each.posts, len(each.lists)) == (1 if accepted else 2, 1)


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
def test_a_single_lead_in_deferrable_mode_is_a_batch_of_one(accepted: bool, task: Callable[..., Task]):
    each = task(deferrable=True, endpoint="generate")
    each.sandbox.fault("reset", endpoint="generate-batch", accepted=accepted)
    if accepted:
        each.sandbox.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    second = each.run()
    with each.waiting(second, 50 if accepted else 120):
        result = second()
    assert set(result) == {"list_id", "sequence"}
    assert each.lists == [result["list_id"]]
    assert len(each.sandbox.requests_to("generate-batch")) == (1 if accepted else 2)
    assert each.posts == 0

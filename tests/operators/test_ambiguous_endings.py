"""Every way a paid request can end without a usable answer, and what the next try makes of it, over real sockets.

Each first try leaves something behind that nobody can be sure of; the second one is another object, in a context
of its own, as on another worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from machfive_provider import exceptions
from machfive_provider.api import protocol
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers.unanswered_purchase import MachFiveUnansweredPurchaseTrigger
from tests.clock import Clock
from tests.tasks import LEADS, PERSONAL, Killed, Logs, Run, StateStore, assert_plain, leaks

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
STORES = pytest.mark.parametrize("stored", [False, True], ids=["no store", "store"])
RETRY_DELAY = 5.0
DOUBT = "the batch is paid for twice"

# How the answer is lost: the fault, its arguments, and whether the API can have refused all the same.
ENDINGS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "500": ("status", {"status": 500}, True),
    "502": ("html", {"status": 502}, True),
    "503": ("html", {"status": 503}, True),
    "504": ("html", {"status": 504}, True),
    "reset": ("reset", {}, True),
    "unparsable 202": ("garbage", {}, True),
    "wrong shape": ("wrong_shape", {}, True),
    "read timeout": ("hang", {}, True),
    "truncated 202": ("truncate", {}, False),
    "202 without list_id": ("drop_field", {"field": "list_id"}, False),
}
NOT_ACCEPTED = [ending for ending, (_, _, refusable) in ENDINGS.items() if refusable]


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

    def lose_answer(self, ending: str, *, accepted: bool) -> None:
        kind, arguments, _ = ENDINGS[ending]
        self.fault(kind, accepted=accepted, **arguments)

    def later(self, seconds: float = RETRY_DELAY) -> None:
        """Let Airflow's retry delay pass."""
        self.clock.advance(seconds)

    @property
    def posts(self) -> int:
        return len(self.sandbox.requests_to(self.endpoint))

    @property
    def lists(self) -> list[str]:
        return [purchase.list_id for purchase in self.sandbox.purchases]

    @contextmanager
    def looking_on(self, run: Run, seconds: float) -> Iterator[None]:
        """Check that a try looks on for so long before it goes on, where the mode has it wait."""
        before, slept = self.clock(), len(self.clock.slept)
        yield
        assert self.clock() - before >= seconds
        waits = [each for each in run.triggers if isinstance(each, MachFiveUnansweredPurchaseTrigger)]
        assert bool(waits) == self.deferrable
        assert len(self.clock.slept) > slept
        assert all(each <= 22 for each in self.clock.slept[slept:])  # it looks all the while, not once at the end
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
    del batch["bought"]
    return batch


def undisturbed(task: Task) -> tuple[Any, dict[str, Any]]:
    """Return what a task that nothing happens to returns and pushes; the sandbox gives the same ids after a reset."""
    run = Task(task.sandbox, task.clock, task.deferrable, None).run()
    found = run(), batch_of(run)
    task.sandbox.reset()
    return found


# --- accepted


@MODES
@STORES
@pytest.mark.parametrize("ending", ENDINGS)
def test_accepted_and_seen_at_once(deferrable: bool, stored: bool, ending: str, task: Callable[..., Task]):
    """The try that lost the answer finds the list itself; a second one adopts it."""
    each = task(deferrable, stored)
    expected = undisturbed(each)
    each.lose_answer(ending, accepted=True)
    first = each.run()
    assert (first(), batch_of(first)) == expected
    assert first.xcoms["machfive_batch"]["bought"] is True
    each.later()
    second = each.run()
    assert (second(), batch_of(second)) == expected
    assert second.xcoms["machfive_batch"]["bought"] is False
    assert (each.posts, len(each.lists)) == (1, 1)


@MODES
@STORES
@pytest.mark.parametrize("ending", ENDINGS)
def test_accepted_and_not_to_be_seen_yet(
    deferrable: bool, stored: bool, ending: str, task: Callable[..., Task], logs: Logs
):
    """Visible late: the second try looks on, and adopts the list when it turns up."""
    each = task(deferrable, stored)
    expected = undisturbed(each)
    each.lose_answer(ending, accepted=True)
    each.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    each.later()
    second = each.run()
    with each.looking_on(second, 50):
        assert (second(), batch_of(second)) == expected
    assert second.xcoms["machfive_batch"]["bought"] is False
    assert "Looking for it for 2 min before buying" in logs.text
    assert DOUBT not in logs.text
    assert (each.posts, len(each.lists)) == (1, 1)


@MODES
@STORES
@pytest.mark.parametrize("ending", ["500", "reset", "read timeout"])
def test_accepted_and_the_look_fails(deferrable: bool, stored: bool, ending: str, task: Callable[..., Task]):
    """A look that fails proves nothing: not in the try that lost the answer, and not in the next."""
    each = task(deferrable, stored)
    each.lose_answer(ending, accepted=True)
    each.sandbox.fault("status", endpoint="lists", after=1, times=10, status=500, headers={"Retry-After": "0"})
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    with pytest.raises(exceptions.ServerError):
        each.run()()
    assert each.run()() == each.lists[0]
    assert (each.posts, len(each.lists)) == (1, 1)


@MODES
@STORES
def test_accepted_and_seen_only_after_the_settling_time(
    deferrable: bool, stored: bool, task: Callable[..., Task], logs: Logs
):
    """Nobody can know: it is bought again, which the log says, and the double is named when it turns up."""
    each = task(deferrable, stored)
    each.lose_answer("reset", accepted=True)
    each.fault("visible_late", seconds=1000)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    each.later()
    second = each.run()
    with each.looking_on(second, 120):
        second()
    assert len(each.lists) == 2
    assert logs.count(DOUBT) == 1
    each.later(1000)
    third = each.run()
    first_list, second_list = each.lists
    if not stored:
        assert third() == first_list
    else:
        assert third() in each.lists
    assert "bought more than once" in logs.text
    (surplus,) = third.xcoms["machfive_batch"]["duplicates"]
    assert {third.xcoms["machfive_batch"]["list_id"], surplus} == {first_list, second_list}
    assert len(each.lists) == 2


@MODES
@STORES
def test_a_list_that_turns_up_while_it_is_bought_again(
    deferrable: bool, stored: bool, task: Callable[..., Task], logs: Logs, clock: Clock
):
    """The one look after a purchase in doubt finds the double, uses the oldest, and names the other."""
    each = task(deferrable, stored)
    each.lose_answer("reset", accepted=True)
    each.fault("visible_late", seconds=1000)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    original = each.sandbox._state.buy

    def bought(*arguments: Any) -> Any:
        clock.advance(1000)
        return original(*arguments)

    each.sandbox._state.buy = bought
    try:
        run = each.run()
        assert run() == each.lists[0]
    finally:
        del each.sandbox._state.buy
    assert run.xcoms["machfive_batch"].items() >= {"bought": True, "duplicates": [each.lists[1]]}.items()
    assert f"paid for and not used: {each.lists[1]}." in logs.text
    assert (each.posts, len(each.lists)) == (2, 2)


# --- not accepted


@MODES
@STORES
@pytest.mark.parametrize("ending", NOT_ACCEPTED)
def test_not_accepted(deferrable: bool, stored: bool, ending: str, task: Callable[..., Task], logs: Logs):
    """The second try cannot know that, looks on, and buys: once, and with a warning."""
    each = task(deferrable, stored)
    expected = undisturbed(each)
    each.lose_answer(ending, accepted=False)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    assert each.lists == []
    each.later()
    second = each.run()
    with each.looking_on(second, 120):
        assert (second(), batch_of(second)) == expected
    assert second.xcoms["machfive_batch"]["bought"] is True
    assert logs.count("Looking for it for 2 min before buying") == 1
    assert logs.count(DOUBT) == 1
    assert (each.posts, len(each.lists)) == (2, 1)


@MODES
@STORES
def test_lost_again_and_again(deferrable: bool, stored: bool, task: Callable[..., Task]):
    """Each try that pays looks on before; what any of them bought is adopted."""
    each = task(deferrable, stored)
    for accepted in (False, False, True):
        each.lose_answer("reset", accepted=accepted)
        if accepted:
            each.fault("visible_late", seconds=30)
        with pytest.raises(exceptions.AmbiguousSubmissionError):
            each.run()()
        each.later()
    assert each.run()() == each.lists[0]
    assert (each.posts, len(each.lists)) == (3, 1)


# --- the worker dies


@MODES
@pytest.mark.parametrize("late", [0, 60], ids=["seen at once", "seen late"])
@pytest.mark.parametrize("wait", [True, False], ids=["wait", "no wait"])
def test_death_right_after_the_answer(deferrable: bool, late: float, wait: bool, task: Callable[..., Task], logs: Logs):
    """Between the answer and its record: the intent stands, the next try looks and adopts."""
    each = task(deferrable, stored=True, dies="submitted")
    if late:
        each.fault("visible_late", seconds=late)
    with pytest.raises(Killed):
        each.run(wait_for_completion=wait)()
    each.later()
    second = each.run(wait_for_completion=wait)
    assert second() == each.lists[0]
    assert second.xcoms["machfive_batch"]["bought"] is False
    assert (each.posts, len(each.lists)) == (1, 1)
    assert ("before buying" in logs.text) == bool(late)


@MODES
def test_death_right_before_the_post(deferrable: bool, task: Callable[..., Task], logs: Logs):
    """The store holds nothing yet: nothing was sent, and the next try need not wait."""
    each = task(deferrable, stored=True, dies="intent")
    with pytest.raises(Killed):
        each.run()()
    assert each.run()() == each.lists[0]
    assert (each.posts, len(each.lists)) == (1, 1)
    assert "before buying" not in logs.text


@MODES
@STORES
@pytest.mark.parametrize("late", [0, 60], ids=["seen at once", "seen late"])
@pytest.mark.parametrize("wait", [True, False], ids=["wait", "no wait"])
def test_death_some_time_later(
    deferrable: bool, stored: bool, late: float, wait: bool, task: Callable[..., Task], logs: Logs
):
    """With its id on record the list need not be seen to be waited for; without, it is looked for."""
    each = task(deferrable, stored)
    if late:
        each.fault("visible_late", seconds=late)
    first = each.run(wait_for_completion=False)
    assert first() == each.lists[0]
    each.later()
    second = each.run(wait_for_completion=wait)
    if wait and late and stored and deferrable:
        # The trigger looks by id until the list is there; nothing on the wall clock's side has it wait.
        second.between = lambda _: each.later(60)
    assert second() == each.lists[0]
    assert {**batch_of(first), "x": 0}.items() <= {**batch_of(second), "x": 0}.items()
    assert (each.posts, len(each.lists)) == (1, 1)
    assert ("before buying" in logs.text) == (bool(late) and not stored)


@MODES
@pytest.mark.parametrize("ending", ["500", "reset", "truncated 202"])
@STORES
def test_without_waiting_for_completion(deferrable: bool, stored: bool, ending: str, task: Callable[..., Task]):
    """Crash safety is not a matter of waiting: who only submits is safe too."""
    each = task(deferrable, stored)
    each.lose_answer(ending, accepted=True)
    each.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run(wait_for_completion=False)()
    second = each.run(wait_for_completion=False)
    with each.looking_on(second, 50):
        assert second() == each.lists[0]
    assert (each.posts, len(each.lists)) == (1, 1)


# --- names that do not come back as they were sent


SPOILT: dict[str, tuple[str, dict[str, Any]]] = {
    "cut within the tag": ("cut_name", {"length": 30}),
    "cut before the tag": ("cut_name", {"length": 8}),
    "rewritten": ("rewrite_name", {"name": "List of 3 leads"}),
}


@MODES
@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_name_without_its_tag_is_reported_at_once(
    deferrable: bool, spoilt: str, task: Callable[..., Task], logs: Logs
):
    each = task(deferrable, stored=True)
    kind, arguments = SPOILT[spoilt]
    each.fault(kind, **arguments)
    assert each.run()() == each.lists[0]
    assert f"MachFive shows list {each.lists[0]} as" in logs.text
    assert "could not recognise it by name" in logs.text
    second = each.run()  # the store knows the list by its id
    assert second() == each.lists[0]
    assert second.xcoms["machfive_batch"]["bought"] is False
    assert (each.posts, len(each.lists)) == (1, 1)


@MODES
@STORES
def test_a_cut_tag_without_an_answer_stops_the_buying(deferrable: bool, stored: bool, task: Callable[..., Task]):
    """What may be ours is not bought again; renamed so that it holds the tag, it is adopted."""
    each = task(deferrable, stored)
    each.lose_answer("reset", accepted=True)
    each.fault("cut_name", length=30)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    for _ in range(3):
        each.later(1000)
        with pytest.raises(exceptions.AmbiguousSubmissionError, match=f"names of lists {each.lists[0]} were cut"):
            each.run()()
    assert (each.posts, len(each.lists)) == (1, 1)
    each.sandbox.rename(each.lists[0], str(each.sandbox.purchases[0].list_name))
    assert each.run()() == each.lists[0]
    assert (each.posts, len(each.lists)) == (1, 1)


@MODES
@STORES
@pytest.mark.parametrize("spoilt", ["cut before the tag", "rewritten"])
def test_a_name_without_a_trace_of_its_tag_and_no_answer(
    deferrable: bool, stored: bool, spoilt: str, task: Callable[..., Task], logs: Logs
):
    """Nobody can recognise it: bought again after the settling time, and the user is told so."""
    each = task(deferrable, stored)
    kind, arguments = SPOILT[spoilt]
    each.lose_answer("reset", accepted=True)
    each.fault(kind, **arguments)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    second = each.run()
    with each.looking_on(second, 120):
        assert second() == each.lists[1]
    assert logs.count(DOUBT) == 1
    assert len(each.lists) == 2


# --- the settling itself


def test_trouble_while_looking_on(task: Callable[..., Task], logs: Logs):
    """In the triggerer a failed look is tried again; the time counts on."""
    each = task(deferrable=True)
    each.lose_answer("reset", accepted=False)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    each.sandbox.fault("status", endpoint="lists", after=1, times=2, status=500)
    run = each.run()
    assert run() == each.lists[0]
    assert "could not be looked at, which is tried again" in logs.text
    assert len(run.triggers) == 1


def test_a_refused_look_while_looking_on_ends_the_task(task: Callable[..., Task]):
    each = task(deferrable=True)
    each.lose_answer("reset", accepted=False)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    each.sandbox.fault("status", endpoint="lists", after=1, times=None, status=403)
    with pytest.raises(exceptions.ForbiddenError):
        each.run()()
    assert (each.posts, each.lists) == (1, [])


def test_a_full_workspace_between_the_looks(task: Callable[..., Task], clock: Clock):
    """Waiting for room does not begin the settling anew, and a purchase in doubt stays one."""
    each = task(deferrable=False)
    each.lose_answer("reset", accepted=False)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    each.fault("status", status=429, code="WORKSPACE_LIMIT")
    before = clock()
    assert each.run()() == each.lists[0]
    assert clock() - before < 120 + 60
    assert each.posts == 3


def test_a_later_try_does_not_take_over_what_an_earlier_one_waited_for(task: Callable[..., Task], clock: Clock):
    """Airflow may resume a lost task with the event of its earlier try."""
    each = task(deferrable=True)
    each.lose_answer("reset", accepted=False)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    run = each.run()
    event = {
        "status": "submit",
        "asked_at": clock(),
        "try_number": 1,
        "absent_since": clock() - 9999,
        "granted": False,
    }
    with pytest.raises(TaskDeferred) as caught:
        run.task.resume_submission(run.context, event)
    assert isinstance(caught.value.trigger, MachFiveUnansweredPurchaseTrigger)
    assert each.posts == 1


# --- a single lead


@STORES
@pytest.mark.parametrize("ending", [each for each in ENDINGS if each != "202 without list_id"])
def test_a_lost_generate_is_recovered_from_its_list(stored: bool, ending: str, task: Callable[..., Task]):
    each = task(deferrable=False, stored=stored, endpoint="generate")
    whole = each.run()()
    each.sandbox.reset()
    each.store = StateStore() if stored else None
    each.tries = 0
    each.lose_answer(ending, accepted=True)
    expected = {"list_id": whole["list_id"], "sequence": whole["sequence"]}
    assert each.run()() == expected
    assert each.run()() == expected
    assert (each.posts, len(each.lists)) == (1, 1)


@STORES
@pytest.mark.parametrize("ending", ["502", "read timeout", "unparsable 202"])
@pytest.mark.parametrize("late", [60, 600])
def test_a_lost_generate_whose_list_turns_up_late(
    stored: bool, ending: str, late: float, task: Callable[..., Task], logs: Logs
):
    """A generate takes up to ten minutes, so its list is looked for that long."""
    each = task(deferrable=False, stored=stored, endpoint="generate")
    each.lose_answer(ending, accepted=True)
    each.fault("visible_late", seconds=late)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    second = each.run()
    with each.looking_on(second, late - 20):
        assert second()["list_id"] == each.lists[0]
    assert "Looking for it for 12 min before buying" in logs.text
    assert (each.posts, len(each.lists)) == (1, 1)


@STORES
@pytest.mark.parametrize("ending", NOT_ACCEPTED)
def test_a_lost_generate_that_was_not_accepted(stored: bool, ending: str, task: Callable[..., Task], logs: Logs):
    each = task(deferrable=False, stored=stored, endpoint="generate")
    each.lose_answer(ending, accepted=False)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    second = each.run()
    with each.looking_on(second, 720):
        answer = second()
    assert set(answer) == {"lead_id", "list_id", "sequence", "credits_remaining"}
    assert answer["list_id"] == each.lists[0]
    assert logs.count(DOUBT) == 1
    assert (each.posts, len(each.lists)) == (2, 1)


@STORES
@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
def test_a_single_lead_deferrable(stored: bool, accepted: bool, task: Callable[..., Task]):
    """It is a batch of one: the shorter settling time holds."""
    each = task(deferrable=True, stored=stored, endpoint="generate")
    each.sandbox.fault("reset", endpoint="generate-batch", accepted=accepted)
    if accepted:
        each.sandbox.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        each.run()()
    second = each.run()
    with each.looking_on(second, 50 if accepted else 120):
        answer = second()
    assert set(answer) == {"list_id", "sequence"}
    assert each.lists == [answer["list_id"]]
    assert len(each.sandbox.requests_to("generate-batch")) == (1 if accepted else 2)
    assert each.posts == 0

"""A world small enough to try all of it: MachFive, Airflow, a user, the clock and a process that may die, as choices.

Only what cannot exist in a test is modelled: the API at the level of the client's calls, Airflow's task state
store, clears and edits, and time. What decides and buys is the provider's own code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import AcceptedBatch, GeneratedSequence, Lead, LeadList
from machfive_provider.purchase.buy import Submission, adopt, search_and_decide, submit
from machfive_provider.purchase.decision import Adopt, WaitForUnanswered
from machfive_provider.purchase.purchase import BATCH, SINGLE, Purchase
from machfive_provider.purchase.record import RecordStore

EPOCH = pendulum.datetime(2026, 2, 3)
BEGAN = EPOCH.timestamp()
moment = cache(lambda seconds: EPOCH.add(seconds=seconds))  # asked for a million times, of a few seconds
LEADS = (Lead("a@example.com"), Lead("b@example.com"))
RETRY_DELAY, CLEAR_DELAY = 5.0, 3600.0
LATE_BEYOND = 5000.0
LATE_WITHIN = {BATCH: 60.0, SINGLE: 600.0}
KINDS = ("plain", "late", "too late", "tag cut", "name cut", "fails")
REPORTS = ("paid for twice", "bought more than once", "could not recognise it by name")
# What a DAG may buy: campaign, leads, options.
WHAT = {
    "a": ("c", LEADS, {}),
    "other leads": ("c", LEADS[:1], {}),
    "other options": ("c", LEADS, {"email_count": 2}),
    "other campaign": ("d", LEADS, {}),
}


class Died(BaseException):
    """The process was killed: nothing after this line ran."""


class Choices:
    """Walks a tree of choices: replays the given ones, then takes the first option wherever a new one comes up."""

    def __init__(self, replay: Sequence[int]) -> None:
        self._replay = list(replay)
        self.taken: list[tuple[int, int]] = []
        self.story: list[str] = []

    def of(self, options: Sequence[str]) -> str:
        number = len(self.taken)
        index = self._replay[number] if number < len(self._replay) else 0
        self.taken.append((index, len(options)))
        self.story.append(options[index])
        return options[index]

    def next_replay(self) -> list[int] | None:
        """Return the choices that lead to the next leaf, None after the last."""
        taken = self.taken
        while taken and taken[-1][0] == taken[-1][1] - 1:
            taken.pop()
        if not taken:
            return None
        return [index for index, _ in taken[:-1]] + [taken[-1][0] + 1]


def every(run: Callable[[Choices], Any]) -> Iterator[tuple[Any, list[str]]]:
    """Run something once for each way its choices can go; give what it returned, and the choices."""
    replay: list[int] | None = []
    while replay is not None:
        choices = Choices(replay)
        yield run(choices), choices.story
        replay = choices.next_replay()


class Bought(NamedTuple):
    """One accepted purchase: how its list is shown, from when on, how it ends, and at which of the user's wishes."""

    id: str
    name: str
    what: str
    kind: str
    at: float
    visible_at: float
    asked: int

    def shown(self) -> LeadList:
        status, campaign = "failed" if self.kind == "fails" else "processing", WHAT[self.what][0]
        return LeadList(self.id, status, campaign, self.name, created_at=moment(self.at), leads_count=2)


class State(NamedTuple):
    """All that one attempt leaves to the next; what happens from there on depends on nothing else.

    :param max_tries, retries: Airflow's; a clear sets the first to the tries made plus the second
    :param asked: how often the user has asked for the task: the first run and each clear
    :param advised: whether the task has ended with the advice to clear it, and that is what the user did
    :param told: whether the user was warned that a list may be bought twice
    """

    tries: int = 0
    max_tries: int = 3
    retries: int = 3
    what: str = "a"
    policy: str = "adopt"
    call: str = BATCH
    asked: int = 1
    advised: bool = False
    bought: tuple[Bought, ...] = ()
    stored: str = "{}"
    told: bool = False
    succeeded: bool = False


class Store(dict[str, Any]):
    """Airflow's task state store: durable on return."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


@dataclass(frozen=True)
class Rules:
    """What stays the same in a world, and what a user does in it between two tries.

    :param store: whether this Airflow has a task state store
    :param edits: what the user may change in the DAG file before an automatic try or with a clear
    :param kinds: what may become of a list
    :param deaths: where the process may die; anywhere if there is none, and then a search may fail as well
    :param clears: what the user may do to the task, whatever became of it; "running" clears a task that runs, which
        Airflow may take for a failure of the task: then ``max_tries`` stays
    """

    store: bool
    policy: str = "adopt"
    edits: tuple[str, ...] = ()
    clears: tuple[str, ...] = ()
    mapped: bool = False
    single: bool = False
    max_resubmissions: int = 2
    kinds: tuple[str, ...] = KINDS
    deaths: tuple[str, ...] = ()


class World:
    """MachFive, the clock and the scheduler, for one attempt; it is also the log that the attempt writes to."""

    def __init__(self, rules: Rules, state: State, choices: Choices) -> None:
        self.rules, self.state, self.choices = rules, state, choices
        self.now, self.told = 0.0, state.told
        self.tries = state.tries + 1
        self.bought = list(state.bought)
        self.store = Store(json.loads(state.stored)) if rules.store else None
        self._search_may_fail = True

    def mortal(self, where: str) -> None:
        """Let the process die here, or not."""
        if self.rules.deaths and where not in self.rules.deaths:
            return
        if self.choices.of(("alive", f"dies {where}")) != "alive":
            raise Died

    def clock(self) -> float:
        """Tell the epoch second."""
        return BEGAN + self.now

    def info(self, *_: Any) -> None:
        """Take a log line."""

    def warning(self, text: str, *arguments: Any) -> None:
        """Take a log line that may tell the user of a double purchase."""
        line = text % arguments
        self.told = self.told or any(report in line for report in REPORTS)

    # --- what the provider sees of MachFive

    def iter_lists(self, campaign_id: str | None = None) -> Iterator[LeadList]:
        if self._search_may_fail and not self.rules.deaths:
            self._search_may_fail = False
            if self.choices.of(("search succeeds", "search fails")) == "search fails":
                raise exceptions.ServerError("search fails", status_code=500)
        visible = [each.shown() for each in reversed(self.bought) if each.visible_at <= self.now]
        return iter([each for each in visible if campaign_id in (None, each.campaign_id)])

    def get_list(self, list_id: str) -> LeadList:
        for each in self.bought:
            if each.id == list_id and each.visible_at <= self.now:
                return each.shown()
        raise exceptions.NotFoundError("no such list", status_code=404)

    def generate_batch(self, _campaign_id: str, _leads: Any, options: dict[str, Any]) -> AcceptedBatch:
        return AcceptedBatch(self._post(BATCH, options))

    def generate(self, _campaign_id: str, _lead: Any, options: dict[str, Any]) -> GeneratedSequence:
        return GeneratedSequence(self._post(SINGLE, options), ())

    def _post(self, call: str, options: dict[str, Any]) -> str:
        self.mortal("before the POST")
        responses = ("responds", "response lost", "refuses", "never arrives")
        response = self.choices.of(responses[:3] if self.rules.deaths else responses)
        if response == "refuses":
            raise exceptions.WorkspaceLimitError("full", status_code=429)
        if response == "never arrives":
            self._search_may_fail = True
            raise exceptions.TransportError("cut off")
        kind = self.choices.of(self.rules.kinds)
        late = {"late": LATE_WITHIN[call], "too late": LATE_BEYOND}.get(kind, 0.0)
        name = {"tag cut": options["list_name"][:-9], "name cut": "a b"}.get(kind, options["list_name"])
        number, state = len(self.bought) + 1, self.state
        self.bought.append(Bought(f"list-{number}", name, state.what, kind, self.now, self.now + late, state.asked))
        self.mortal("after the POST")
        if response == "response lost":
            self._search_may_fail = True
            raise exceptions.ServerError("oops", status_code=500)
        return f"list-{number}"

    # --- what Airflow and the user do

    def attempt(self) -> tuple[str, State]:
        """Run one try to its end; return how it ended, and what it leaves to the next."""
        message = ""
        try:
            with mock.patch.object(time, "time", self.clock):
                found = self._until_bought()
            self.mortal("before the record")
            end = self._outcome(found)
        except Died:
            end = "died"
        except exceptions.MachFiveError as error:
            end, message = type(error).__name__, str(error)
        if "clear this task" in message and self.state.advised:
            end = f"{end}, advised to do what was just done"
        ended = end.startswith(("success", "MachFivePermanentError", "ListFailedError", "NotFoundError"))
        advice = ended and "clear this task" in message
        after = self._left(self.state.succeeded or end == "success")
        return self._go_on(end, after, ended=ended, advice=advice)

    def _go_on(self, end: str, after: State, *, ended: bool, advice: bool) -> tuple[str, State]:
        """Let Airflow retry the task, or the user edit the DAG, clear the task or empty the state store."""
        steps = (*(() if ended else ("is retried",)), *self.rules.clears) or ("ends",)
        step = self.choices.of(steps if not ended else ("ends", *self.rules.clears))
        if step == "ends":
            return f"{end}, the end", after
        if self.rules.edits:
            after = self._edited(after, self.choices.of(("edits nothing", *self.rules.edits)))
        if step == "is retried":
            return end, after
        asked = after.asked + 1
        if step == "is cleared while it runs, max_tries stays":
            return end, after._replace(asked=asked, advised=False)
        if step == "is cleared, the store is emptied":
            after = after._replace(stored="{}")
        bought = tuple(
            each._replace(at=each.at - CLEAR_DELAY, visible_at=max(0.0, each.visible_at - CLEAR_DELAY))
            for each in after.bought
        )
        if step == "is cleared while it runs":
            bought = after.bought
        raised = after.tries + after.retries
        return end, after._replace(asked=asked, max_tries=raised, bought=bought, advised=advice)

    def _edited(self, after: State, edit: str) -> State:
        if edit in WHAT:
            return after._replace(what=edit if after.what == "a" else "a")
        if edit.startswith("retries"):
            return after._replace(retries=int(edit[-1]))
        if edit in ("adopt", "resubmit", "fail"):
            return after._replace(policy=edit)
        if edit == "other mode":
            return after._replace(call=BATCH if after.call == SINGLE else SINGLE)
        if edit == "the store is emptied":
            return after._replace(stored="{}")
        assert edit == "edits nothing"
        return after

    def _left(self, succeeded: bool) -> State:
        """Return what the next attempt finds, told so that equal futures are equal: time begins anew, order stays."""
        now = self.now + RETRY_DELAY
        bought = tuple(
            each._replace(at=float(number - len(self.bought)), visible_at=max(0.0, each.visible_at - now))
            for number, each in enumerate(self.bought)
        )
        stored = {key: {**record, "time": BEGAN - 0.5} for key, record in (self.store or {}).items()}
        return self.state._replace(
            tries=self.tries,
            bought=bought,
            stored=json.dumps(stored, sort_keys=True),
            told=self.told,
            succeeded=succeeded,
            advised=False,
        )

    def _until_bought(self) -> Submission:
        state, records = self.state, _Mortal(self, self.store, self)
        purchase = _purchase(self.rules, self.tries, state.max_tries, state.what, state.policy, state.call)
        records.begin(self.tries)
        absent_since = None
        while True:
            decision = search_and_decide(self, purchase, records.record, absent_since, self)
            if isinstance(decision, Adopt):
                return adopt(decision, records.record, self)
            if not isinstance(decision, WaitForUnanswered):
                return submit(self, purchase, decision, records, self)
            if absent_since is None:
                self.mortal("while it waits")
            absent_since = decision.absent_since
            self.now = min(decision.until - BEGAN, self.now + 50.0)

    def _outcome(self, found: Submission) -> str:
        """Wait for the list as the operator does: by id, with patience for one that is not visible yet."""
        (mine,) = [each for each in self.bought if each.id == found.list_id]
        if mine.visible_at > (found.submitted_at or BEGAN) - BEGAN + max(120.0, LATE_WITHIN[self.state.call]):
            return "NotFoundError"
        self.now = max(self.now, mine.visible_at) + 1.0
        return "batch failed" if mine.kind == "fails" else "success"


class _Mortal(RecordStore):
    """The provider's record store, in a process that may die before and after each write."""

    def __init__(self, world: World, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._world = world

    def write_intent(self, *arguments: Any) -> None:
        self._world.mortal("after the search")
        super().write_intent(*arguments)

    def write_submitted(self, *arguments: Any) -> None:
        super().write_submitted(*arguments)
        self._world.mortal("after the response")


@cache  # for its digests
def _purchase(rules: Rules, tries: int, max_tries: int, what: str, policy: str, call: str) -> Purchase:
    """Return what a try is to buy, as the operator makes it."""
    campaign, leads, options = WHAT[what]
    return Purchase(
        dag_id="dag",
        run_id="run",
        task_id="task",
        map_index=0 if rules.mapped else None,
        namespace=None,
        try_number=tries,
        round=max_tries,
        campaign_id=campaign,
        leads=leads[:1] if rules.single else leads,
        options=options,
        call=call,
        one_lead=rules.single,
        on_existing_list=policy,
        max_resubmissions=rules.max_resubmissions,
        since=EPOCH.subtract(days=1),
    )

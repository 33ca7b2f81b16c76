"""A world small enough to try all of it: MachFive, the clock, and a process that may die, as choices of one tree.

Only what cannot exist in a test is modelled: the API at the level of the client's calls, Airflow's task state
store, and time. What decides and buys is the provider's own code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pendulum

from machfive_provider import exceptions
from machfive_provider.api.models import AcceptedBatch, Lead, LeadList
from machfive_provider.purchase.buy import Submission, buy
from machfive_provider.purchase.decision import History, Policy, WaitForUnanswered
from machfive_provider.purchase.record import RecordStore
from machfive_provider.purchase.tag import Intent, Origin

EPOCH = pendulum.datetime(2026, 2, 3)
LEADS = (Lead("a@example.com"), Lead("b@example.com"))
RETRY_DELAY, CLEAR_DELAY = 5.0, 3600.0
LATE_WITHIN, LATE_BEYOND = 60.0, 5000.0
KINDS = ("plain", "late", "too late", "tag cut", "name cut", "fails")
REPORTS = ("paid for twice", "bought more than once", "could not recognise it by name")


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
    """One accepted purchase: how its list is shown, from when on, and how it ends."""

    id: str
    name: str
    kind: str
    at: float
    round: int
    visible_at: float

    def shown(self, now: float) -> LeadList:
        status = "failed" if self.kind == "fails" else "processing"
        return LeadList(self.id, status, "c", self.name, created_at=EPOCH.add(seconds=self.at), leads_count=2)


class State(NamedTuple):
    """All that one attempt leaves to the next; what happens from there on depends on nothing else.

    :param told: whether the user was warned that a list may be bought twice
    """

    tries: int = 0
    round: int = 0
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
    """What stays the same in a world.

    :param store: whether this Airflow has a task state store
    :param clears: whether the user may clear the task, whatever became of it
    """

    store: bool
    policy: Policy
    clears: bool = False


class World:
    """MachFive, the clock and the scheduler, for one attempt; it is also the log that the attempt writes to."""

    def __init__(self, rules: Rules, state: State, choices: Choices) -> None:
        self.rules = rules
        self.choices = choices
        self.now, self.told = 0.0, state.told
        self.tries = state.tries + 1
        self.round = state.round
        self.bought = list(state.bought)
        self.store = Store(json.loads(state.stored)) if rules.store else None
        self.succeeded = state.succeeded
        self._search_may_fail = True

    def mortal(self, where: str) -> None:
        """Let the process die here, or not."""
        if self.choices.of(("alive", f"dies {where}")) != "alive":
            raise Died

    def info(self, *_: Any) -> None:
        """Take a log line."""

    def warning(self, text: str, *arguments: Any) -> None:
        """Take a log line that may tell the user of a double purchase."""
        line = text % arguments
        self.told = self.told or any(report in line for report in REPORTS)

    # --- what the provider sees of MachFive

    def iter_lists(self, campaign_id: str | None = None, status: str | None = None) -> Iterator[LeadList]:
        if self._search_may_fail:
            self._search_may_fail = False
            if self.choices.of(("search succeeds", "search fails")) == "search fails":
                raise exceptions.ServerError("search fails", status_code=500)
        visible = [each for each in self.bought if each.visible_at <= self.now]
        return iter([each.shown(self.now) for each in reversed(visible)])

    def get_list(self, list_id: str) -> LeadList:
        for each in self.bought:
            if each.id == list_id and each.visible_at <= self.now:
                return each.shown(self.now)
        raise exceptions.NotFoundError("no such list", status_code=404)

    def send(self, options: dict[str, Any]) -> AcceptedBatch:
        self.mortal("before the POST")
        response = self.choices.of(("responds", "response lost", "never arrives", "refuses"))
        if response == "refuses":
            raise exceptions.WorkspaceLimitError("full", status_code=429)
        if response == "never arrives":
            self._search_may_fail = True
            raise exceptions.TransportError("cut off")
        kind = self.choices.of(KINDS)
        late = {"late": LATE_WITHIN, "too late": LATE_BEYOND}.get(kind, 0.0)
        name = {"tag cut": options["list_name"][:-9], "name cut": "a b"}.get(kind, options["list_name"])
        each = Bought(f"list-{len(self.bought) + 1}", name, kind, self.now, self.round, self.now + late)
        self.bought.append(each)
        self.mortal("after the POST")
        if response == "response lost":
            self._search_may_fail = True
            raise exceptions.ServerError("oops", status_code=500)
        return AcceptedBatch(each.id)

    # --- what Airflow does

    def attempt(self) -> tuple[str, State]:
        """Run one try to its end; return how it ended, and what it leaves to the next."""
        try:
            found = self._until_bought()
            self.mortal("before the record")
            end = self._outcome(found)
        except Died:
            end = "died"
        except exceptions.MachFiveError as error:
            end = type(error).__name__
        ended = end in ("success", "MachFivePermanentError", "ListFailedError", "NotFoundError")
        if self.rules.clears and self.choices.of(("is retried", "is cleared")) == "is cleared":
            self.now += CLEAR_DELAY
            self.round = self.tries
        elif ended:
            end += ", the end"
        self.now += RETRY_DELAY
        return end, self._left(self.succeeded or end.startswith("success"))

    def _left(self, succeeded: bool) -> State:
        """Return what the next attempt finds, told so that equal futures are equal: time begins anew, order stays."""
        bought = tuple(
            each._replace(at=float(number - len(self.bought)), visible_at=max(0.0, each.visible_at - self.now))
            for number, each in enumerate(self.bought)
        )
        stored = {key: {**record, "time": 0.0} for key, record in (self.store or {}).items()}
        return State(self.tries, self.round, bought, json.dumps(stored, sort_keys=True), self.told, succeeded)

    def _until_bought(self) -> Submission:
        absent_since = None
        while True:
            intent = _intent(self.round if self.rules.policy.on_existing_list == "resubmit" else None)
            history = History(try_number=self.tries, round=self.round, absent_since=absent_since)
            records = _Mortal(self, self.store, intent.base, self)
            clock = lambda: self.now  # noqa: E731
            found = buy(self, self.send, intent, history, records, self.rules.policy, self, clock)
            if isinstance(found, Submission):
                return found
            assert isinstance(found, WaitForUnanswered)
            if absent_since is None:
                self.mortal("while it waits")
            absent_since = found.absent_since
            self.now = min(found.until, self.now + 50.0)

    def _outcome(self, found: Submission) -> str:
        """Wait for the list as the operator does: by id, with patience for one that is not visible yet."""
        (mine,) = [each for each in self.bought if each.id == found.list_id]
        if mine.visible_at > (found.submitted_at or 0.0) + 120.0:
            return "NotFoundError"
        self.now = max(self.now, mine.visible_at) + 1.0
        return "batch failed" if mine.kind == "fails" else "success"


class _Mortal(RecordStore):
    """The provider's record store, in a process that may die before and after each write."""

    def __init__(self, world: World, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._world = world

    def write_intent(self, tag: str, generation: int) -> None:
        self._world.mortal("after the search")
        super().write_intent(tag, generation)

    def write_submitted(self, tag: str, generation: int, list_id: str) -> None:
        super().write_submitted(tag, generation, list_id)
        self._world.mortal("after the response")


_intents: dict[int | None, Intent] = {}


def _intent(round_: int | None) -> Intent:
    if round_ not in _intents:
        _intents[round_] = Intent(Origin("dag", "run", "task", None, round_), "c", LEADS, {}, EPOCH.subtract(hours=1))
    return _intents[round_]

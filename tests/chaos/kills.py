"""SIGKILLs: of whoever waits for an answer that a fault holds back, and of anybody at random moments."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from machfive_provider.sandbox import RecordedRequest, Sandbox
from scripts.airflow_parts import PartedAirflow
from tests.chaos.deck import POST
from tests.chaos.faults import Hit
from tests.chaos.processes import (
    BOTH,
    SUPERVISOR,
    TASK,
    TRIGGERER,
    holder_of,
    kill_all,
    kill_task,
    running_tasks,
    task_of,
    triggerer_family,
)


@dataclass(frozen=True)
class KillPlan:
    """How many random kills of each sort, the seconds between two of them on the average, and when they begin.

    A kill between a task's note of its intent and the purchase costs a settling time: a run that cannot afford
    one begins once everything is bought.
    """

    random: dict[str, int]
    every: float = 18.0
    once_bought: int = 0


@dataclass(frozen=True)
class Kill:
    """One SIGKILL, of a pair for BOTH. `within_post`: the request had arrived and was not answered."""

    what: str
    why: str
    within_post: bool


@dataclass
class Appointment:
    """A request that is not going to be answered before its sender dies."""

    due: float
    request: RecordedRequest
    why: str
    how: str


@dataclass
class Killer:
    """Kills by appointment and at random; every choice is drawn under the seed."""

    sandbox: Sandbox
    airflow: PartedAirflow
    plan: KillPlan
    seed: int
    kills: list[Kill] = field(default_factory=list)
    escaped: int = 0

    def __post_init__(self) -> None:
        self._appointed = random.Random(f"{self.seed} appointed")
        self._rng = random.Random(f"{self.seed} random")
        self._deck = [what for what, count in self.plan.random.items() for _ in range(count)]
        self._rng.shuffle(self._deck)
        self._appointments: list[Appointment] = []
        self._next = time.monotonic() + self._rng.expovariate(1 / self.plan.every)

    def appoint(self, hits: list[Hit]) -> None:
        """Note the requests that were just held back in order to be cut."""
        for hit in hits:
            if not hit.card.kill:
                continue
            waiting = [
                request
                for request in self.sandbox.requests_to(hit.card.endpoint)
                if request.fault == hit.card.kind and request.status is None
            ]
            # One fault of a stack is scripted at a time, so the last that was held back is this one's.
            if waiting and all(known.request is not waiting[-1] for known in self._appointments):
                hang = hit.card.kind == "hang"
                # A hang ends with the death of its client alone; a slow answer may find the client orphaned.
                how = self._appointed.choice((TASK, BOTH) if hang else (TASK, BOTH, SUPERVISOR))
                due = time.monotonic() + self._appointed.uniform(0.1, 1.5)
                self._appointments.append(Appointment(due, waiting[-1], hit.card.kind, how))
            else:
                self.escaped += 1

    def step(self) -> None:
        """Kill whoever's time has come."""
        now = time.monotonic()
        for appointment in [each for each in self._appointments if each.due <= now]:
            self._appointments.remove(appointment)
            self._keep(appointment)
        if self._deck and now >= self._next and len(self.sandbox.purchases) >= self.plan.once_bought:
            if self._kill_anyone(self._deck[-1]):
                self._deck.pop()
                self._next = now + self._rng.expovariate(1 / self.plan.every)
            else:
                self._next = now + 0.3  # nobody of that sort there right now

    @property
    def left(self) -> int:
        """How many random kills are still to come."""
        return len(self._deck)

    @property
    def by_sort(self) -> Counter[tuple[str, str]]:
        """How many of each victim for each reason."""
        return Counter((kill.what, kill.why) for kill in self.kills)

    @property
    def within_post(self) -> int:
        """How many hit the sender of a POST that had arrived and was not answered yet."""
        return sum(kill.within_post for kill in self.kills)

    def _keep(self, appointment: Appointment) -> None:
        request = appointment.request
        holder = holder_of(request.client_port or 0, self.sandbox.port)
        if request.status is not None or holder is None:
            self.escaped += 1
            return
        family = triggerer_family(self.airflow)
        if holder in family:
            what, done = TRIGGERER, kill_all(family)
        else:
            what, done = appointment.how, kill_task(task_of(holder, self.airflow), appointment.how)
        if done:
            post = request.endpoint == POST and what != SUPERVISOR and request.status is None
            self.kills.append(Kill(what, appointment.why, post))
        else:
            self.escaped += 1

    def _kill_anyone(self, what: str) -> bool:
        if what == TRIGGERER:
            done, post = kill_all(triggerer_family(self.airflow)), False
        else:
            tasks = running_tasks(self.airflow)
            if not tasks:
                return False
            task = self._rng.choice(tasks)
            posts = self._open_posts() if what != SUPERVISOR else []
            held = [each for each in posts if holder_of(each.client_port or 0, self.sandbox.port) == task.child]
            done = kill_task(task, what)
            post = any(each.status is None for each in held)
        if done:
            self.kills.append(Kill(what, "at random", post))
        return done

    def _open_posts(self) -> list[RecordedRequest]:
        return [request for request in self.sandbox.requests_to(POST) if request.status is None]

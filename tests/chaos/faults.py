"""Which faults are to happen, how often and to which requests, and how they reach the sandbox.

All faults of a run are listed beforehand and shuffled under the seed: one queue for each endpoint, and one for each
fault that a list itself has. `FaultInjector` keeps one fault of each queue scripted in the sandbox until all have
happened. A POST that fails but may have been accepted makes the task wait until the purchase shows up, which takes
minutes, so there are few of each; reads are retried inside the attempt, so there are many.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from machfive_provider.sandbox import Fault, Sandbox

POST = "generate-batch"
READS = ("lists", "list", "export")

# What can happen to any request. Delays are drawn anew for each planned.
_ANYWHERE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "500": ("status", {"status": 500}),
    "502 html": ("html", {"status": 502}),
    "503": ("status", {"status": 503}),
    "504 html": ("html", {"status": 504}),
    "408": ("status", {"status": 408}),
    "reset": ("reset", {}),
    "garbage": ("garbage", {}),
    "wrong shape": ("wrong_shape", {}),
}
# Faults after which the client knows whether the purchase was made.
_RATE_LIMITED = ("status", {"status": 429, "code": "RATE_LIMITED", "headers": {"Retry-After": "1"}})
_WORKSPACE_LIMIT = ("status", {"status": 429, "code": "WORKSPACE_LIMIT"})
_HARMLESS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "429 RATE_LIMITED": _RATE_LIMITED,
    "truncated": ("truncate", {}),
    "delay": ("delay", {"seconds": (0.5, 2.0)}),
    "slow headers": ("slow_headers", {"seconds": (0.5, 2.0)}),
    "extra fields": ("extra_field", {}),
}
# Responses of proxies and gateways, and error responses without an explanation.
_ON_READS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "500 plain text": ("status", {"status": 500, "body": "Internal Server Error", "request_id": None}),
    "520 empty": ("status", {"status": 520, "body": "", "request_id": None}),
    "429 without Retry-After": ("status", {"status": 429, "code": "RATE_LIMITED"}),
    "200 empty": ("status", {"status": 200, "body": ""}),
    "redirect": ("redirect", {"location": "/maintenance"}),
}
HTTP_KINDS = (
    "500",
    "502 html",
    "503",
    "504 html",
    "408",
    "429 WORKSPACE_LIMIT",
    "429 RATE_LIMITED",
    "reset before acceptance",
    "reset after acceptance",
    "truncated",
    "garbage",
    "wrong shape",
    "no list_id",
    "hang, cut by a kill",
    "delay",
    "slow headers",
    "extra fields",
    *_ON_READS,
)
LIST_KINDS = ("visible late", "list fails", "unknown status", "emails missing")


@dataclass(frozen=True)
class PlannedFault:
    """One fault to be scripted. With `kill` the process that holds the connection is killed while it waits.

    `name` is the kind that the report counts; `kind` is the sandbox's name of the fault.
    """

    name: str
    kind: str
    endpoint: str
    accepted: bool = False
    kill: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The endpoint and, for a purchase, whether it was made."""
        if self.endpoint != POST or self.name in LIST_KINDS:
            return self.endpoint
        return f"{self.endpoint}, {'accepted' if self.accepted else 'not accepted'}"


@dataclass(frozen=True)
class Amounts:
    """How many of each; the defaults are those of the full run of one mode."""

    post_unaccepted: int = 3
    post_accepted: int = 4
    post_without_id: int = 22
    post_limited: int = 30
    post_harmless: int = 7
    post_hang_unaccepted: int = 5
    post_hang_accepted: int = 8
    post_slow_kills: int = 8
    lists: int = 7
    list: int = 9
    export: int = 6
    hang_lists: int = 3
    hang_list: int = 2
    hang_export: int = 6
    list_faults: int = 22

    def scaled(self, factor: float) -> Amounts:
        """Return the amounts for a run of another size."""
        return Amounts(**{name: math.ceil(count * factor) for name, count in asdict(self).items()})

    def reads(self, endpoint: str) -> int:
        """How many of each kind of read fault an endpoint gets."""
        return int(getattr(self, endpoint))


# Only faults that cost a task seconds: none after which it waits minutes for an unanswered purchase to show up.
FEW = Amounts(
    post_unaccepted=0,
    post_accepted=1,
    post_without_id=2,
    post_limited=2,
    post_harmless=0,
    post_hang_unaccepted=0,
    post_hang_accepted=2,
    post_slow_kills=0,
    lists=1,
    list=1,
    export=0,
    hang_lists=0,
    hang_list=0,
    hang_export=2,
    list_faults=1,
)


def plan_faults(amounts: Amounts, rng: random.Random) -> dict[str, list[PlannedFault]]:
    """Return a shuffled queue for each endpoint, and one for each fault that a list itself has."""
    queues = {POST: list(_posts(amounts, rng))}
    for endpoint in READS:
        queues[endpoint] = list(_reads(endpoint, amounts, rng))
    for queue in queues.values():
        rng.shuffle(queue)
    for planned in (each for _ in range(amounts.list_faults) for each in _lists(rng)):
        queues.setdefault(planned.name, []).append(planned)
    return queues


def _posts(amounts: Amounts, rng: random.Random) -> Iterable[PlannedFault]:
    for name, (kind, args) in _ANYWHERE.items():
        shown = ("reset before acceptance", "reset after acceptance") if name == "reset" else (name, name)
        for accepted, count in ((False, amounts.post_unaccepted), (True, amounts.post_accepted)):
            yield from [PlannedFault(shown[accepted], kind, POST, accepted, args=args)] * count
    yield from [
        PlannedFault("no list_id", "drop_field", POST, accepted=True, args={"field": "list_id"})
    ] * amounts.post_without_id
    limit, args = _WORKSPACE_LIMIT
    yield from [PlannedFault("429 WORKSPACE_LIMIT", limit, POST, args=args)] * amounts.post_limited
    for name, (kind, args) in _HARMLESS.items():
        for _ in range(amounts.post_harmless):
            yield PlannedFault(name, kind, POST, accepted=kind != "status", args=_draw(args, rng))
    yield from [PlannedFault("hang, cut by a kill", "hang", POST, kill=True)] * amounts.post_hang_unaccepted
    yield from [
        PlannedFault("hang, cut by a kill", "hang", POST, accepted=True, kill=True)
    ] * amounts.post_hang_accepted
    for number in range(amounts.post_slow_kills):
        # "delay" accepts at the end of its wait, when the client has long been killed.
        name, kind = (("delay", "delay"), ("slow headers", "slow_headers"))[number % 2]
        yield PlannedFault(name, kind, POST, accepted=True, kill=True, args={"seconds": 4.0})


def _reads(endpoint: str, amounts: Amounts, rng: random.Random) -> Iterable[PlannedFault]:
    for _ in range(amounts.reads(endpoint)):
        for name, (kind, args) in (_ANYWHERE | _HARMLESS | _ON_READS).items():
            if name == "reset":
                yield PlannedFault("reset before acceptance", kind, endpoint)
                yield PlannedFault("reset after acceptance", kind, endpoint, accepted=True)
            else:
                yield PlannedFault(name, kind, endpoint, args=_draw(args, rng))
    hangs = int(getattr(amounts, f"hang_{endpoint}"))
    yield from [PlannedFault("hang, cut by a kill", "hang", endpoint, kill=True)] * hangs


def _lists(rng: random.Random) -> Iterable[PlannedFault]:
    yield PlannedFault("visible late", "visible_late", POST, accepted=True, args={"seconds": rng.randint(3, 45)})
    yield PlannedFault("list fails", "fail_list", POST, accepted=True)
    yield PlannedFault("unknown status", "unknown_status", POST, accepted=True)
    yield PlannedFault("emails missing", "short_sequences", POST, accepted=True)


def _draw(args: Mapping[str, Any], rng: random.Random) -> Mapping[str, Any]:
    return {name: rng.uniform(*value) if isinstance(value, tuple) else value for name, value in args.items()}


# At most so many requests pass without a fault between two faults of one queue.
GAPS = {POST: 1, "lists": 2, "list": 3, "export": 1}
LIST_FAULT_GAP = 5
# The part of a queue that may be used while no batch is done yet, and how much faster than the batches it is used:
# faults are spread over the run, and the last ones happen while there are still enough batches left to meet them.
HEAD_START, PACE = 0.25, 1.3


@dataclass(frozen=True)
class Hit:
    """A fault that met its request."""

    planned: PlannedFault
    fault: Fault


class FaultInjector:
    """Keeps one fault of each queue scripted until the queue is used up.

    :param gaps: the most requests between two faults of a queue
    :param head_start: the part of a queue that may be used while no batch is done yet
    """

    def __init__(
        self,
        sandbox: Sandbox,
        amounts: Amounts,
        seed: int,
        gaps: Mapping[str, int] = GAPS,
        head_start: float = HEAD_START,
    ) -> None:
        self._sandbox = sandbox
        self._gaps = gaps
        self._head_start = head_start
        # One generator for each queue: what one queue draws must not depend on how fast another is used.
        self._queues = plan_faults(amounts, random.Random(seed))
        self._rngs = {name: random.Random(f"{seed} {name}") for name in self._queues}
        self._sizes = {name: len(queue) for name, queue in self._queues.items()}
        self._scripted: dict[str, Hit] = {}
        self.hits: list[Hit] = []

    def step(self, done: float) -> list[Hit]:
        """Replace the faults that were used since the last step; return these.

        :param done: the part of all batches that is done, 0 to 1
        """
        fresh, unspent = [], 1 - min(1.0, self._head_start + PACE * done)
        for name, queue in self._queues.items():
            if (hit := self._scripted.get(name)) and hit.fault.used:
                fresh.append(self._scripted.pop(name))
            if name not in self._scripted and len(queue) > unspent * self._sizes[name]:
                self._scripted[name] = self._script(name, queue.pop())
        self.hits += fresh
        return fresh

    def _script(self, name: str, planned: PlannedFault) -> Hit:
        gap = self._rngs[name].randint(0, self._gaps.get(name, LIST_FAULT_GAP))
        fault = self._sandbox.fault(
            planned.kind, endpoint=planned.endpoint, after=gap, accepted=planned.accepted, **dict(planned.args)
        )
        return Hit(planned, fault)

    @property
    def left(self) -> int:
        """How many faults have not happened yet."""
        return sum(map(len, self._queues.values())) + len(self._scripted)

    @property
    def by_name(self) -> Counter[str]:
        """How often each kind has happened."""
        return Counter(hit.planned.name for hit in self.hits)

    @property
    def by_target(self) -> Counter[tuple[str, str]]:
        """How often each kind has happened, by the requests it happened to."""
        return Counter((hit.planned.name, hit.planned.target) for hit in self.hits)

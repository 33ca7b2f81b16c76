"""Which faults are to happen, how often and to which requests: cards, shuffled under a seed.

A card's `name` is the kind that the report counts; its `family` is the endpoint and whether the request was
accepted. POSTs that are not accepted and look as if they might have been cost the task a settling time, so
there are few of each; reads heal inside the attempt, so there are many.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

POST = "generate-batch"
READS = ("lists", "list", "export")

# What can happen to any request. Delays are drawn anew for each card.
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
# What leaves no doubt about a purchase: it was made, or it surely was not.
_RATE_LIMITED = ("status", {"status": 429, "code": "RATE_LIMITED", "headers": {"Retry-After": "1"}})
_WORKSPACE_LIMIT = ("status", {"status": 429, "code": "WORKSPACE_LIMIT"})
_HARMLESS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "429 RATE_LIMITED": _RATE_LIMITED,
    "truncated": ("truncate", {}),
    "delay": ("delay", {"seconds": (0.5, 2.0)}),
    "slow headers": ("slow_headers", {"seconds": (0.5, 2.0)}),
    "extra fields": ("extra_field", {}),
}
# What a proxy or a gateway makes up, and what an API may answer without a word of explanation.
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
class Card:
    """One fault to be scripted. `kill` has whoever holds the connection killed while it waits."""

    name: str
    kind: str
    endpoint: str
    accepted: bool = False
    kill: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The endpoint and, for a purchase, whether it was made."""
        if self.endpoint != POST or self.name in LIST_KINDS:
            return self.endpoint
        return f"{self.endpoint}, {'accepted' if self.accepted else 'not accepted'}"


@dataclass(frozen=True)
class Amounts:
    """How many of each; the defaults are those of the full run of one mode."""

    post_unaccepted: int = 3
    post_accepted: int = 4
    post_certain: int = 22  # each of: no list_id, WORKSPACE_LIMIT
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


# No card that costs a settling time or more than a few seconds.
FEW = Amounts(
    post_unaccepted=0,
    post_accepted=1,
    post_certain=2,
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


def deal(amounts: Amounts, rng: random.Random) -> dict[str, list[Card]]:
    """Return a shuffled stack for each endpoint, and one for each fault that a list itself has."""
    stacks = {POST: list(_posts(amounts, rng))}
    for endpoint in READS:
        stacks[endpoint] = list(_reads(endpoint, amounts, rng))
    for stack in stacks.values():
        rng.shuffle(stack)
    for card in (card for _ in range(amounts.list_faults) for card in _lists(rng)):
        stacks.setdefault(card.name, []).append(card)
    return stacks


def _posts(amounts: Amounts, rng: random.Random) -> Iterable[Card]:
    for name, (kind, args) in _ANYWHERE.items():
        shown = ("reset before acceptance", "reset after acceptance") if name == "reset" else (name, name)
        for accepted, count in ((False, amounts.post_unaccepted), (True, amounts.post_accepted)):
            yield from [Card(shown[accepted], kind, POST, accepted, args=args)] * count
    yield from [Card("no list_id", "drop_field", POST, accepted=True, args={"field": "list_id"})] * amounts.post_certain
    limit, args = _WORKSPACE_LIMIT
    yield from [Card("429 WORKSPACE_LIMIT", limit, POST, args=args)] * amounts.post_certain
    for name, (kind, args) in _HARMLESS.items():
        for _ in range(amounts.post_harmless):
            yield Card(name, kind, POST, accepted=kind != "status", args=_drawn(args, rng))
    yield from [Card("hang, cut by a kill", "hang", POST, kill=True)] * amounts.post_hang_unaccepted
    yield from [Card("hang, cut by a kill", "hang", POST, accepted=True, kill=True)] * amounts.post_hang_accepted
    for number in range(amounts.post_slow_kills):
        # "delay" accepts when the wait is over, and the killed client is long gone by then.
        name, kind = (("delay", "delay"), ("slow headers", "slow_headers"))[number % 2]
        yield Card(name, kind, POST, accepted=True, kill=True, args={"seconds": 4.0})


def _reads(endpoint: str, amounts: Amounts, rng: random.Random) -> Iterable[Card]:
    for _ in range(amounts.reads(endpoint)):
        for name, (kind, args) in (_ANYWHERE | _HARMLESS | _ON_READS).items():
            if name == "reset":
                yield Card("reset before acceptance", kind, endpoint)
                yield Card("reset after acceptance", kind, endpoint, accepted=True)
            else:
                yield Card(name, kind, endpoint, args=_drawn(args, rng))
    hangs = int(getattr(amounts, f"hang_{endpoint}"))
    yield from [Card("hang, cut by a kill", "hang", endpoint, kill=True)] * hangs


def _lists(rng: random.Random) -> Iterable[Card]:
    yield Card("visible late", "visible_late", POST, accepted=True, args={"seconds": rng.randint(3, 45)})
    yield Card("list fails", "fail_list", POST, accepted=True)
    yield Card("unknown status", "unknown_status", POST, accepted=True)
    yield Card("emails missing", "short_sequences", POST, accepted=True)


def _drawn(args: Mapping[str, Any], rng: random.Random) -> Mapping[str, Any]:
    return {name: rng.uniform(*value) if isinstance(value, tuple) else value for name, value in args.items()}

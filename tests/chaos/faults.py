"""Scripts the cards of a deck into the sandbox, a few at a time, and counts those that met their request."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from machfive_provider.sandbox import Fault, Sandbox
from tests.chaos.deck import POST, Amounts, Card, deal

# So many requests, at the most, go unharmed between two faults of one stack.
GAPS = {POST: 1, "lists": 2, "list": 3, "export": 1}
LIST_FAULT_GAP = 5
# How much of a stack may be used up when nothing is done yet, and how much faster than the batches it goes:
# spread over the run, but through with before there are too few batches left to meet the last faults.
HEAD_START, PACE = 0.15, 1.3


@dataclass(frozen=True)
class Hit:
    """A fault that met its request."""

    card: Card
    fault: Fault


class Feeder:
    """Keeps one fault of each stack scripted until the stack is used up.

    :param gaps: the most requests between two faults of a stack
    :param head_start: how much of a stack may be used up when nothing is done yet
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
        # One generator for each stack, so that what one stack draws does not hang on the pace of another.
        self._stacks = deal(amounts, random.Random(seed))
        self._rngs = {name: random.Random(f"{seed} {name}") for name in self._stacks}
        self._sizes = {name: len(stack) for name, stack in self._stacks.items()}
        self._scripted: dict[str, Hit] = {}
        self.hits: list[Hit] = []

    def step(self, done: float) -> list[Hit]:
        """Replace the faults that were used since the last step; return these.

        :param done: the part of all batches that is through
        """
        fresh, unspent = [], 1 - min(1.0, self._head_start + PACE * done)
        for name, stack in self._stacks.items():
            if (hit := self._scripted.get(name)) and hit.fault.used:
                fresh.append(self._scripted.pop(name))
            if name not in self._scripted and len(stack) > unspent * self._sizes[name]:
                self._scripted[name] = self._script(name, stack.pop())
        self.hits += fresh
        return fresh

    def _script(self, name: str, card: Card) -> Hit:
        gap = self._rngs[name].randint(0, self._gaps.get(name, LIST_FAULT_GAP))
        fault = self._sandbox.fault(
            card.kind, endpoint=card.endpoint, after=gap, accepted=card.accepted, **dict(card.args)
        )
        return Hit(card, fault)

    @property
    def left(self) -> int:
        """How many faults have not happened yet."""
        return sum(map(len, self._stacks.values())) + len(self._scripted)

    @property
    def by_name(self) -> Counter[str]:
        """How often each kind has happened."""
        return Counter(hit.card.name for hit in self.hits)

    @property
    def by_family(self) -> Counter[tuple[str, str]]:
        """How often each kind has happened to each family of requests."""
        return Counter((hit.card.name, hit.card.family) for hit in self.hits)

"""Every sequence, up to four attempts, of what the API may do and where the process may die.

In every one: bought at most once, unless the list failed or the user asked again; and nothing ends in silence.
Attempts that leave the same behind have the same future, so each future is tried once and counted as often as it
is reached.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import pytest

from machfive_provider.purchase import buy
from machfive_provider.purchase.decision import Policy, SearchResult
from tests.purchase.world import Rules, State, World, every

RESUBMISSIONS = 2


@dataclass
class Found:
    """What became of all sequences from one point on."""

    sequences: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    examples: list[str] = field(default_factory=list)


def problem(rules: Rules, state: State) -> str | None:
    """Say what is wrong with how a sequence ended, if anything."""
    usable = Counter(each.round for each in state.bought if each.kind != "fails")
    asked_again = rules.policy.on_existing_list == "resubmit"
    twice = max(usable.values(), default=0) > 1 if asked_again else sum(usable.values()) > 1
    # Only these two cannot be recognised by anybody, so there the user must have been told.
    excused = any(each.kind in ("too late", "name cut") for each in state.bought)
    if twice and not (excused and state.told):
        return "bought twice" + (", and nobody was told" if excused else "")
    if not asked_again and len(state.bought) - sum(usable.values()) > RESUBMISSIONS + 1:
        return "failed lists were bought again without end"
    if state.succeeded and not usable:
        return "a success without a list"
    return None


def explore(rules: Rules, tries: int) -> Found:
    """Try all sequences of up to so many attempts."""

    @cache
    def from_here(state: State, left: int) -> Found:
        found = Found()
        for (end, after), story in every(lambda choices: World(rules, state, choices).attempt()):
            if left > 1 and not end.endswith("the end"):
                later = from_here(after, left - 1)
                found.sequences += later.sequences
                found.ends += later.ends
                found.wrong += later.wrong
                found.examples += [f"{', '.join(story)} -> {end} | {each}" for each in later.examples]
            else:
                found.sequences += 1
                found.ends[end] += 1
                if wrong := problem(rules, after):
                    found.wrong += 1
                    found.examples.append(f"{', '.join(story)} -> {end}: {wrong}")
            del found.examples[3:]
        return found

    return from_here(State(), tries)


CASES = {
    "no state store": (Rules(False, Policy("adopt", RESUBMISSIONS)), 4),
    "state store": (Rules(True, Policy("adopt", RESUBMISSIONS)), 4),
    "cleared, no state store": (Rules(False, Policy("adopt", RESUBMISSIONS), clears=True), 3),
    "cleared, state store": (Rules(True, Policy("adopt", RESUBMISSIONS), clears=True), 3),
    "resubmit, no state store": (Rules(False, Policy("resubmit", RESUBMISSIONS), clears=True), 3),
    "resubmit, state store": (Rules(True, Policy("resubmit", RESUBMISSIONS), clears=True), 3),
    "fail, no state store": (Rules(False, Policy("fail", RESUBMISSIONS), clears=True), 3),
    "fail, state store": (Rules(True, Policy("fail", RESUBMISSIONS), clears=True), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_bought_at_most_once_and_never_in_silence(case: str, capsys: pytest.CaptureFixture[str]):
    found = explore(*CASES[case])
    with capsys.disabled():
        print(f"\n  {case}: {found.sequences:,} sequences covered, {found.wrong} wrong")
    assert not found.wrong, "\n".join(found.examples)
    assert found.sequences >= 10_000
    # Each attempt ended in a success, in a typed error, or in the death of its process: never in nothing.
    assert {end.removesuffix(", the end") for end in found.ends} >= {"success", "died", "AmbiguousSubmissionError"}


@pytest.mark.parametrize("case", ["no state store", "resubmit, state store"])
def test_without_the_search_it_finds_double_purchases(case: str, monkeypatch: pytest.MonkeyPatch):
    """The enumeration can fail: with the search gone, it does."""
    monkeypatch.setattr(buy, "_search", lambda *_: SearchResult())
    found = explore(*CASES[case])
    assert found.wrong > 1000
    assert "bought twice" in "\n".join(found.examples)

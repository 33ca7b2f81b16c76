"""Every sequence of what the API may do, where the process may die, and what a user may edit and clear.

In every one, of up to four tries: bought at most once, unless the list failed or the user asked again; nothing ends in
silence, and nothing in the advice to do what the user has just done. Attempts that leave the same behind have the same
future, so each future is tried once and counted as often as it is reached.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache

import pytest

from machfive_provider.purchase import buy
from machfive_provider.purchase.decision import SearchResult
from machfive_provider.purchase.purchase import SINGLE
from tests.purchase.world import Rules, State, World, every

CLEARED = ("is cleared",)
RUNNING = ("is cleared while it runs", "is cleared while it runs, max_tries stays")
EMPTIED = ("is cleared", "is cleared, the store is emptied")


@dataclass
class Found:
    """What became of all sequences from one point on."""

    sequences: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    examples: list[str] = field(default_factory=list)


def problem(rules: Rules, state: State, end: str) -> str | None:
    """Say what is wrong with how a sequence ended, if anything."""
    if "just done" in end:
        return "an advice that was just followed"
    usable = [each for each in state.bought if each.kind != "fails"]
    by_wish, by_what = Counter(each.asked for each in usable), Counter(each.what for each in usable)
    adopts = rules.policy != "resubmit" and "resubmit" not in rules.edits
    twice = max(by_wish.values(), default=0) > 1 or (adopts and max(by_what.values(), default=0) > 1)
    # Only these two cannot be recognised by anybody, so there the user must have been told.
    excused = any(each.kind in ("too late", "name cut") for each in state.bought)
    if twice and not (excused and state.told):
        return "bought twice" + (", and nobody was told" if excused else "")
    failed = Counter((each.asked, each.what) for each in state.bought if each.kind == "fails")
    if max(failed.values(), default=0) > rules.max_resubmissions + 1:
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
                if wrong := problem(rules, after, end):
                    found.wrong += 1
                    found.examples.append(f"{', '.join(story)} -> {end}: {wrong}")
            del found.examples[3:]
        return found

    start = State(policy=rules.policy, call=SINGLE if rules.single else "generate-batch")
    return from_here(start, tries)


ANYWHERE = Rules(store=False)
# What users do is tried with fewer kinds of trouble, so that there are not too many sequences.
FEW = Rules(False, kinds=("plain", "late", "fails"), deaths=("after the POST", "before the record"))
FEWEST = replace(FEW, kinds=("late", "fails"), deaths=("after the POST",))
WORLDS: dict[str, tuple[Rules, int]] = {
    "alone": (ANYWHERE, 4),
    "cleared": (replace(ANYWHERE, clears=CLEARED), 3),
    "resubmit": (replace(ANYWHERE, policy="resubmit", clears=CLEARED, kinds=("plain", "late", "fails")), 3),
    "fail": (replace(ANYWHERE, policy="fail", clears=CLEARED, kinds=("plain", "late", "fails")), 3),
    "mapped": (replace(FEW, mapped=True, clears=CLEARED), 3),
    "cleared while it runs": (replace(FEW, clears=RUNNING), 3),
    "resubmit, cleared while it runs": (replace(FEW, policy="resubmit", clears=RUNNING), 3),
    "edited": (replace(FEW, edits=("other leads", "other options", "other campaign")), 3),
    "edited, cleared": (replace(FEWEST, edits=("other leads",), clears=(*CLEARED, *RUNNING)), 3),
    "edited, mapped": (replace(FEWEST, edits=("other leads",), clears=CLEARED, mapped=True), 3),
    "retries": (replace(FEWEST, edits=("retries 1",), clears=CLEARED), 4),
    "retries, resubmit": (replace(FEWEST, policy="resubmit", edits=("retries 5", "retries 1"), clears=CLEARED), 3),
    "policy": (replace(FEWEST, edits=("adopt", "resubmit", "fail"), clears=CLEARED), 3),
    "single lead, mode": (replace(FEW, edits=("other mode",), clears=CLEARED, single=True), 3),
}
CASES = {
    f"{name}, {'store' if store else 'no store'}": (replace(rules, store=store), tries)
    for name, (rules, tries) in WORLDS.items()
    for store in (False, True)
} | {
    "the store is emptied": (replace(FEW, store=True, edits=("the store is emptied",), clears=EMPTIED), 3),
    "the store is emptied, edited": (replace(FEWEST, store=True, edits=("the store is emptied", "other leads")), 4),
}


@pytest.mark.parametrize("case", CASES)
def test_bought_at_most_once_and_never_in_silence(case: str, capsys: pytest.CaptureFixture[str]):
    found = explore(*CASES[case])
    with capsys.disabled():
        print(f"\n  {case}: {found.sequences:,} sequences covered, {found.wrong} wrong")
    assert not found.wrong, "\n".join(found.examples)
    assert found.sequences >= 2_000
    # Each attempt ended in a success, in a typed error, or in the death of its process: never in nothing.
    assert {end.removesuffix(", the end") for end in found.ends} >= {"success", "died", "AmbiguousSubmissionError"}


@pytest.mark.parametrize("case", ["alone, no store", "resubmit, store"])
def test_without_the_search_it_finds_double_purchases(case: str, monkeypatch: pytest.MonkeyPatch):
    """The enumeration can fail: with the search gone, it does."""
    monkeypatch.setattr(buy, "_search", lambda *_: SearchResult())
    found = explore(*CASES[case])
    assert found.wrong > 1000
    assert "bought twice" in "\n".join(found.examples)

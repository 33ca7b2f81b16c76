"""Who may submit next."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.waiting.capacity_queue import CapacityQueue, QueuePosition, Waiter

T0 = 1_770_000_000.0
NONE: frozenset[str] = frozenset()


def lists(*names: int | str) -> frozenset[str]:
    return frozenset(map(str, names))


def in_order(queue: CapacityQueue) -> list[float]:
    """Return when those that wait first asked, in order."""
    return [waiter.asked_at - T0 for waiter, _ in queue.positions(T0)]


def granted(waiters: list[Waiter]) -> list[float]:
    return [each.asked_at - T0 for each in waiters]


def queue_of(*asked: float, limit: int | None = None, hint: int | None = None) -> CapacityQueue:
    """Return a queue with waiters, refused just now where there is a limit."""
    queue = CapacityQueue(hint)
    for each in asked:
        queue.join(T0 + each, T0, limit)
    return queue


# --- the queue


def test_the_order_is_that_of_the_first_asking():
    queue = queue_of(5, 1, 3, limit=9)
    assert in_order(queue) == [1, 3, 5]
    assert granted(queue.update(lists(*range(7)), T0)) == [1, 3]
    assert in_order(queue) == [5]
    queue = CapacityQueue(hint=1)
    first, second = queue.join(T0, T0), queue.join(T0, T0)  # equals by arrival
    assert queue.update(NONE, T0) == [first]
    assert [waiter for waiter, _ in queue.positions(T0)] == [second]


def test_one_that_was_refused_is_first_again():
    queue = queue_of(1, 2, 3, limit=1)
    assert granted(queue.update(NONE, T0)) == [1]
    queue.join(T0 + 1, T0 + 5, limit=1)
    assert in_order(queue) == [1, 2, 3]
    assert queue.update(lists("x"), T0 + 6) == []
    assert granted(queue.update(NONE, T0 + 7)) == [1]


def test_a_waiter_that_leaves_is_granted_nothing():
    queue = CapacityQueue(hint=1)
    gone, stays = queue.join(T0, T0), queue.join(T0 + 1, T0)
    queue.leave(gone)
    assert queue.update(NONE, T0) == [stays]


def test_positions():
    queue = queue_of(1, 2, limit=4)
    queue.update(lists(*range(4)), T0)
    assert [position for _, position in queue.positions(T0)] == [QueuePosition(1, 2, 4, 4), QueuePosition(2, 2, 4, 4)]
    assert [position.limit for _, position in queue.positions(T0 + 600)] == [5, 5]


# --- reservations


def test_a_slot_is_reserved_until_a_new_list_appears():
    queue = queue_of(1, 2, limit=3)
    assert granted(queue.update(lists("a", "b"), T0)) == [1]
    for later in range(1, 60, 7):
        assert queue.update(lists("a", "b"), T0 + later) == []
    assert queue.update(lists("a", "b", "c"), T0 + 59) == []
    assert granted(queue.update(lists("a", "b"), T0 + 59.5)) == [2]


def test_a_reservation_ends_after_a_minute():
    queue = queue_of(1, 2, limit=1)
    queue.update(NONE, T0)
    assert queue.update(NONE, T0 + 59.9) == []
    assert granted(queue.update(NONE, T0 + 60)) == [2]
    queue = queue_of(1, 2, hint=1)
    queue.update(NONE, T0)
    assert granted(queue.update(NONE, T0 - 3600)) == [2]  # the clock was set back


def test_each_new_list_uses_up_one_reservation():
    queue = queue_of(1, 2, 3, 4, 5, limit=3)
    assert granted(queue.update(NONE, T0)) == [1, 2, 3]
    assert queue.update(lists("a"), T0 + 1) == []
    assert queue.update(lists("a", "b"), T0 + 2) == []
    assert granted(queue.update(NONE, T0 + 3)) == [4, 5]  # the third still has its slot


def test_cancelled_after_a_slot_was_granted():
    queue = queue_of(1, 2, limit=1)
    (first,) = queue.update(NONE, T0)
    queue.leave(first)
    assert granted(queue.update(NONE, T0 + 1)) == [2]


def test_reservation_and_limit_outlive_the_waiters():
    queue = queue_of(1, limit=1)
    queue.update(NONE, T0)
    queue.join(T0 + 2, T0 + 10)
    assert queue.limit(T0 + 10) == 1
    assert queue.update(NONE, T0 + 10) == []
    assert queue.update(lists("first"), T0 + 11) == []
    assert granted(queue.update(NONE, T0 + 12)) == [2]


def test_another_client_takes_the_slot():
    queue = queue_of(1, 2, limit=3)
    assert granted(queue.update(lists("a", "b"), T0)) == [1]
    assert queue.update(lists("a", "b", "theirs"), T0 + 1) == []
    queue.join(T0 + 1, T0 + 2, limit=3)
    assert queue.update(lists("a", "b", "theirs"), T0 + 3) == []
    assert granted(queue.update(lists("a", "b"), T0 + 4)) == [1]


def test_a_slot_that_was_given_back_is_granted_again():
    """Its task read, right before its POST, that a task from another triggerer had taken the slot."""
    queue = queue_of(1, limit=3)
    assert granted(queue.update(lists("a", "b"), T0)) == [1]
    queue.join(T0 + 1, T0 + 3, granted_limit=3)
    assert granted(queue.update(lists("a", "b", "c"), T0 + 4)) == []
    assert granted(queue.update(lists("a", "c"), T0 + 20)) == [1]


def test_a_limit_comes_from_another_triggerer_with_a_task():
    queue = CapacityQueue()
    queue.join(T0 + 1, T0, granted_limit=3)
    assert queue.limit(T0) == 3
    queue.join(T0 + 2, T0 + 500, granted_limit=3)
    assert queue.limit(T0 + 600) == 4  # one more is tried, however often tasks come back with it
    queue.join(T0 + 3, T0 + 601, granted_limit=3)
    assert queue.limit(T0 + 601) == 4


def test_a_refusal_tells_whose_list_was_counted_for_the_refused_one():
    """A hint that is too high grants three slots; two tasks get in, and the API does not say which."""
    queue = queue_of(1, 2, 3, 4, hint=3)
    assert granted(queue.update(NONE, T0)) == [1, 2, 3]
    assert queue.update(lists("a", "b"), T0 + 1) == []
    queue.join(T0 + 1, T0 + 2, limit=2)  # a and b are those of 2 and 3
    assert granted(queue.update(lists("a"), T0 + 3)) == [1]


def test_refused_by_a_workspace_that_looks_empty():
    """What fills it may not be listed yet. One task tries at every read, and more as soon as one got in."""
    queue = queue_of(1, 2, 3, limit=2)
    assert granted(queue.update(NONE, T0)) == [1, 2]
    for asked in (1, 2):
        queue.join(T0 + asked, T0 + 5, limit=0)
    assert queue.limit(T0 + 5) is None
    assert granted(queue.update(NONE, T0 + 6)) == [1]
    queue.join(T0 + 1, T0 + 7, limit=0)
    assert granted(queue.update(NONE, T0 + 8)) == [1]
    assert granted(queue.update(lists("a"), T0 + 10)) == [2, 3]


# --- the limit


def test_while_the_limit_is_unknown_ever_more_try_until_one_is_refused():
    queue = queue_of(1, 2, 3, 4, 5)
    assert granted(queue.update(lists("a"), T0)) == [1]
    assert queue.update(lists("a"), T0 + 1) == []
    assert granted(queue.update(lists("a", "b"), T0 + 2)) == [2, 3]  # it got in
    assert granted(queue.update(lists("b", "c"), T0 + 3)) == [4, 5]  # so did one of them, the other has a minute
    queue.join(T0 + 3, T0 + 4, limit=3)  # that one did not
    assert queue.update(lists("b", "c", "d"), T0 + 5) == []


def test_one_list_lets_one_more_try_whoever_submitted_it():
    queue = queue_of(1, 2, 3, 4, 5)
    assert granted(queue.update(NONE, T0)) == [1]
    assert granted(queue.update(lists("theirs"), T0 + 1)) == [2, 3]
    queue.join(T0 + 1, T0 + 2, not_before=T0 + 10)  # so the list was not that of 1: it counts for 2
    assert granted(queue.update(lists("theirs"), T0 + 10)) == [1]


def test_a_learned_limit_counts_for_ten_minutes():
    queue = queue_of(1, limit=3)
    assert queue.limit(T0 + 599) == 3
    assert queue.limit(T0 + 600) == 3 + 1
    queue.hint = 6
    assert (queue.limit(T0 + 599), queue.limit(T0 + 600)) == (3, 6)


@pytest.mark.parametrize("limit", [None, 5])
def test_a_limit_is_not_lower_than_what_ran_within_ten_minutes(limit: int | None):
    """Refused by a full workspace, of whose batches two ended, or were not listed yet, when they were counted."""
    queue = queue_of(1, limit=limit)
    queue.update(lists(*range(5)), T0)
    queue.join(T0 + 2, T0 + 599, limit=3)
    assert queue.limit(T0 + 599) == 5
    queue.join(T0 + 3, T0 + 601, limit=3)  # MachFive may have lowered it
    assert queue.limit(T0 + 601) == 3


def test_a_raised_limit_is_found_out():
    queue = queue_of(1, 2, 3, limit=3)
    full = lists("a", "b", "c")
    assert queue.update(full, T0 + 599) == []
    assert granted(queue.update(full, T0 + 600)) == [1]
    assert granted(queue.update(full | {"d"}, T0 + 620)) == [2]  # it got in
    queue.join(T0 + 2, T0 + 621, limit=4)  # that one did not
    assert queue.update(full | {"d"}, T0 + 640) == []
    assert granted(queue.update(lists("d"), T0 + 660)) == [2, 3]


def test_an_old_limit_leaves_no_slot_empty():
    """MachFive refuses nobody while slots are empty, so nobody would find the limit out again."""
    queue = queue_of(1, 2, 3, limit=3)
    assert granted(queue.update(NONE, T0 + 600)) == [1, 2, 3]


def test_more_than_the_limit_may_run():
    queue = queue_of(1, limit=3)
    assert queue.update(lists(*range(5)), T0) == []
    assert queue.limit(T0) == 5
    assert granted(queue.update(lists(*range(4)), T0 + 1)) == [1]
    unknown = CapacityQueue()
    unknown.update(lists(*range(5)), T0)
    assert unknown.limit(T0) is None  # what runs is no limit by itself


# --- pauses


def test_nothing_is_granted_in_a_pause():
    queue = queue_of(1, limit=3)
    queue.join(T0 + 2, T0, not_before=T0 + 30)
    assert queue.update(NONE, T0 + 29) == []
    assert queue.paused_for(T0 + 29) == 1
    queue.pause(T0 + 10, T0)  # a shorter one does not end it
    assert queue.update(NONE, T0 + 29.9) == []
    assert granted(queue.update(NONE, T0 + 30)) == [1, 2]
    queue.pause(T0 + 1e9, T0)  # an absurd one lasts an hour
    assert queue.paused_for(T0) == 3600


def test_a_task_that_was_rate_limited_keeps_no_slot_meanwhile():
    queue = queue_of(1, 2, limit=2)
    queue.update(lists("a"), T0)
    queue.join(T0 + 1, T0 + 1, not_before=T0 + 10)
    assert granted(queue.update(lists("a"), T0 + 10)) == [1]


# --- any order of events

NOW = st.floats(0, 30)
IDS = st.frozensets(st.integers(0, 12).map(str), max_size=6)
STEP = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 20), st.none() | st.integers(0, 5), st.floats(-5, 20)),
    st.tuples(st.just("leave"), st.integers(0, 30)),
    st.tuples(st.just("update"), IDS),
    st.tuples(st.just("hint"), st.none() | st.integers(1, 5)),
    st.tuples(st.just("time"), st.floats(0, 700)),
)


@given(st.lists(STEP, max_size=60))
def test_never_more_than_there_is_room_for_and_nobody_lost(steps: list[tuple[Any, ...]]):
    queue, now, here, gone = CapacityQueue(), T0, [], []
    seen, appeared = NONE, 0
    for step in steps:
        match step:
            case ("join", asked, limit, after):
                here.append(queue.join(T0 + asked, now, limit, now + after))
            case ("leave", number) if here or gone:
                (either := [*here, *gone]).sort(key=lambda each: each.arrival)
                left = either[number % len(either)]
                queue.leave(left)
                here, gone = ([each for each in some if each is not left] for some in (here, gone))
            case ("hint", hint):
                queue.hint = hint
            case ("time", seconds):
                now += seconds
            case ("update", active):
                paused, before = queue.paused_for(now), queue.limit(now)
                seen, appeared = active, appeared + len(active - seen)
                lately = queue.update(active, now)
                limit = queue.limit(now)
                assert (before is None) == (limit is None)
                assert not (paused and lately)
                assert len(lately) <= (1 + appeared if limit is None else max(0, limit - len(active)))
                here.sort(key=lambda each: (each.asked_at, each.arrival))
                assert lately == here[: len(lately)]
                here, gone = here[len(lately) :], [*gone, *lately]
        assert [waiter for waiter, _ in queue.positions(now)] == sorted(
            here, key=lambda each: (each.asked_at, each.arrival)
        )


@dataclass
class Workspace:
    """A workspace with a limit that nobody is told, lists that end by themselves, and other clients."""

    limit: int
    rng: random.Random
    longest: int
    running: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    names: Iterator[int] = field(default_factory=itertools.count)

    def submit(self) -> bool:
        if len(self.running) >= self.limit:
            self.refused += 1
            return False
        name = str(next(self.names))
        self.running[name] = self.rng.randint(1, self.longest)
        return True

    def time_passes(self) -> None:
        self.running = {name: left - 1 for name, left in self.running.items() if left > 1}


@given(
    st.integers(1, 5),
    st.integers(1, 25),
    st.sampled_from(["hint", "wrong hint", "refused", "nothing"]),
    st.booleans(),
    st.integers(2, 7),
    # True, because hypothesis' own random lets others take every free slot for ever.
    st.randoms(use_true_random=True),
)
def test_everybody_gets_in(limit: int, tasks: int, known: str, others: bool, longest: int, rng: random.Random):
    workspace = Workspace(limit, rng, longest)
    queue = CapacityQueue({"hint": limit, "wrong hint": 5}.get(known))
    now, accepted, starting = T0, [], []
    for each in rng.sample(range(tasks), tasks):
        queue.join(T0 + each, now, limit if known == "refused" else None)
    for _ in range(400):
        active = frozenset(workspace.running)
        starting += [(each, rng.randint(0, 2)) for each in queue.update(active, now)]
        now += 18
        if others and rng.random() < 0.2:
            workspace.submit()
        ready = [each for each, delay in starting if not delay]
        starting = [(each, delay - 1) for each, delay in starting if delay]
        for each in ready:
            if workspace.submit():
                accepted.append(each.asked_at - T0)
            else:
                queue.join(each.asked_at, now, len(workspace.running))
        workspace.time_passes()
        if len(accepted) == tasks:
            break
    assert sorted(accepted) == list(range(tasks))
    if known == "hint" and not others:
        assert workspace.refused == 0  # what is learned is forgotten now and then, and tried

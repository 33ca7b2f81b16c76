"""Who is due when: pure bookkeeping, its clock being an argument."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.waiting.wishes import NEVER, Wish, Wishes


def wish(due: float, **known: Any) -> Wish:
    defaults = {"interval": 100.0, "deadline": NEVER, "known": "processing", "quiet_until": NEVER, "looked_at": 0.0}
    return Wish(answer=asyncio.get_running_loop().create_future(), due=due, **{**defaults, **known})


def given(**by_list: Wish | list[Wish]) -> Wishes:
    wishes = Wishes()
    for list_id, each in by_list.items():
        for one in each if isinstance(each, list) else [each]:
            wishes.add(list_id, one)
    return wishes


def seen(status: str) -> LeadList:
    return LeadList("x", status)


async def test_what_is_due_soon_is_looked_at_with_the_others():
    wishes = given(now=wish(1000), soon=wish(1025), later=wish(1026), held=wish(NEVER))
    assert wishes.due(1000) == ["now", "soon"]


async def test_soon_is_less_near_a_deadline():
    """A look that is due a moment after the last one is not due at once."""
    wishes = given(a=wish(1020, looked_at=1000), b=wish(1005, looked_at=985))
    assert wishes.due(1000) == ["b"]


async def test_those_not_looked_at_for_longest_come_first():
    wishes = given(a=wish(0, looked_at=3), b=wish(0, looked_at=1), c=wish(0, looked_at=2), d=[wish(0, looked_at=9)] * 2)
    assert wishes.due(1000) == ["b", "c", "a", "d"]


async def test_a_look_that_is_no_news_puts_off_the_next():
    one = wish(1000)
    given(a=one).saw("a", seen("processing"), 1000, 1001)
    assert not one.answer.done()
    assert (one.due, one.looked_at) == (1100, 1000)


@pytest.mark.parametrize(
    ("deadline", "now", "due"),
    [(1040, 1001, 1040), (1010, 1001, 1026), (900, 1001, 1026), (NEVER, 1300, 1325)],
    ids=["at the deadline", "never at once", "not even past it", "nor after a long round"],
)
async def test_the_next_look(deadline: float, now: float, due: float):
    one = wish(1000, deadline=deadline)
    given(a=one).saw("a", seen("processing"), 1000, now)
    assert one.due == due


@pytest.mark.parametrize(("status", "now"), [("pending", 1001), ("completed", 1001), ("processing", 2000)])
async def test_news_is_told_once(status: str, now: float):
    one = wish(1000, quiet_until=2000)
    wishes = given(a=one)
    wishes.saw("a", seen(status), 1000, now)
    wishes.saw("a", seen("failed"), 1001, now)
    wishes.tell("a", exceptions.ServerError("down"), 1002)
    assert await one.answer == (seen(status), 1000)
    assert one.due == NEVER


async def test_trouble_is_told_to_all_who_wait_for_the_list():
    mine, yours, other = wish(1000), wish(5000), wish(1000)
    wishes, trouble = given(a=[mine, yours], b=other), exceptions.ServerError("down")
    wishes.tell("a", trouble, 1000)
    assert (await mine.answer).seen is trouble
    assert (await yours.answer).seen is trouble
    assert not other.answer.done()


async def test_it_is_known_when_the_next_look_is_due():
    wishes = Wishes()
    assert (wishes.next_due, wishes.shortest) == (NEVER, NEVER)
    first, second = wish(1000, interval=50.0), wish(2000)
    wishes.add("b", second)
    assert (wishes.next_due, wishes.sooner.is_set()) == (2000, True)
    wishes.sooner.clear()
    wishes.add("a", first)
    assert (wishes.next_due, wishes.shortest, wishes.sooner.is_set()) == (1000, 50, True)
    wishes.sooner.clear()
    wishes.hold(["a"])
    wishes.plan()
    assert (wishes.next_due, wishes.shortest, wishes.sooner.is_set()) == (2000, 50, False)
    wishes.put_off("a", 1000, 1001)
    assert (wishes.next_due, wishes.sooner.is_set()) == (1050, True)
    wishes.remove("a", first)
    wishes.plan()
    assert (wishes.next_due, wishes.shortest) == (2000, 100)


async def test_nothing_is_remembered_of_a_list_that_nobody_waits_for():
    mine, yours = wish(1000), wish(1000)
    wishes = given(a=[mine, yours])
    wishes.saw("a", seen("processing"), 1000, 1000)
    wishes.remove("a", mine)
    assert "a" in wishes
    assert wishes.status("a") == "processing"
    wishes.remove("a", yours)
    wishes.plan()
    assert "a" not in wishes
    assert wishes.status("a") is None


async def test_what_breaks_is_raised_in_those_who_wait():
    one, other = wish(1000), wish(1000)
    given(a=one, b=other).break_off(["a", "nobody's"], ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await one.answer
    assert not other.answer.done()

"""When pages pay, what is learned of them, and when the API is given up on in a round."""

from __future__ import annotations

import pytest

from machfive_provider import errors
from machfive_provider.api.models import LeadList
from machfive_provider.triggerer.paging import Paging, Tally, pages_for, statuses_to_page


@pytest.mark.parametrize(("due", "pays"), [(0, False), (1, False), (2, False), (3, True), (1000, True)])
def test_until_something_is_known_two_pages_are_expected(due: int, pays: bool):
    assert Paging().pays(due, 0.0) is pays


def test_what_pages_cost_is_remembered_for_a_while():
    paging = Paging()
    paging.ended(12, 100.0)
    assert not paging.pays(12, 100.0)
    assert paging.pays(13, 100.0)
    assert not paging.pays(12, 699.0)
    assert paging.pays(3, 700.0)
    paging.ended(1, 700.0)  # read no further than needed: that others have few pages is not known from it
    assert not paging.pays(2, 700.0)


def test_finding_out_costs_little_as_lists_become_more():
    """Somebody else's thousand pages: trying again at each further list would cost as much again each time."""
    paging, tried = Paging(), []
    for due in range(1, 101):
        if paging.pays(due, 0.0):
            tried.append(due)
            paging.given_up(due, 0.0)
    assert tried == [3, 7, 15, 31, 63]


def test_pages_that_fail_alone_are_distrusted_for_a_while():
    paging = Paging()
    paging.failed(0.0)
    paging.ended(3, 1.0)  # in between they worked
    paging.failed(2.0)
    assert paging.pays(100, 2.0)
    paging.failed(3.0)
    assert not paging.pays(100, 3.0)
    assert not paging.pays(100, 602.0)
    assert paging.pays(100, 603.0)
    paging.failed(603.0)
    assert paging.pays(100, 603.0)


@pytest.mark.parametrize(
    ("last_seen", "statuses"),
    [
        ([None], ("pending", "processing")),
        (["pending", "processing"], ("pending", "processing")),
        (["processing", "processing"], ("processing",)),
        (["processing", "researching"], ("processing",)),
        ([], ("processing",)),
    ],
)
def test_statuses(last_seen: list[str | None], statuses: tuple[str, ...]):
    assert statuses_to_page(last_seen) == statuses


@pytest.mark.parametrize(("lists", "pages"), [(0, 1), (1, 1), (100, 1), (101, 2), (1000, 10), (1001, 11)])
def test_pages_for(lists: int, pages: int):
    assert pages_for(lists) == pages


def lead_list(status: str) -> LeadList:
    return LeadList("x", status)


def test_confirming_ends_when_it_finds_too_many_running():
    tally = Tally(confirming=True)
    for _ in range(49):
        tally.saw(lead_list("processing"))
    for _ in range(1000):
        tally.saw(lead_list("researching"))  # which no page shows
    assert not tally.too_many
    tally.saw(lead_list("pending"))
    assert tally.too_many
    for status in ("completed", "failed"):
        tally.saw(lead_list(status))  # those that had ended make up for those that moved
    assert not tally.too_many


def test_who_does_not_confirm_has_no_limit():
    tally = Tally()
    for _ in range(1000):
        tally.saw(lead_list("processing"))
    assert not tally.too_many


def test_the_api_is_given_up_on_only_without_any_success():
    tally, trouble = Tally(), errors.ServerError("down")
    for _ in range(7):
        tally.failed(trouble)
    assert tally.hopeless is None
    tally.failed(trouble)
    assert tally.hopeless is trouble
    tally.saw(lead_list("researching"))
    assert tally.hopeless is None


def test_what_is_final_for_one_list_says_nothing_of_others():
    tally = Tally()
    for _ in range(100):
        tally.failed(errors.NotFoundError("gone"))
    assert tally.hopeless is None
    assert not tally.succeeded

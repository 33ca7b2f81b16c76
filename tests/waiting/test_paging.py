"""When pages pay, what is learned of them, and when the API is given up on in a round."""

from __future__ import annotations

import pytest

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.waiting.paging import Paging, Reading, Tally


@pytest.mark.parametrize(("due", "pays"), [(0, False), (1, False), (2, False), (3, True), (1000, True)])
def test_until_something_is_known_two_pages_are_expected(due: int, pays: bool):
    assert Paging().pays(due, 0.0) is pays


def test_what_pages_cost_is_remembered_for_a_while():
    paging = Paging()
    paging.paid(12, 100.0)
    assert not paging.pays(12, 100.0)
    assert paging.pays(13, 100.0)
    assert not paging.pays(12, 699.0)
    assert paging.pays(3, 700.0)
    paging.paid(1, 700.0)  # read no further than needed: that others have few pages is not known from it
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
    paging.paid(3, 1.0)  # in between they worked
    paging.failed(2.0)
    assert paging.pays(100, 2.0)
    paging.failed(3.0)
    assert not paging.pays(100, 3.0)
    assert not paging.pays(100, 602.0)
    assert paging.pays(100, 603.0)
    paging.failed(603.0)
    assert paging.pays(100, 603.0)


def seen_as(status: str | None, count: int, first: int = 0) -> dict[str, str | None]:
    return {f"list{first + number}": status for number in range(count)}


class Workspace:
    """Pages of lists in work, newest first; ``read`` drives a reading through them."""

    def __init__(self, **by_status: list[str]) -> None:
        self.by_status = by_status
        self.asked: list[list[tuple[str, int]]] = []

    def read(self, due: dict[str, str | None]) -> Reading:
        reading = Reading(due)
        while pages := reading.next():
            self.asked.append(pages)
            for status, offset in pages:
                page = self.by_status.get(status, [])[offset : offset + 100]
                reading.take(set(page), len(page))
        assert reading.spent == sum(map(len, self.asked))
        return reading


def others(count: int) -> list[str]:
    return [f"other{number}" for number in range(count)]


def test_a_reading_ends_when_all_are_shown():
    workspace = Workspace(processing=[*seen_as("processing", 5), *others(300)])
    reading = workspace.read(seen_as("processing", 5))
    assert workspace.asked == [[("processing", 0)]]
    assert reading.unseen == set()
    assert reading.has_paid


@pytest.mark.parametrize("status", [None, "pending"])
def test_pending_pages_are_read_first_and_only_if_one_may_be_pending(status: str | None):
    """Between the two reads a list only ever moves from the first to the second."""
    workspace = Workspace(processing=["list0", "list1", "list2"])
    assert workspace.read({**seen_as("processing", 2), "list2": status}).unseen == set()
    assert workspace.asked == [[("pending", 0)], [("processing", 0)]]


def test_what_no_page_shows_is_left_over():
    workspace = Workspace(processing=["list0", "list2"])
    reading = workspace.read(seen_as("processing", 3))
    assert reading.unseen == {"list1"}
    assert reading.was_complete
    assert reading.has_paid


def test_pages_that_are_surely_needed_are_read_at_the_same_time():
    due = seen_as("processing", 1050)
    workspace = Workspace(processing=list(due))
    assert workspace.read(due).unseen == set()
    assert [len(each) for each in workspace.asked] == [8, 3]
    assert workspace.asked[1] == [("processing", 800), ("processing", 900), ("processing", 1000)]


def test_a_list_that_ended_does_not_send_the_reading_through_everybodys_pages():
    """As many pages in vain as asking for it costs, and no more."""
    due = seen_as("processing", 150)
    workspace = Workspace(processing=[*list(due)[:70], *list(due)[71:], *others(5000)])
    reading = workspace.read(due)
    assert reading.unseen == {"list70"}
    assert reading.spent == 3
    assert reading.has_paid
    assert not reading.was_complete


def test_lists_behind_everybody_elses_are_given_up():
    workspace = Workspace(processing=[*others(5000), *seen_as("processing", 4)])
    reading = workspace.read(seen_as("processing", 4))
    assert reading.unseen == set(seen_as("processing", 4))
    assert reading.spent == 4
    assert not reading.has_paid
    assert not reading.was_complete


def test_lists_among_others_are_found():
    due = seen_as("processing", 60)
    mixed = [each for number, mine in enumerate(due) for each in (*(f"x{number}-{n}" for n in range(49)), mine)]
    workspace = Workspace(processing=mixed)
    reading = workspace.read(due)
    assert reading.unseen == set()
    assert reading.spent == 30
    assert reading.has_paid


def test_an_empty_workspace():
    workspace = Workspace()
    reading = workspace.read(seen_as("processing", 250))
    assert len(reading.unseen) == 250
    assert reading.was_complete
    assert reading.spent == 3  # expected to hold them


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
    tally, trouble = Tally(), exceptions.ServerError("down")
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
        tally.failed(exceptions.NotFoundError("gone"))
    assert tally.hopeless is None
    assert not tally.succeeded

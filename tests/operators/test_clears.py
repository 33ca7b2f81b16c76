"""What a clear, a run created anew, reordered shards and a user's wish to pay again make of what was bought."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pendulum
import pytest

from machfive_provider import exceptions
from machfive_provider.operators.generate import MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from tests.clock import Clock
from tests.tasks import LEADS, Logs, Run, StateStore, batch

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
STORES = pytest.mark.parametrize("stored", [False, True], ids=["no store", "store"])
HOURS = 6 * 3600.0
CHANGED = [{**LEADS[0], "title": "CEO"}, *LEADS[1:]]


@pytest.fixture
def sandbox(timed_sandbox: Sandbox, connect: Connect) -> Sandbox:
    """Give the sandbox that lives by the test's clock, connected."""
    connect(timed_sandbox)
    return timed_sandbox


def after_clear(operator: Any, clock: Clock, tries: int = 1, *, hours: float = HOURS, **more: Any) -> Run:
    """Return the first try after a clear, hours later; ``tries`` were made before it, and the run has begun anew."""
    clock.advance(hours)
    return Run(operator, try_number=tries + 1, clears=tries, began=pendulum.from_timestamp(clock()), **more)


def posts(sandbox: Sandbox) -> int:
    return len(sandbox.requests_to("generate-batch")) + len(sandbox.requests_to("generate"))


@MODES
@STORES
def test_clearing_what_finished_hours_ago_pays_nothing_and_writes_the_same(
    deferrable: bool, stored: bool, sandbox: Sandbox, clock: Clock, tmp_path: Path
):
    target, store = tmp_path / "emails.jsonl", StateStore() if stored else None
    operator = batch(sandbox, deferrable=deferrable, export_to=str(target))
    first = Run(operator, store=store)
    list_id, content = first(), target.read_bytes()
    again = after_clear(operator, clock, store=store)
    assert again() == list_id
    assert target.read_bytes() == content
    assert again.xcoms["machfive_export"] == first.xcoms["machfive_export"]
    assert again.xcoms["machfive_batch"] == {**first.xcoms["machfive_batch"], "bought": False}
    assert posts(sandbox) == 1


@STORES
def test_clearing_a_single_lead_pays_nothing(stored: bool, sandbox: Sandbox, clock: Clock):
    store = StateStore() if stored else None
    operator = MachFiveGenerateOperator(task_id="write", lead=dict(LEADS[0]), campaign_id=sandbox.campaign_id)
    first = Run(operator, store=store)()
    again = after_clear(operator, clock, store=store)()
    assert again == {"list_id": first["list_id"], "sequence": first["sequence"]}
    assert posts(sandbox) == 1


@MODES
@STORES
def test_changing_a_lead_and_clearing_buys_the_new_ones_once(
    deferrable: bool, stored: bool, sandbox: Sandbox, clock: Clock
):
    store = StateStore() if stored else None
    first = Run(batch(sandbox, deferrable=deferrable), store=store)()
    changed = batch(sandbox, deferrable=deferrable, leads=CHANGED)
    second = after_clear(changed, clock, store=store)()
    assert second != first
    # A retry within the same round: the old leads' list lies before the round, so it is no obstacle.
    began = pendulum.from_timestamp(clock())
    assert Run(changed, store=store, try_number=3, clears=1, began=began)() == second
    assert posts(sandbox) == len(sandbox.purchases) == 2


@STORES
def test_new_leads_after_a_clear_are_bought_by_a_retry_as_well(stored: bool, sandbox: Sandbox, clock: Clock):
    """The first try after the clear fails before it buys: the next one must still tell the rounds apart."""
    store = StateStore() if stored else None
    first = Run(batch(sandbox), store=store)()
    changed = batch(sandbox, leads=CHANGED)
    sandbox.fault("status", endpoint="lists", times=10, status=500)
    opening = after_clear(changed, clock, store=store)
    with pytest.raises(exceptions.ServerError):
        opening()
    sandbox.clear_faults()
    began = opening.context["dag_run"].start_date
    assert Run(changed, store=store, try_number=3, clears=1, began=began)() != first
    assert posts(sandbox) == 2


def test_changing_a_lead_between_two_tries_is_refused(sandbox: Sandbox):
    first = Run(batch(sandbox))()
    with pytest.raises(exceptions.MachFivePermanentError, match="leads or options changed") as caught:
        Run(batch(sandbox, leads=CHANGED), try_number=2)()
    assert first in caught.value.message
    assert posts(sandbox) == 1


@MODES
def test_a_clear_in_doubt_looks_on_as_a_retry_does(deferrable: bool, sandbox: Sandbox, clock: Clock, logs: Logs):
    """The user clears at once, while the list of the lost answer cannot be seen yet."""
    operator = batch(sandbox, deferrable=deferrable)
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        Run(operator)()
    assert after_clear(operator, clock, hours=1.0)() == sandbox.purchases[0].list_id
    assert "before buying" in logs.text
    assert posts(sandbox) == 1


@MODES
@STORES
def test_a_run_deleted_and_created_again_pays_nothing(deferrable: bool, stored: bool, sandbox: Sandbox, clock: Clock):
    """The same run_id, the first try again, and no records of any: the name of the list is what remains."""
    operator = batch(sandbox, deferrable=deferrable)
    first = Run(operator, run_id="scheduled__1", store=StateStore() if stored else None)()
    clock.advance(HOURS)
    again = Run(operator, run_id="scheduled__1", store=StateStore() if stored else None)
    assert again() == first
    assert again.xcoms["machfive_batch"]["bought"] is False
    assert posts(sandbox) == 1


@MODES
@STORES
def test_reordered_shards_pay_nothing(deferrable: bool, stored: bool, sandbox: Sandbox):
    """Upstream gives the shards in another order on the next try: what each buys tells them apart."""
    stores = [StateStore() if stored else None for _ in LEADS]

    def shard(index: int, lead: Any, try_number: int) -> Any:
        operator = batch(sandbox, leads=[lead], deferrable=deferrable)
        return Run(operator, map_index=index, try_number=try_number, store=stores[index])()

    first = {lead["email"]: shard(index, lead, 1) for index, lead in enumerate(LEADS)}
    again = {lead["email"]: shard(index, lead, 2) for index, lead in enumerate(LEADS[::-1])}
    assert again == first
    assert len(set(first.values())) == posts(sandbox) == len(LEADS)


@MODES
@STORES
def test_a_shard_that_gets_new_leads_on_its_next_try_buys_them(deferrable: bool, stored: bool, sandbox: Sandbox):
    """What another shard bought under the same task is no change of this one's leads."""
    store = StateStore() if stored else None
    Run(batch(sandbox, leads=[LEADS[0]], deferrable=deferrable), map_index=0, store=store)()
    second = Run(batch(sandbox, leads=[LEADS[1]], deferrable=deferrable), map_index=0, try_number=2, store=store)
    assert second() == sandbox.purchases[1].list_id
    assert posts(sandbox) == 2


def test_two_equal_shards_share_a_list(sandbox: Sandbox):
    assert Run(batch(sandbox), map_index=0)() == Run(batch(sandbox), map_index=1)()
    assert posts(sandbox) == 1


def test_leads_in_another_order_are_the_same_purchase(sandbox: Sandbox):
    first = Run(batch(sandbox))()
    assert Run(batch(sandbox, leads=list(LEADS[::-1])), try_number=2)() == first
    assert posts(sandbox) == 1


@pytest.mark.parametrize(
    "list_name",
    ["x" * 300, "Frühjahrsmesse " * 20, "春の見本市" * 40, "🦆" * 120, "e\u0301" * 90, "[af1:" * 30, "a\nb\tc", None],
    ids=["long", "accents", "Japanese", "ducks", "combining", "tag-like", "white space", "none"],
)
def test_any_list_name_survives_adoption(list_name: str | None, sandbox: Sandbox, clock: Clock):
    operator = batch(sandbox, list_name=list_name)
    first = Run(operator)
    list_id = first()
    again = after_clear(operator, clock)
    assert again() == list_id
    assert again.xcoms["machfive_batch"]["list_name"] == first.xcoms["machfive_batch"]["list_name"]
    assert len(sandbox.purchases[0].list_name or "") <= 100
    assert posts(sandbox) == 1


def test_another_list_name_is_the_same_purchase(sandbox: Sandbox, clock: Clock):
    first = Run(batch(sandbox, list_name="Spring fair"))()
    assert after_clear(batch(sandbox, list_name="Autumn fair"), clock)() == first
    assert posts(sandbox) == 1


@MODES
@STORES
def test_resubmit_pays_once_for_each_clear_and_never_for_a_retry(
    deferrable: bool, stored: bool, sandbox: Sandbox, clock: Clock, logs: Logs
):
    store = StateStore() if stored else None
    operator = batch(sandbox, on_existing_list="resubmit", deferrable=deferrable, retries=2)
    lists = [Run(operator, store=store)()]
    assert Run(operator, store=store, try_number=2)() == lists[0]
    for tries in (2, 4):
        lists.append(after_clear(operator, clock, tries, store=store)())
        assert Run(operator, store=store, try_number=tries + 2, clears=tries)() == lists[-1]
    assert len(set(lists)) == len(lists) == posts(sandbox) == 3
    assert "before buying" not in logs.text


@MODES
def test_resubmit_looks_on_within_its_round(deferrable: bool, sandbox: Sandbox, clock: Clock, logs: Logs):
    operator = batch(sandbox, on_existing_list="resubmit", deferrable=deferrable, retries=2)
    Run(operator)()
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        after_clear(operator, clock)()
    assert Run(operator, try_number=3, clears=1)() == sandbox.purchases[1].list_id
    assert "before buying" in logs.text
    assert posts(sandbox) == 2


@MODES
def test_fail_refuses_to_use_what_is_bought_and_to_buy_it_again(deferrable: bool, sandbox: Sandbox, clock: Clock):
    operator = batch(sandbox, on_existing_list="fail", deferrable=deferrable)
    first = Run(operator)()
    for again in (Run(operator, try_number=2), after_clear(operator, clock, tries=2)):
        with pytest.raises(exceptions.MachFivePermanentError, match=f"already bought, as list {first}"):
            again()
    assert posts(sandbox) == 1


def test_fail_buys_again_what_failed(sandbox: Sandbox):
    operator = batch(sandbox, on_existing_list="fail")
    sandbox.fault("fail_list")
    with pytest.raises(exceptions.BatchFailedError):
        Run(operator)()
    # No POST is open: the failed list is generation 1, the store vouches that no other was sent.
    assert Run(operator, try_number=2, store=StateStore())() == sandbox.purchases[1].list_id
    assert posts(sandbox) == 2


def test_a_shard_that_moved_while_its_answer_was_lost_is_not_bought_again(sandbox: Sandbox):
    """The state store is kept by map index: that of the shard's new index knows nothing of the open submission."""

    def shard(index: int, try_number: int) -> Run:
        operator = batch(sandbox, leads=[LEADS[0]])
        return Run(operator, map_index=index, try_number=try_number, store=StateStore())

    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("visible_late", endpoint="generate-batch", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        shard(0, 1)()
    shard(1, 2)()
    assert len(sandbox.purchases) == 1

"""What happens to a batch that was bought: after a clear, in a run created again, in shards, by the policies."""

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
from tests.tasks import LEADS, Logs, Run, StateStore, batch, told

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
    assert told(again.xcoms) == {**told(first.xcoms), "bought": False}
    assert posts(sandbox) == 1


def test_clearing_a_single_lead_pays_nothing(sandbox: Sandbox, clock: Clock):
    operator = MachFiveGenerateOperator(task_id="write", lead=dict(LEADS[0]), campaign_id=sandbox.campaign_id)
    first = Run(operator)()
    assert after_clear(operator, clock)() == {"list_id": first["list_id"], "sequence": first["sequence"]}
    assert posts(sandbox) == 1


@STORES
@pytest.mark.parametrize("fails_first", [False, True], ids=["bought by the first try", "bought by its retry"])
def test_changing_a_lead_and_clearing_buys_the_new_ones_once(
    stored: bool, fails_first: bool, sandbox: Sandbox, clock: Clock
):
    """A retry after the clear still has to know that the old leads' list is of the round before."""
    store = StateStore() if stored else None
    first = Run(batch(sandbox), store=store)()
    changed = batch(sandbox, leads=CHANGED)
    cleared = after_clear(changed, clock, store=store)
    if fails_first:
        sandbox.fault("status", endpoint="lists", times=None, status=500)
        with pytest.raises(exceptions.ServerError):
            cleared()
        sandbox.clear_faults()
    else:
        assert cleared() != first
    began = cleared.context["dag_run"].start_date
    retry = Run(changed, store=store, try_number=3, clears=1, began=began)
    assert retry() == sandbox.purchases[1].list_id
    assert posts(sandbox) == len(sandbox.purchases) == 2


def test_changing_a_lead_between_two_tries_is_refused(sandbox: Sandbox):
    first = Run(batch(sandbox))()
    with pytest.raises(exceptions.MachFivePermanentError, match="changed between two tries") as caught:
        Run(batch(sandbox, leads=CHANGED), try_number=2)()
    assert first in str(caught.value)
    assert posts(sandbox) == 1


@pytest.mark.parametrize("on_existing_list", ["adopt", "resubmit"])
def test_after_a_clear_an_unanswered_purchase_is_waited_for(
    on_existing_list: str, sandbox: Sandbox, clock: Clock, logs: Logs
):
    """With ``adopt`` by the first try after the clear already; with ``resubmit`` that try has a tag of its own."""
    operator, tries = batch(sandbox, on_existing_list=on_existing_list, deferrable=True), 1
    if on_existing_list == "resubmit":
        Run(operator)()
        tries = 2
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        (Run(operator) if tries == 1 else after_clear(operator, clock))()
    again = after_clear(operator, clock, hours=1.0) if tries == 1 else Run(operator, try_number=3, clears=1)
    assert again() == sandbox.purchases[-1].list_id
    assert "before buying" in logs.text
    assert posts(sandbox) == tries


@STORES
def test_a_run_deleted_and_created_again_pays_nothing(stored: bool, sandbox: Sandbox, clock: Clock):
    """The same run_id, the first try again, and no record: the list's name is what remains."""
    operator = batch(sandbox)
    first = Run(operator, run_id="scheduled__1", store=StateStore() if stored else None)()
    clock.advance(HOURS)
    again = Run(operator, run_id="scheduled__1", store=StateStore() if stored else None)
    assert again() == first
    assert again.xcoms["machfive_batch"]["bought"] is False
    assert posts(sandbox) == 1


# --- mapped tasks: every map index has a state store of its own


@STORES
def test_reordered_shards_pay_nothing(stored: bool, sandbox: Sandbox):
    """Upstream gives the shards in another order on the next try: their leads tell them apart."""
    stores = [StateStore() if stored else None for _ in LEADS]

    def shard(index: int, lead: Any, try_number: int) -> Any:
        operator = batch(sandbox, leads=[lead])
        return Run(operator, map_index=index, try_number=try_number, store=stores[index])()

    first = {lead["email"]: shard(index, lead, 1) for index, lead in enumerate(LEADS)}
    again = {lead["email"]: shard(index, lead, 2) for index, lead in enumerate(LEADS[::-1])}
    assert again == first
    assert len(set(first.values())) == posts(sandbox) == len(LEADS)


@STORES
def test_a_shard_that_gets_new_leads_on_its_next_try_does_not_buy_them(stored: bool, sandbox: Sandbox):
    """The list's tag names the map index, so it is known to be this shard's."""
    store = StateStore() if stored else None
    Run(batch(sandbox, leads=[LEADS[0]]), map_index=0, store=store)()
    with pytest.raises(exceptions.MachFivePermanentError, match="changed between two tries"):
        Run(batch(sandbox, leads=[LEADS[1]]), map_index=0, try_number=2, store=store)()
    assert posts(sandbox) == 1


def test_a_list_of_another_shard_is_no_change(sandbox: Sandbox):
    Run(batch(sandbox, leads=[LEADS[0]]), map_index=0)()
    second = Run(batch(sandbox, leads=[LEADS[1]]), map_index=1, try_number=2)
    assert second() == sandbox.purchases[1].list_id


def test_a_shard_that_moved_while_its_response_was_lost_is_not_bought_again(sandbox: Sandbox):
    """The store of its new map index knows nothing of the unanswered purchase."""
    operator = batch(sandbox, leads=[LEADS[0]])
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("visible_late", endpoint="generate-batch", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        Run(operator, map_index=0, store=StateStore())()
    Run(operator, map_index=1, try_number=2, store=StateStore())()
    assert len(sandbox.purchases) == 1


def test_the_same_leads_in_another_order_or_shard_or_under_another_name_are_the_same_purchase(
    sandbox: Sandbox, clock: Clock
):
    first = Run(batch(sandbox), map_index=0)()
    assert Run(batch(sandbox), map_index=1)() == first
    assert Run(batch(sandbox, leads=list(LEADS[::-1])), try_number=2)() == first
    assert after_clear(batch(sandbox, list_name="Autumn fair"), clock)() == first
    assert posts(sandbox) == 1


@pytest.mark.parametrize(
    "list_name",
    ["春の見本市" * 40, "🦆" * 120, "e\u0301" * 90, "[af1:" * 30, "a\nb\tc", None],
    ids=["Japanese", "ducks", "combining", "tag-like", "white space", "none"],
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


# --- on_existing_list


@STORES
def test_resubmit_pays_once_for_each_clear_and_never_for_a_retry(
    stored: bool, sandbox: Sandbox, clock: Clock, logs: Logs
):
    store = StateStore() if stored else None
    operator = batch(sandbox, on_existing_list="resubmit", retries=2)
    lists = [Run(operator, store=store)()]
    assert Run(operator, store=store, try_number=2)() == lists[0]
    for tries in (2, 4):
        lists.append(after_clear(operator, clock, tries, store=store)())
        assert Run(operator, store=store, try_number=tries + 2, clears=tries)() == lists[-1]
    assert len(set(lists)) == len(lists) == posts(sandbox) == 3
    # Without a record it is not known that no POST of the round is unanswered.
    assert ("before buying" in logs.text) is not stored
    assert "has failed" not in logs.text


def test_fail_refuses_to_use_what_is_bought_and_to_buy_it_again(sandbox: Sandbox, clock: Clock):
    operator = batch(sandbox, on_existing_list="fail")
    first = Run(operator)()
    assert Run(operator, try_number=2)() == first  # its own list, after a crash
    for again in (Run(operator), after_clear(operator, clock, tries=2)):
        with pytest.raises(exceptions.MachFivePermanentError, match=f"already bought, as list {first}"):
            again()
    assert posts(sandbox) == 1


def test_fail_buys_again_what_failed(sandbox: Sandbox):
    operator = batch(sandbox, on_existing_list="fail")
    sandbox.fault("fail_list")
    with pytest.raises(exceptions.BatchFailedError):
        Run(operator)()
    assert Run(operator, try_number=2)() == sandbox.purchases[1].list_id
    assert posts(sandbox) == 2

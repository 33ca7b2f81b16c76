"""Odd entries in pages of lists: somebody else's stop no purchase, and ours is never bought again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from machfive_provider import exceptions
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from machfive_provider.sandbox.oddities import ODD_ENTRIES
from tests.clock import Pauses
from tests.tasks import LEADS, Run, batch

Connect = Callable[..., None]


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", Pauses())


@pytest.mark.parametrize("oddity", ODD_ENTRIES)
def test_somebody_elses_odd_list_stops_no_purchase(oddity: str, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("odd_entry", oddity=oddity)
    with MachFiveHook() as hook:
        other = hook.generate_batch(sandbox.campaign_id, [LEADS[0]], {"list_name": "By hand"}).list_id
        assert Run(batch(sandbox))() == sandbox.lists[1].id
        shown = [each.id for each in hook.iter_lists()]
    assert shown == [sandbox.lists[1].id, *([] if oddity in ("null_id", "no_id", "no_object") else [other])]


@pytest.mark.parametrize("oddity", ["null_status", "number_status", "no_status"])
def test_our_own_list_with_an_odd_status_is_adopted(oddity: str, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("odd_entry", oddity=oddity)
    bought = Run(batch(sandbox))()
    assert Run(batch(sandbox), try_number=2)() == bought
    assert len(sandbox.purchases) == 1


@pytest.mark.parametrize("oddity", ["null_id", "no_id", "no_object"])
def test_our_own_list_that_shows_no_id_is_not_bought_again(oddity: str, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("odd_entry", oddity=oddity)
    Run(batch(sandbox))()
    with pytest.raises(exceptions.ProtocolError, match="a list that an Airflow task bought has no 'id'"):
        Run(batch(sandbox), try_number=2)()
    assert len(sandbox.purchases) == 1

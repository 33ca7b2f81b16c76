"""What is checked and approved binds what is bought."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.operators.check import MachFiveCheckLeadsOperator
from machfive_provider.sandbox import Sandbox
from tests.tasks import LEADS, Run, batch, leaks

Connect = Callable[..., None]
ADDRESSES = [lead["email"] for lead in LEADS]


@pytest.fixture
def sandbox(timed_sandbox: Sandbox, connect: Connect) -> Sandbox:
    connect(timed_sandbox)
    return timed_sandbox


def check(sandbox: Sandbox, **arguments: Any) -> dict[str, Any]:
    """Run the operator; its result passes through JSON, as an XCom does."""
    known: dict[str, Any] = {"task_id": "check", "campaign_id": sandbox.campaign_id}
    if "leads_path" not in arguments:
        known["leads"] = list(LEADS)
    result: dict[str, Any] = json.loads(json.dumps(Run(MachFiveCheckLeadsOperator(**{**known, **arguments}))()))
    return result


def test_it_tells_what_a_purchase_would_be_and_makes_none(sandbox: Sandbox, tmp_path: Path):
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    files[0].write_text("".join(json.dumps(lead) + "\n" for lead in LEADS))
    files[1].write_text('{"email": "eve@example.com"}\n{"email": "eve@example.com"}\n')
    found = check(
        sandbox,
        leads_path=[str(each) for each in files],
        campaign_id=None,
        campaign_name="spring outreach",
        suppress=[ADDRESSES[0]],
        on_duplicate_lead="first",
        enrichment_enabled=True,
    )
    counts = ("leads", "credits", "skipped", "suppressed", "already_written")
    assert [found[name] for name in counts] == [3, 6, 1, 1, 0]
    assert sorted(found["batches"].values()) == [2, 4]
    assert found["summary"] == (
        "Write to 3 leads for 6 credits in 2 batches, campaign 'Spring Outreach'. "
        "Left out: 1 invalid or duplicate, 1 suppressed."
    )
    assert leaks([*ADDRESSES, "eve@"], found) == []
    assert sandbox.purchases == []


def test_what_was_approved_is_bought(sandbox: Sandbox):
    Run(batch(sandbox, approved=check(sandbox), list_name="Names are free"))()
    assert len(sandbox.purchases) == 1


@pytest.mark.parametrize(
    ("checked", "bought", "says"),
    [
        ({"leads": list(LEADS[:2])}, {}, "differ from what was approved"),
        ({"email_count": 2}, {"email_count": 3}, "differ from what was approved"),
        ({"suppress": [ADDRESSES[0]]}, {}, "costs 3 credits now, and 2 were approved"),
    ],
)
def test_another_or_dearer_purchase_is_refused(
    checked: dict[str, Any], bought: dict[str, Any], says: str, sandbox: Sandbox
):
    with pytest.raises(exceptions.MachFivePermanentError, match=says) as caught:
        Run(batch(sandbox, approved=check(sandbox, **checked), **bought))()
    assert "Start a new run; where no person is asked" in str(caught.value)
    assert sandbox.purchases == []


def test_a_cheaper_one_is_bought_and_one_that_was_bought_is_adopted(sandbox: Sandbox):
    approved = check(sandbox)
    Run(batch(sandbox, approved=approved, suppress=[ADDRESSES[0]]))()
    assert [len(each.json["leads"]) for each in sandbox.requests_to("generate-batch")] == [2]
    dear = {**approved, "batches": dict.fromkeys(approved["batches"], 0)}
    Run(batch(sandbox, approved=dear), try_number=2, clears=1)()
    assert len(sandbox.purchases) == 1


@pytest.mark.parametrize("approved", [None, "yes", {"leads": 3}])
def test_no_approval_is_no_approval(approved: Any, sandbox: Sandbox):
    operator = batch(sandbox, approved="{{ ti.xcom_pull('check') }}")
    operator.approved = approved  # as rendered
    with pytest.raises(exceptions.ConfigurationError, match="what a MachFiveCheckLeadsOperator returns"):
        Run(operator)()
    assert sandbox.purchases == []


def test_too_dear_or_wrong(sandbox: Sandbox):
    with pytest.raises(exceptions.InvalidLeadsError, match="3 leads would cost 3 credits, more than max_credits=2"):
        check(sandbox, max_credits=2)
    with pytest.raises(exceptions.ConfigurationError, match="campaign_id and campaign_name"):
        MachFiveCheckLeadsOperator(task_id="check", leads=[])

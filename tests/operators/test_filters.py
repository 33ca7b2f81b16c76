"""Suppression and people already written to: left out of what is bought, and of what is delivered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from machfive_provider import exceptions
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.operators.private import PrivateList
from machfive_provider.purchase.tag import Tag
from machfive_provider.sandbox import Sandbox
from tests.clock import Clock
from tests.tasks import LEADS, Logs, Run, batch, leaks, told

Connect = Callable[..., None]
ADDRESSES = [lead["email"] for lead in LEADS]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])


@pytest.fixture
def sandbox(timed_sandbox: Sandbox, connect: Connect) -> Sandbox:
    connect(timed_sandbox)
    return timed_sandbox


def sent(sandbox: Sandbox) -> list[list[str]]:
    return [[lead["email"] for lead in each.json["leads"]] for each in sandbox.requests_to("generate-batch")]


def written(path: Path) -> list[str]:
    return [json.loads(line)["email"] for line in path.read_text().splitlines()]


@MODES
def test_the_suppressed_are_not_sent_nor_paid_for(deferrable: bool, sandbox: Sandbox, logs: Logs, tmp_path: Path):
    path = tmp_path / "emails.jsonl"
    run = Run(
        batch(sandbox, suppress=[ADDRESSES[0].upper(), "*.nowhere.example"], max_credits=2, deferrable=deferrable,
              export_to=str(path))
    )  # fmt: skip
    run()
    assert sent(sandbox) == [ADDRESSES[1:]]
    facts = told(run.xcoms)
    assert (facts["leads_submitted"], facts["leads_suppressed"], facts["credits"]) == (2, 1, 2)
    export = run.xcoms["machfive_export"]
    assert (export["leads"], export["missing"], export["suppressed_later"]) == (2, 0, 0)
    assert "1 of 3 leads left out: 1 suppressed, 0 already written." in logs.text
    assert leaks(ADDRESSES, logs.text, run.xcoms) == []


@MODES
def test_the_same_purchase_whatever_the_filters_say_now(
    deferrable: bool, sandbox: Sandbox, clock: Clock, tmp_path: Path
):
    """Somebody opts out after the purchase: a clear adopts the list, and leaves them out of the result."""
    path = tmp_path / "emails.jsonl"
    first = Run(batch(sandbox, suppress=[ADDRESSES[0]], deferrable=deferrable, export_to=str(path)))
    first()
    later = batch(sandbox, suppress=ADDRESSES[:2], deferrable=deferrable, export_to=str(path))
    cleared = Run(later, try_number=2, clears=1)
    cleared()
    assert len(sent(sandbox)) == 1
    assert written(path) == ADDRESSES[2:]
    export = cleared.xcoms["machfive_export"]
    assert (export["missing"], export["extra"], export["suppressed_later"]) == (0, 0, 1)
    assert (told(cleared.xcoms)["credits"], told(cleared.xcoms)["bought"]) == (2, False)


def test_everybody_suppressed_after_the_purchase(sandbox: Sandbox, tmp_path: Path):
    """A list that was bought wins over a filter that leaves nobody: it is adopted, its result is empty."""
    path = tmp_path / "emails.json"
    Run(batch(sandbox, export_to=str(path)))()
    run = Run(batch(sandbox, suppress=ADDRESSES, export_to=str(path)), try_number=2, clears=1)
    run()
    assert json.loads(path.read_text()) == {"leads": []}
    assert run.xcoms["machfive_export"]["suppressed_later"] == 3


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_who_opts_out_is_missing_from_no_format(form: str, sandbox: Sandbox, tmp_path: Path):
    bought = Run(batch(sandbox))()
    path = tmp_path / f"emails.{form}"
    Run(MachFiveExportListOperator(task_id="all", list_id=bought, export_to=str(path)))()
    whole = path.read_text()
    opt_outs = tmp_path / "opt-outs.txt"
    opt_outs.write_text(f"{ADDRESSES[1]}\n")
    run = Run(
        MachFiveExportListOperator(
            task_id="export", list_id=bought, export_to=str(path), suppress=str(opt_outs), expected_leads=ADDRESSES
        )
    )
    run()
    assert ADDRESSES[1] not in path.read_text()
    assert (ADDRESSES[0] in path.read_text(), ADDRESSES[1] in whole) == (True, True)
    export = run.xcoms["machfive_export"]
    assert (export["leads"], export["missing"], export["suppressed_later"]) == (2, 0, 1)
    assert not path.with_name(f"{path.name}.missing.csv").exists()
    if form == "csv":
        assert set(path.read_text().splitlines()) < set(whole.splitlines()), "the other rows stay as they were sent"


def test_only_new_people_are_bought(sandbox: Sandbox, logs: Logs, tmp_path: Path):
    def day(number: int, leads: Any) -> Run:
        operator = batch(
            sandbox,
            leads=list(leads),
            skip_already_written=f"{tmp_path}/*.jsonl",
            export_to=f"{tmp_path}/{number}.jsonl",
        )
        return Run(operator, run_id=f"scheduled__{number}")

    first = day(1, LEADS[:2])
    first()
    assert "skip_already_written: 0 earlier results found." in logs.text
    second = day(2, LEADS)
    second()
    assert sent(sandbox) == [ADDRESSES[:2], ADDRESSES[2:]]
    assert told(second.xcoms)["leads_already_written"] == 2
    third = day(3, LEADS)
    with pytest.raises(AirflowSkipException, match="Nobody is left to write to, so nothing was bought"):
        third()
    assert (told(third.xcoms)["phase"], told(third.xcoms)["credits"]) == ("skipped", 0)
    # A clear of an earlier day finds its own list, although its people have results by now.
    again = day(1, LEADS[:2])
    again.context["ti"].try_number, again.context["ti"].max_tries = 2, 1
    again()
    assert len(sent(sandbox)) == 2
    assert written(tmp_path / "1.jsonl") == ADDRESSES[:2]


def test_own_results_do_not_count_when_the_user_pays_again(sandbox: Sandbox, tmp_path: Path):
    arguments: dict[str, Any] = {
        "skip_already_written": f"{tmp_path}/*.jsonl",
        "export_to": f"{tmp_path}/1.jsonl",
        "on_existing_list": "resubmit",
    }
    Run(batch(sandbox, **arguments))()
    Run(batch(sandbox, **arguments), try_number=2, clears=1)()
    assert sent(sandbox) == [ADDRESSES, ADDRESSES]


def test_what_was_sent_is_in_the_tag(sandbox: Sandbox):
    Run(batch(sandbox, suppress=[ADDRESSES[0]]))()
    Run(batch(sandbox), run_id="manual__2")()
    (some,), (everybody,) = (Tag.all_in(each.list_name) for each in sandbox.purchases)
    assert some.what == everybody.what
    assert some.sent != everybody.sent


@MODES
def test_a_single_lead(deferrable: bool, sandbox: Sandbox):
    def task(**more: Any) -> MachFiveGenerateOperator:
        arguments = {"task_id": "one", "lead": LEADS[0], "campaign_id": sandbox.campaign_id, "deferrable": deferrable}
        return MachFiveGenerateOperator(**arguments, **more)

    with pytest.raises(AirflowSkipException, match="Nobody is left"):
        Run(task(suppress=["example.com"]))()
    assert sandbox.purchases == []
    Run(task(suppress=["example.org"]))()
    assert len(sandbox.purchases) == 1
    with pytest.raises(AirflowSkipException, match="has opted out since it was bought"):
        Run(task(suppress=["example.com"]), try_number=2, clears=1)()
    assert len(sandbox.purchases) == 1


@pytest.mark.parametrize("filters", [{"suppress": "/no/such/file.csv"}, {"suppress": ["n/a"]}])
def test_nothing_is_sent_when_it_is_not_known_who_said_no(filters: dict[str, Any], sandbox: Sandbox):
    with pytest.raises(exceptions.InvalidLeadsError):
        Run(batch(sandbox, **filters))()
    assert sandbox.purchases == []


def test_a_source_that_gave_none_stops_the_task(sandbox: Sandbox):
    operator = batch(sandbox, suppress="{{ ti.xcom_pull('opt_outs') }}")
    operator.suppress = None  # as Airflow renders an XComArg of a task that returned nothing
    with pytest.raises(exceptions.ConfigurationError, match="suppress is nothing"):
        Run(operator)()
    assert sandbox.purchases == []
    with pytest.raises(exceptions.ConfigurationError, match="suppress must be a path or a list"):
        batch(sandbox, suppress=5)


def test_lists_of_people_are_shown_as_a_number(sandbox: Sandbox):
    """Airflow keeps what ``serialize_template_field`` returns, and shows it under Rendered Templates."""
    from airflow.serialization.helpers import serialize_template_field

    operator = batch(sandbox, suppress=["{{ run_id }}@example.com", ADDRESSES[0]])
    for name, number in (("leads", 3), ("suppress", 2)):
        assert serialize_template_field(getattr(operator, name), name) == f"{number} entries, which are not shown"
    operator.render_template_fields({"run_id": "x"})
    assert list(operator.suppress) == ["x@example.com", ADDRESSES[0]]
    operator.leads = list(LEADS)  # as a mapped task or an XComArg sets it
    assert isinstance(operator.leads, PrivateList)
    assert isinstance(operator, MachFiveGenerateBatchOperator)


def test_filters_are_read_again_after_a_wait_on_the_worker(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opt_outs, sleep = tmp_path / "opt-outs.csv", time.sleep
    opt_outs.write_text(f"email\n{ADDRESSES[0]}\n")

    def wait(seconds: float) -> None:
        opt_outs.write_text("email\n")  # they have opted in again
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", wait)
    sandbox.fault("status", endpoint="generate-batch", status=429, code="RATE_LIMITED", times=1)
    run = Run(batch(sandbox, suppress=str(opt_outs), deferrable=False))
    run()
    assert sent(sandbox) == [ADDRESSES[1:], ADDRESSES]
    assert (told(run.xcoms)["leads_submitted"], told(run.xcoms)["credits"]) == (3, 3)

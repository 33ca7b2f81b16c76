"""The export operator over real sockets: wait, stream, count."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.api.models import Lead
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers.lead_list import MachFiveListTrigger
from tests.clock import Pauses
from tests.tasks import LEADS, PERSONAL, UNKNOWN_ID, Logs, Run, leaks

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
EMAILS = [lead["email"] for lead in LEADS]


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect pauses instead of making them; a function among them is called at its attempt."""
    script: list[Any] = []
    pauses = Pauses()

    def sleep(seconds: float) -> None:
        pauses(seconds)
        if script:
            script.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)
    return script


def bought(sandbox: Sandbox) -> str:
    """Buy a list, as somebody else's task or the web app would."""
    with MachFiveHook() as hook:
        return hook.generate_batch(sandbox.campaign_id, [Lead(**lead) for lead in LEADS]).list_id


@MODES
@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_export(deferrable: bool, form: str, sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    connect(sandbox)
    list_id = bought(sandbox)
    target = tmp_path / f"emails.{form}"
    run = Run(
        MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=str(target), deferrable=deferrable)
    )
    assert run() == str(target)
    assert run.triggers == []
    assert run.xcoms["machfive_export"] == {
        "path": str(target),
        "bytes": target.stat().st_size,
        "leads": 3,
        "emails": 9,
        "missing": 0,
        "extra": 0,
        "short": None,
        "odd": 0,
        "suppressed_later": 0,
        "missing_path": None,
    }
    told = run.xcoms["machfive_batch"]
    assert told.items() >= {"phase": "completed", "list_id": list_id, "campaign_id": sandbox.campaign_id}.items()
    with MachFiveHook() as hook:
        served = b"".join(hook.stream_export(list_id, "csv" if form == "csv" else "json"))
    if form == "jsonl":
        assert [json.loads(line) for line in target.read_text().splitlines()] == json.loads(served)["leads"]
    else:
        assert target.read_bytes() == served


@MODES
def test_waiting_first(deferrable: bool, slow_sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    connect(slow_sandbox)
    list_id = bought(slow_sandbox)
    target = tmp_path / "emails.csv"
    operator = MachFiveExportListOperator(
        task_id="export", list_id=list_id, export_to=str(target), deferrable=deferrable
    )
    if deferrable:
        run = Run(operator, between=lambda _: slow_sandbox.complete(list_id))
    else:
        run = Run(operator)
        sleeps += [lambda: None, lambda: slow_sandbox.complete(list_id)]
    assert run() == str(target)
    assert [type(each) for each in run.triggers] == ([MachFiveListTrigger] if deferrable else [])
    assert sleeps == []


@MODES
def test_not_ready_heals(deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    connect(sandbox)
    list_id = bought(sandbox)
    sandbox.fault("status", endpoint="export", times=2, status=409)
    target = tmp_path / "emails.csv"
    Run(MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=str(target), deferrable=deferrable))()
    assert len(sandbox.requests_to("export")) == 3
    assert target.exists()


@MODES
def test_a_first_poll_that_fails_is_repeated(
    deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any], logs: Logs
):
    connect(sandbox)
    list_id = bought(sandbox)
    sandbox.fault("status", endpoint="list", times=5, status=500, headers={"Retry-After": "0"})
    operator = MachFiveExportListOperator(
        task_id="export", list_id=list_id, export_to=str(tmp_path / "emails.csv"), deferrable=deferrable
    )
    Run(operator)()
    assert f"Poll 1 in a row of list {list_id} failed" in logs.text
    assert len(sandbox.requests_to("list")) == 6


@MODES
def test_not_ready_for_too_long(
    deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]
):
    """It is said as it is, once there is no time for another look."""
    connect(sandbox)
    list_id = bought(sandbox)
    sandbox.fault("status", endpoint="export", times=None, status=409)
    operator = MachFiveExportListOperator(
        task_id="export", list_id=list_id, export_to=str(tmp_path / "out.csv"), deferrable=deferrable, timeout=10
    )
    with pytest.raises(exceptions.NotReadyError):
        Run(operator)()
    assert list(tmp_path.iterdir()) == []


@MODES
def test_a_failed_list(deferrable: bool, slow_sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    connect(slow_sandbox)
    list_id = bought(slow_sandbox)
    operator = MachFiveExportListOperator(
        task_id="export", list_id=list_id, export_to=str(tmp_path / "emails.csv"), deferrable=deferrable
    )
    sleeps += [lambda: slow_sandbox.fail(list_id)]
    with pytest.raises(exceptions.ListFailedError, match=f"^List {list_id} failed"):
        Run(operator, between=lambda _: slow_sandbox.fail(list_id))()
    assert list(tmp_path.iterdir()) == []
    assert slow_sandbox.requests_to("export") == []


@MODES
def test_each_poll_is_sent_once_and_a_failed_one_is_warned_of(
    deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs, sleeps: list[Any]
):
    """The wait has its own backoff: a poll that repeats by itself would hold a worker, or miss the deadline."""
    connect(sandbox)
    list_id = bought(sandbox)
    sandbox.fault("status", endpoint="list", times=3, status=500)
    operator = MachFiveExportListOperator(
        task_id="export", list_id=list_id, export_to=str(tmp_path / "emails.csv"), deferrable=deferrable
    )
    Run(operator)()
    assert len(sandbox.requests_to("list")) == 4
    assert [line for line in logs.warnings if f"Poll 1 in a row of list {list_id} failed" in line]
    assert logs.count(f"List {list_id} has completed; writing it to {tmp_path / 'emails.csv'}.") == 1


def test_an_export_that_is_refused_names_its_list(sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    list_id = bought(sandbox)
    sandbox.fault("status", endpoint="export", status=403, message="Not yours.", request_id="req_7")
    operator = MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=str(tmp_path / "emails.csv"))
    with pytest.raises(exceptions.ForbiddenError, match=f"^List {list_id}: Not yours") as caught:
        Run(operator)()
    assert caught.value.request_id == "req_7"


@MODES
def test_a_list_that_does_not_exist(deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path):
    """It is not our own submission: there is nothing to wait for."""
    connect(sandbox)
    operator = MachFiveExportListOperator(
        task_id="export", list_id=UNKNOWN_ID, export_to=str(tmp_path / "emails.csv"), deferrable=deferrable
    )
    with pytest.raises(exceptions.NotFoundError, match=f"^List {UNKNOWN_ID}: List not found"):
        Run(operator)()
    assert len(sandbox.requests) == 1


EXPECTED: dict[str, tuple[Any, int, int, str | None]] = {
    "the list's own count": (None, 0, 0, None),
    "a number": (3, 0, 0, None),
    "a number as text": ("3", 0, 0, None),
    "more": (5, 2, 0, None),
    "less": (1, 0, 2, None),
    "emails": (EMAILS, 0, 0, None),
    "emails in another case": ([email.upper() for email in EMAILS], 0, 0, None),
    "another email": ([*EMAILS, "x@example.com"], 1, 0, "email\nx@example.com\n"),
    "leads": (list(LEADS), 0, 0, None),
    "leads as JSON": (json.dumps([*LEADS, {"email": "x@example.com"}]), 1, 0, "email\nx@example.com\n"),
    "a lead with a name": (
        [*LEADS, {"email": "x@example.com", "Full Name": "X"}],
        1,
        0,
        "email,name\nx@example.com,X\n",
    ),
    "fewer": (EMAILS[:1], 0, 2, None),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_expected_leads(case: str, sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs, sleeps: list[Any]):
    expected, missing, extra, missing_file = EXPECTED[case]
    connect(sandbox)
    operator = MachFiveExportListOperator(
        task_id="export",
        list_id=bought(sandbox),
        export_to=str(tmp_path / "emails.csv"),
        expected_leads=expected,
        on_missing_leads="warn",
    )
    run = Run(operator)
    run()
    beside = tmp_path / "emails.csv.missing.csv"
    told = run.xcoms["machfive_export"]
    assert (told["missing"], told["extra"], told["short"]) == (missing, extra, None)
    assert told["missing_path"] == (str(beside) if missing_file else None)
    assert (beside.read_text() if beside.exists() else None) == missing_file
    assert logs.count(f"lacks {missing} of the") == bool(missing)
    assert logs.count(f"holds {extra} leads more than was bought") == bool(extra)
    assert leaks([*PERSONAL, "x@example"], logs.text) == []


def test_expected_leads_from_a_file(sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    connect(sandbox)
    leads = tmp_path / "leads.csv"
    leads.write_text("Email\n" + "\n".join([*EMAILS, "x@example.com"]))
    operator = MachFiveExportListOperator(
        task_id="export", list_id=bought(sandbox), export_to=str(tmp_path / "out.csv"), expected_leads=str(leads)
    )
    with pytest.raises(exceptions.IncompleteExportError, match=r"lacks 1 of the 4 leads.*out\.csv\.missing\.csv"):
        Run(operator)()
    assert (tmp_path / "out.csv").exists()
    assert (tmp_path / "out.csv.missing.csv").read_text() == "email\nx@example.com\n"


def test_leads_that_got_lost(sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    """The list's own count knows nothing of them: the number that was submitted does."""
    connect(sandbox)
    sandbox.fault("lose_leads", count=2)
    list_id = bought(sandbox)
    operator = MachFiveExportListOperator(
        task_id="export", list_id=list_id, export_to=str(tmp_path / "out.csv"), expected_leads=3
    )
    with pytest.raises(exceptions.IncompleteExportError, match=r"lacks 2 of the 3 leads.*Only their number is known"):
        Run(operator)()
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_a_list_that_does_not_tell_its_leads(
    sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any], logs: Logs
):
    connect(sandbox)
    list_id = bought(sandbox)
    sandbox.fault("drop_field", endpoint="list", times=None, field="leads_count")
    run = Run(MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=str(tmp_path / "out.csv")))
    run()
    told = run.xcoms["machfive_export"]
    assert [told[name] for name in ("leads", "missing", "extra", "short", "missing_path")] == [
        3,
        None,
        None,
        None,
        None,
    ]
    assert logs.count("nothing can be counted as missing") == 1


KILLED = """
import sys
from machfive_provider.operators.export import MachFiveExportListOperator
from tests.tasks import Run
Run(MachFiveExportListOperator(task_id="export", list_id=sys.argv[1], export_to=sys.argv[2]))()
"""


def test_an_export_that_is_killed_is_repeated_to_the_byte(
    sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]
):
    connect(sandbox)
    list_id, target, again = bought(sandbox), tmp_path / "out.csv", tmp_path / "again.csv"
    sandbox.fault("hang", endpoint="export")
    process = subprocess.Popen([sys.executable, "-c", KILLED, list_id, str(target)], cwd=Path(__file__).parents[2])
    try:
        sandbox.wait_for_requests("export", 1, timeout=600)  # another process imports Airflow first
    finally:
        process.kill()
        assert process.wait() == -9
    (left,) = (each.name for each in tmp_path.iterdir())
    assert left.startswith(".machfive-")
    for path in (target, again, target):
        Run(MachFiveExportListOperator(task_id="export", list_id=list_id, export_to=str(path)))()
        assert target.read_bytes()
    assert target.read_bytes() == again.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again.csv", "out.csv"]


def test_overwrite_false(sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    connect(sandbox)
    target = tmp_path / "out.csv"
    operator = MachFiveExportListOperator(
        task_id="export", list_id=bought(sandbox), export_to=str(target), overwrite=False
    )
    Run(operator)()
    Run(operator)()  # the very same bytes
    target.write_text("precious")
    with pytest.raises(exceptions.ConfigurationError, match="exists with other content"):
        Run(operator)()
    assert target.read_text() == "precious"


@MODES
def test_timeout(deferrable: bool, slow_sandbox: Sandbox, connect: Connect, tmp_path: Path, sleeps: list[Any]):
    connect(slow_sandbox)
    operator = MachFiveExportListOperator(
        task_id="export",
        list_id=bought(slow_sandbox),
        export_to=str(tmp_path / "out.csv"),
        deferrable=deferrable,
        timeout=1e-6,
    )
    with pytest.raises(exceptions.WaitTimeoutError, match="is still processing"):
        Run(operator)()


def test_template_fields():
    operator = MachFiveExportListOperator(
        task_id="export", list_id="{{ params.id }}", export_to="/tmp/{{ ds }}.csv", expected_leads="{{ params.n }}"
    )
    operator.render_template_fields({"params": {"id": UNKNOWN_ID, "n": 3}, "ds": "2026-01-01"})
    assert (operator.list_id, operator.export_to, operator.expected_leads) == (UNKNOWN_ID, "/tmp/2026-01-01.csv", "3")

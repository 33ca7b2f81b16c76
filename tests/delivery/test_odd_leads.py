"""Odd leads in an export that was paid for: written as they were sent, counted, judged afterwards."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from tests.clock import Pauses
from tests.tasks import LEADS, PERSONAL, Logs, Run, batch, leaks

Connect = Callable[..., None]
FORMS = pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
POLICIES = pytest.mark.parametrize("policy", ["fail", "warn", "ignore"])
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
WITHOUT_EMAIL = ("null_sequence", "no_sequence", "empty_sequence")
SHORT = ("null_entry", "null_subject", "no_body")
WITHOUT_ADDRESS = ("null_email", "no_email", "no_object")
RIGHT = ("text_step",)


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", Pauses())


@FORMS
@POLICIES
@pytest.mark.parametrize("oddity", [*WITHOUT_EMAIL, *SHORT, *WITHOUT_ADDRESS, *RIGHT])
def test_the_whole_export_is_written_and_the_odd_lead_is_judged(
    oddity: str, policy: str, form: str, sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs
):
    connect(sandbox)
    sandbox.fault("odd_leads", oddity=oddity)
    target, beside = tmp_path / f"emails.{form}", tmp_path / f"emails.{form}.missing.csv"
    run = Run(batch(sandbox, export_to=str(target), on_missing_leads=policy, email_count=2))
    missing = oddity in (*WITHOUT_EMAIL, *WITHOUT_ADDRESS)
    if missing and policy == "fail":
        with pytest.raises(exceptions.IncompleteExportError, match="lacks 1 of the 3 leads"):
            run()
    else:
        run()
    with MachFiveHook() as hook:
        served = b"".join(hook.stream_export(sandbox.lists[0].id, "csv" if form == "csv" else "json"))
    if form == "jsonl":
        assert [json.loads(line) for line in target.read_text().splitlines()] == json.loads(served)["leads"]
    else:
        assert target.read_bytes() == served
    told = run.xcoms["machfive_export"]
    short, odd = int(oddity in SHORT), int(oddity in WITHOUT_ADDRESS)
    figures = [told[name] for name in ("leads", "missing", "extra", "short", "odd")]
    assert figures == [3 - missing, missing, 0, short, odd]
    assert told["missing_path"] == (str(beside) if missing else None)
    if missing:
        with beside.open(newline="") as file:
            assert [row["email"] for row in csv.DictReader(file)] == [LEADS[0]["email"]]
    assert logs.count("without a usable email (position 1)") == (oddity in WITHOUT_EMAIL)
    assert logs.count("lack their subject or body (position 1)") == short
    assert logs.count("without an email address (position 1)") == odd
    assert leaks(PERSONAL, logs.text) == []


@FORMS
def test_an_export_by_itself_finds_them_as_well(form: str, sandbox: Sandbox, connect: Connect, tmp_path: Path):
    """Nothing is known there of how many emails were asked for."""
    connect(sandbox)
    for oddity in ("null_subject", "null_sequence"):
        sandbox.fault("odd_leads", oddity=oddity)
    Run(batch(sandbox))()
    target = tmp_path / f"emails.{form}"
    run = Run(MachFiveExportListOperator(task_id="export", list_id=sandbox.lists[0].id, export_to=str(target)))
    with pytest.raises(exceptions.IncompleteExportError, match="lacks 1 of the 3 leads"):
        run()
    assert target.exists()
    told = run.xcoms["machfive_export"]
    assert [told[name] for name in ("leads", "missing", "extra", "short", "odd")] == [2, 1, 0, 1, 0]


@MODES
@pytest.mark.parametrize(
    ("oddity", "usable"),
    [
        ("null_sequence", 0),
        ("no_sequence", 0),
        ("null_entry", 1),
        ("null_subject", 1),
        ("text_step", 2),
        ("null_email", 2),
        ("no_email", 2),
    ],
)
@pytest.mark.parametrize("asked", [2, None])
def test_a_single_lead_is_returned_as_it_was_sent(
    asked: int | None, oddity: str, usable: int, deferrable: bool, slow_sandbox: Sandbox, connect: Connect, logs: Logs
):
    connect(slow_sandbox)
    slow_sandbox.fault("odd_leads", oddity=oddity)
    operator = MachFiveGenerateOperator(
        task_id="write",
        lead=dict(LEADS[0]),
        campaign_id=slow_sandbox.campaign_id,
        email_count=asked,
        deferrable=deferrable,
    )
    usable += usable > 0 and asked is None  # the campaign asks for three
    answer: Any = Run(operator, between=lambda trigger: slow_sandbox.complete(trigger.list_ids[0]))()
    sequence = answer["sequence"]
    if not usable:
        assert sequence == []
    else:
        assert sum(bool(email and email["subject"]) for email in sequence) == usable
        assert len(sequence) == (asked or 3)
    assert logs.count(f"has {usable} usable email") == (oddity not in ("text_step", "null_email", "no_email"))
    assert leaks(PERSONAL, logs.text) == []

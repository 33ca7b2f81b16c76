"""An export of any size is counted in the same memory, and what it is counted with is gone when the task ends."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sandbox import Sandbox
from tests.sockets import http, raw_server
from tests.tasks import LEADS, UNKNOWN_ID, FakeTaskInstance, Run, task_context, temporary_databases

Connect = Callable[..., None]
FORMS = pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
EMAILS = [{"step": step, "subject": f"Subject {step}", "body": "Grüße, " * 20} for step in (1, 2)]
LIST = {"id": UNKNOWN_ID, "processing_status": "completed"}
LONG = "x" * 1000  # in an email: few leads are then too many to be counted in memory


def as_json(leads: int, domain: str = "example.com") -> bytes:
    return json.dumps({"leads": [{"email": f"L{n}@{domain}", "sequence": EMAILS} for n in range(leads)]}).encode()


def as_csv(leads: int, domain: str = "example.com") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["email", "body_1"], *([f"L{n}@{domain}", EMAILS[0]["body"]] for n in range(leads))])
    return text.getvalue().encode()


@contextmanager
def serving(leads: int, told: bool = True, cut: int = 0, **arguments: Any) -> Iterator[str]:
    """Serve one completed list, told how many emails it has or not; its exports end so many bytes too early."""
    known = {**LIST, "leads_count": leads, "emails_created": 2 * leads if told else None}
    answers = {
        b"format=csv": http(as_csv(leads, **arguments)),
        b"format=json": http(as_json(leads, **arguments)),
        b"/lists/": http(json.dumps(known).encode()),
    }
    answers = {path: answer[: len(answer) - cut * (b"format" in path)] for path, answer in answers.items()}

    def answer(send: Callable[[bytes], Any]) -> None:
        send(next(answer for path, answer in answers.items() if path in server.heads[-1]))

    with raw_server(answer) as server:
        yield server.base_url


class Watching(FakeTaskInstance):
    """Notes which databases are open while a task reports what it has counted."""

    def xcom_push(self, key: str, value: Any) -> None:
        super().xcom_push(key, value)
        if key == "machfive_export":
            self.open = temporary_databases()


def watched(operator: Any) -> Run:
    return Run(operator, {**task_context(operator), "ti": Watching(operator)})


@pytest.mark.parametrize(
    ("form", "told"),
    [("csv", True), ("csv", False), ("json", True), ("jsonl", True)],
    ids=["csv", "csv, looked up in the json", "json", "jsonl"],
)
def test_six_times_the_leads_take_the_same_memory(form: str, told: bool, connect: Connect, tmp_path: Path):
    """A dictionary of them would take a megabyte more. What SQLite takes itself is bounded by its cache."""
    peaks = {}
    for leads in (5, 1500, 9000):  # the first imports everything, the second fills every buffer
        operator = MachFiveExportListOperator(
            task_id="export", list_id=UNKNOWN_ID, export_to=str(tmp_path / "out"), export_format=form
        )
        with serving(leads, told) as url:
            connect(host=url, password="mf_live_0123456789abcdefghijABCDEFGHIJ00")
            run = Run(operator)
            tracemalloc.start()
            try:
                run()
                peaks[leads] = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert [run.xcoms["machfive_export"][name] for name in ("leads", "emails")] == [leads, 2 * leads]
    assert peaks[9000] < peaks[1500] + 200_000


@FORMS
def test_nothing_is_left_after_an_export(form: str, connect: Connect, tmp_path: Path):
    operator = MachFiveExportListOperator(
        task_id="export", list_id=UNKNOWN_ID, export_to=str(tmp_path / "out"), export_format=form
    )
    before = temporary_databases()
    with serving(4000, domain=f"{LONG}.example") as url:
        connect(host=url, password="mf_live_0123456789abcdefghijABCDEFGHIJ00")
        run = watched(operator)
        run()
    assert len(run.context["ti"].open - before) == 1
    assert temporary_databases() == before


@FORMS
def test_nothing_is_left_after_an_export_that_breaks_off(form: str, connect: Connect, tmp_path: Path):
    operator = MachFiveExportListOperator(
        task_id="export", list_id=UNKNOWN_ID, export_to=str(tmp_path / "out"), export_format=form
    )
    before = temporary_databases()
    with serving(4000, cut=1, domain=f"{LONG}.example") as url:
        connect(host=url, password="mf_live_0123456789abcdefghijABCDEFGHIJ00")
        with pytest.raises(exceptions.TransportError, match="broke off"):
            Run(operator)()
    assert temporary_databases() == before
    assert list(tmp_path.iterdir()) == []


@FORMS
def test_nothing_is_left_after_a_batch_whose_leads_are_missing(
    form: str, sandbox: Sandbox, connect: Connect, tmp_path: Path
):
    """A CSV with fewer emails than asked for is looked up in the JSON, which is counted as well."""
    connect(sandbox)
    written = {"csv": (as_csv, as_json)}.get(form, (as_json,))
    for write in written:
        body = write(4000, f"{LONG}.example").decode()
        sandbox.fault("status", endpoint="export", status=200, body=body)
    operator = MachFiveGenerateBatchOperator(
        task_id="write",
        leads=list(LEADS),
        email_count=3,
        campaign_id=sandbox.campaign_id,
        export_to=str(tmp_path / "out"),
        export_format=form,
    )
    before = temporary_databases()
    run = watched(operator)
    with pytest.raises(exceptions.IncompleteExportError, match="lacks 3 of the 3 leads"):
        run()
    assert run.xcoms["machfive_export"]["extra"] == 4000
    assert len(sandbox.requests_to("export")) == len(written)
    assert len(run.context["ti"].open - before) == 1
    assert temporary_databases() == before

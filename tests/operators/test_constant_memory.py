"""An export is never held in memory: only a digest of each lead is."""

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
from tests.sockets import http, raw_server
from tests.tasks import UNKNOWN_ID, Run

Connect = Callable[..., None]
FORMS = pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
EMAILS = [{"step": step, "subject": f"Subject {step}", "body": "Grüße, " * 20} for step in (1, 2)]
LIST = {"id": UNKNOWN_ID, "processing_status": "completed"}


def as_json(leads: int) -> bytes:
    return json.dumps({"leads": [{"email": f"L{n}@example.com", "sequence": EMAILS} for n in range(leads)]}).encode()


def as_csv(leads: int) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["email", "body_1"], *([f"L{n}@example.com", EMAILS[0]["body"]] for n in range(leads))])
    return text.getvalue().encode()


@contextmanager
def serving(leads: int, told: bool = True, cut: int = 0) -> Iterator[str]:
    """Serve one completed list, told how many emails it has or not; its exports end so many bytes too early."""
    known = {**LIST, "leads_count": leads, "emails_created": 2 * leads if told else None}
    answers = {
        b"format=csv": http(as_csv(leads)),
        b"format=json": http(as_json(leads)),
        b"/lists/": http(json.dumps(known).encode()),
    }
    answers = {path: answer[: len(answer) - cut * (b"format" in path)] for path, answer in answers.items()}

    def answer(send: Callable[[bytes], Any]) -> None:
        send(next(answer for path, answer in answers.items() if path in server.heads[-1]))

    with raw_server(answer) as server:
        yield server.base_url


@pytest.mark.parametrize(
    ("form", "told", "options"),
    [
        ("csv", True, {}),
        ("csv", False, {}),
        ("csv", True, {"escape_formulas": True}),
        ("csv", True, {"export_shape": "flat"}),
        ("json", True, {}),
        ("jsonl", True, {}),
    ],
    ids=["csv", "csv, looked up in the json", "escaped csv", "flat csv", "json", "jsonl"],
)
def test_a_further_lead_takes_less_than_a_hundred_bytes(
    form: str, told: bool, options: dict[str, Any], connect: Connect, tmp_path: Path
):
    """Twice that where a CSV is looked up in the JSON, whose leads are counted beside those of the CSV.

    How the sockets cut the export decides what is in memory beside them: 64 KiB more or less.
    """
    peaks = {}
    for leads in (5, 1500, 9000):  # the first imports everything, the second fills every buffer
        operator = MachFiveExportListOperator(
            task_id="export", list_id=UNKNOWN_ID, export_to=str(tmp_path / "out"), export_format=form, **options
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
    assert peaks[9000] - peaks[1500] < 7500 * (100 if told else 200) + 64 * 1024


@FORMS
def test_nothing_is_left_after_an_export_that_breaks_off(form: str, connect: Connect, tmp_path: Path):
    operator = MachFiveExportListOperator(
        task_id="export", list_id=UNKNOWN_ID, export_to=str(tmp_path / "out"), export_format=form
    )
    with serving(1000, cut=1) as url:
        connect(host=url, password="mf_live_0123456789abcdefghijABCDEFGHIJ00")
        with pytest.raises(exceptions.TransportError, match="broke off"):
            Run(operator)()
    assert list(tmp_path.iterdir()) == []

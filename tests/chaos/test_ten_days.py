"""A daily job in a real Airflow: its source grows by fifty people a day and shrinks by those who opt out.

Days are cleared, and one is deleted and created again. Everybody is bought once, and nobody after opting out.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow

pytestmark = pytest.mark.live
TIMEOUT = 120.0
DAYS, NEW_A_DAY = 10, 50
DAG_ID = "ten_days"
DAGS = '''
"""Writes to everybody in the day's file who is new and has not opted out."""

import os

import pendulum
from airflow.sdk import DAG

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

FOLDER = os.environ["MACHFIVE_TEN_DAYS"]

with DAG(
    "ten_days", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), max_active_runs=1, catchup=False
):
    MachFiveGenerateBatchOperator(
        task_id="write",
        depends_on_past=True,
        leads_path=FOLDER + "/leads-{{ run_id }}.csv",
        suppress=FOLDER + "/opt-outs.txt",
        skip_already_written=FOLDER + "/emails-*.jsonl",
        export_to=FOLDER + "/emails-{{ run_id }}.jsonl",
        campaign_name="Spring Outreach",
        deferrable=True,
        poll_interval=1,
    )
'''


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SandboxSettings(processing_seconds=0.5)) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("days")


@pytest.fixture(scope="module")
def live(sandbox: Sandbox, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    (dags / "ten_days.py").write_text(DAGS)
    connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
    env = {"AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(connection), "MACHFIVE_TEN_DAYS": str(folder)}
    airflow = LiveAirflow(tmp_path_factory.mktemp("airflow"), dags, wanted=(DAG_ID,), env=env)
    with airflow:
        airflow.unpause(DAG_ID)
        yield airflow


class Source:
    """The people of each day, and who has opted out so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.people: list[str] = []
        self.opted_out: list[str] = []

    def next_day(self, day: int) -> None:
        """Add fifty people; two older ones and a new one opt out, one of whom leaves the source."""
        older = [each for each in self.people if each not in self.opted_out][:2]
        new = [f"person{day:02}{number:02}@example.com" for number in range(NEW_A_DAY)]
        self.people += new
        self.opted_out += [*older, new[0]]
        self.people = [each for each in self.people if each not in older[:1]]
        (self.folder / "opt-outs.txt").write_text("".join(f"{each.upper()}\n" for each in self.opted_out))
        with (self.folder / f"leads-day{day:02}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["email"], *([each] for each in self.people)])


def sent(sandbox: Sandbox) -> list[list[str]]:
    return [[lead["email"] for lead in each.json["leads"]] for each in sandbox.requests_to("generate-batch")]


def written(path: Path) -> set[str]:
    return {json.loads(line)["email"] for line in path.read_text().splitlines()}


def test_everybody_is_bought_once_and_nobody_after_opting_out(
    live: LiveAirflow, sandbox: Sandbox, folder: Path
) -> None:
    source = Source(folder)

    def end(run_id: str) -> Any:
        result = live.wait(DAG_ID, run_id, TIMEOUT)
        assert result.state == "success", live.task_log(DAG_ID, run_id, "write")[-3000:]
        return live.xcom(DAG_ID, run_id, "write", "machfive_batch")

    for day in range(1, DAYS + 1):
        before = len(sent(sandbox))
        source.next_day(day)
        batch = end(live.create_run(DAG_ID, run_id=f"day{day:02}"))
        (bought,) = sent(sandbox)[before:]
        assert set(bought).isdisjoint(source.opted_out), f"day {day}: somebody was bought after opting out"
        assert (len(bought), batch["credits"]) == (NEW_A_DAY - 1, NEW_A_DAY - 1)
        if day in (5, 8):  # an earlier day is cleared; then one is deleted and created again
            again = f"day{day - 2:02}"
            if day == 5:
                live.clear(DAG_ID, again)
            else:
                live.delete_run(DAG_ID, again)
                live.create_run(DAG_ID, run_id=again)
            assert end(again)["bought"] is False
            assert written(folder / f"emails-{again}.jsonl").isdisjoint(source.opted_out)

    assert len(sent(sandbox)) == DAYS
    times = Counter(address for batch in sent(sandbox) for address in batch)
    assert set(times.values()) == {1}
    assert times.keys() >= set(source.people) - set(source.opted_out)

    source.folder.joinpath("leads-nothing-new.csv").write_text((folder / f"leads-day{DAYS}.csv").read_text())
    live.create_run(DAG_ID, run_id="nothing-new")
    run = live.wait(DAG_ID, "nothing-new", TIMEOUT)
    assert [task.state for task in run.tasks] == ["skipped"]
    assert len(sent(sandbox)) == DAYS

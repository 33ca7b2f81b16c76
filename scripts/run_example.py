"""Run the main example DAG in a real Airflow and show the result: `make run`, and `make ui` to leave Airflow running.

Exits 0 only if the DAG run succeeded and its result file holds emails; 2 if the user has to confirm something first.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console

from scripts.live_airflow import AirflowNotReadyError, DagRunResult, LiveAirflow
from scripts.progress import Progress, lead_panel, task_table
from scripts.target import NotConfirmedError, Target, choose_target

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / ".run"
HOME = RUN / "airflow"
RESULTS = RUN / "results"
EXAMPLES = ROOT / "example_dags"
LEADS = EXAMPLES / "data" / "leads.csv"
DAG_ID = "machfive_batch"
EXPORT_TASK = "write_emails"


class ExampleFailedError(RuntimeError):
    """The example DAG failed, or its result file is not what the task reported."""


@dataclass(frozen=True)
class Result:
    """What the result file really holds, whatever the task reported."""

    path: Path
    leads: int
    emails: int
    sample: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return the exit code."""
    parser = argparse.ArgumentParser(prog="run_example", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stay", action="store_true", help="leave Airflow running until Ctrl-C")
    stay = parser.parse_args(arguments).stay
    console = Console()
    # The provider's own modules import Airflow, which creates AIRFLOW_HOME: not in the user's home directory.
    os.environ["AIRFLOW_HOME"] = str(HOME)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)
    try:
        with only_run(), choose_target(os.environ, LEADS) as target:
            run_example(console, target, stay=stay)
    except NotConfirmedError as error:
        print(error, file=sys.stderr)
        return 2
    except (ExampleFailedError, AirflowNotReadyError, TimeoutError) as error:
        console.print(f"\nFailed: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    return 0


def run_example(console: Console, target: Target, *, stay: bool) -> None:
    """Bring up a fresh Airflow, run the DAG against the target, print the result, stop everything."""
    began = time.monotonic()
    for folder in (HOME, RESULTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    environment = target.environment() | {"MACHFIVE_RESULTS": str(RESULTS)}
    airflow = LiveAirflow(HOME, EXAMPLES, wanted=[DAG_ID], env=environment)
    console.print(f"Using {target.name}, campaign {target.campaign!r}.", highlight=False, soft_wrap=True)
    console.print("Starting Airflow (scheduler, triggerer, DAG processor, API server) ...")
    try:
        seconds = airflow.start(on_progress=lambda stage: console.print(f"  {stage}", style="dim"))
        console.print(f"Airflow is up after {seconds:.0f} s.", highlight=False)
        if stay:
            _print_login(console, airflow)
        failure = _run_dag(console, airflow, target, began)
        if stay:
            if failure:
                console.print(f"\n{failure}", style="red", markup=False, highlight=False, soft_wrap=True)
            _print_login(console, airflow)
            console.print("Airflow stays up; Ctrl-C stops it.")
            _until_interrupted()
    finally:
        console.print("Stopping Airflow ...", style="dim")
        airflow.stop()
    if failure:
        raise failure


def _run_dag(console: Console, airflow: LiveAirflow, target: Target, began: float) -> ExampleFailedError | None:
    """Run the DAG and print its outcome; return, rather than raise, what went wrong."""
    run_id = airflow.trigger(DAG_ID)
    with Progress(console, target.describe) as progress:
        run = airflow.wait(DAG_ID, run_id, target.timeout, progress.show)
    if not console.is_terminal:  # the live table has shown the last state already
        console.print(task_table(run))
    try:
        if run.state != "success":
            raise ExampleFailedError(_failure_reason(airflow, run))
        result = _read_result(airflow.xcom(DAG_ID, run_id, EXPORT_TASK, "machfive_export"))
    except ExampleFailedError as failure:
        return failure
    console.print(lead_panel(result.sample))
    summary = f"Leads:  {result.leads}\nEmails: {result.emails}\nFile:   {result.path}"
    console.print(summary, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Done in {time.monotonic() - began:.0f} s.", style="bold", highlight=False)
    return None


def _read_result(export: dict[str, Any] | None) -> Result:
    """Read the file the task says it wrote and count what is in it."""
    if not export:
        raise ExampleFailedError(f"{EXPORT_TASK} pushed no machfive_export, so there is no result to show.")
    location = str(export["path"])
    path = Path(unquote(urlsplit(location).path)) if location.startswith("file:") else Path(location)
    if not path.is_file():
        raise ExampleFailedError(f"The run succeeded, but its result file {path} does not exist.")
    leads = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    emails = sum(len(lead["sequence"]) for lead in leads)
    if not emails:
        raise ExampleFailedError(f"The run succeeded, but its result file {path} holds no emails.")
    if (len(leads), emails) != (export["leads"], export["emails"]):
        raise ExampleFailedError(
            f"{path} holds {len(leads)} leads and {emails} emails; "
            f"the task counted {export['leads']} and {export['emails']}."
        )
    return Result(path, len(leads), emails, next(lead for lead in leads if lead["sequence"]))


def _failure_reason(airflow: LiveAirflow, run: DagRunResult) -> str:
    """Return the end of each failed task's log, which holds the reason."""
    parts = [f"{run.dag_id} ended {run.state}."]
    for task in run.tasks:
        if task.state == "failed":
            log = airflow.task_log(run.dag_id, run.run_id, task.task_id, task.try_number, task.map_index)
            lines = [line[:500] for line in log.splitlines()[-15:]]
            parts.append("\n".join([f"The end of the log of {task.task_id}:", *lines]))
    parts.append(f"Logs: {airflow.home.logs}, {airflow.home.process_log}")
    return "\n\n".join(parts)


def _print_login(console: Console, airflow: LiveAirflow) -> None:
    for what, value in (("Address", airflow.base_url), ("User", airflow.user), ("Password", airflow.password)):
        console.print(f"{what + ':':<10}{value}", markup=False, highlight=False, soft_wrap=True)


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


@contextmanager
def only_run() -> Iterator[None]:
    """Keep a second run in this checkout from deleting the first one's files."""
    RUN.mkdir(exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExampleFailedError(f"another run is using {RUN}; stop it first.") from None
        yield


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that every `finally` on the way out is run."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main())

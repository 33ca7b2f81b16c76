"""Run the main example DAG in a real Airflow, show the emails, stop it all: `make run`.

Exits 0 only if the DAG run succeeded and its result file holds emails; 2 if the user has to confirm something first.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console

from scripts.checkout import EXAMPLES, HOME, LEADS, RESULTS, CheckoutInUseError, only_run
from scripts.live_airflow import AirflowNotReadyError, DagRunResult, LiveAirflow
from scripts.progress import Progress, lead_panel
from scripts.target import CONN_ID, NotConfirmedError, Target, choose_target

DAG_ID = "machfive_batch"
TASK_ID = "write_emails"
STEPS = 5
PATIENCE = "Starting a real Airflow takes about a minute."


class ExampleFailedError(RuntimeError):
    """The example DAG failed, or its result file is not what the task reported."""


@dataclass(frozen=True)
class Result:
    """What the result file really holds, whatever the task reported."""

    path: Path
    leads: int
    emails: int
    sample: dict[str, Any]


def main() -> int:
    """Run the example; return the exit code."""
    return exit_code(_run)


def exit_code(command: Callable[[Console], None]) -> int:
    """Run a command that needs the checkout for itself; print what goes wrong and return the exit code."""
    console = Console()
    try:
        with only_run():
            command(console)
    except NotConfirmedError as error:
        print(error, file=sys.stderr)
        return 2
    except (ExampleFailedError, CheckoutInUseError, AirflowNotReadyError, TimeoutError) as error:
        console.print(f"\nFailed: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    return 0


def say(console: Console, text: str) -> None:
    """Print a text as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _run(console: Console) -> None:
    """Bring up a fresh Airflow, run the DAG against the target, print the result, stop everything."""
    began = time.monotonic()
    with choose_target(os.environ, LEADS) as target:
        say(console, f"Using {target.name}; campaign {target.campaign!r}.\n{target.plan}\n\n{PATIENCE}")
        # In the environment, not in the database: a real key is not written to the disk.
        environment = {
            f"AIRFLOW_CONN_{CONN_ID}".upper(): json.dumps(target.connection()),
            "MACHFIVE_CAMPAIGN": target.campaign,
            "MACHFIVE_RESULTS": str(RESULTS),
        }
        airflow = LiveAirflow(HOME, EXAMPLES, wanted=[DAG_ID], env=environment)
        try:
            with Progress(console, STEPS) as progress:
                start(airflow, progress)
                run = airflow.wait(DAG_ID, airflow.trigger(DAG_ID), target.timeout, _Steps(progress, target).show)
                progress.done(f"{DAG_ID} ended: {run.state}")
            _show_result(console, airflow, run)
            say(console, f"Done in {time.monotonic() - began:.0f} s.")
        finally:
            console.print("Stopping Airflow ...", style="dim")
            airflow.stop()


def start(airflow: LiveAirflow, progress: Progress) -> None:
    """Start Airflow, which is steps 1 and 2."""

    def show(missing: str) -> None:
        progress.show(1 if missing == "API server" else 2, f"Airflow starts: {missing}")

    airflow.start(on_progress=show)


class _Steps:
    """Shows a run of the example as steps 3 to 5."""

    def __init__(self, progress: Progress, target: Target) -> None:
        self._progress = progress
        self._target = target
        self._has_waited = False

    def show(self, run: DagRunResult) -> None:
        """Show the run's current state."""
        state = next((task.state for task in run.tasks if task.task_id == TASK_ID), None) or "waiting"
        if state == "deferred":
            self._has_waited = True
            # The API does not say how much of a list is written.
            note = self._target.describe()
            self._progress.show(4, "MachFive writes the emails" + (f"; {note}" if note else ""))
        elif self._has_waited:
            what = "exports the emails and counts them" if state == "running" else f"is {state}"
            self._progress.show(5, f"{TASK_ID} {what}")
        else:
            what = "checks the leads and buys the list" if state == "running" else f"is {state}"
            self._progress.show(3, f"{TASK_ID} {what}")


def _show_result(console: Console, airflow: LiveAirflow, run: DagRunResult) -> None:
    """Print the emails of one lead and what the run did and spent; raise if it failed."""
    if run.state != "success":
        raise ExampleFailedError(_failure_reason(airflow, run))
    batch = airflow.xcom(DAG_ID, run.run_id, TASK_ID, "machfive_batch") or {}
    result = _read_result(airflow.xcom(DAG_ID, run.run_id, TASK_ID, "machfive_export"))
    console.print(lead_panel(result.sample))
    say(
        console,
        f"Leads:   {result.leads} written, {batch.get('leads_skipped')} skipped\n"
        f"Emails:  {result.emails}\n"
        f"Credits: {batch.get('credits')} spent\n"
        f"File:    {result.path}",
    )


def _read_result(export: dict[str, Any] | None) -> Result:
    """Read the file the task says it wrote and count what is in it."""
    if not export:
        raise ExampleFailedError(f"{TASK_ID} pushed no machfive_export, so there is no result to show.")
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


if __name__ == "__main__":
    raise SystemExit(main())

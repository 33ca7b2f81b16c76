"""Leave a real Airflow running with something to look at, until Ctrl-C: `make ui`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from scripts.checkout import EXAMPLES, HOME, LEADS, OWN_DAGS, RESULTS, ROOT
from scripts.live_airflow import LiveAirflow
from scripts.progress import Progress
from scripts.run_example import DAG_ID, PATIENCE, exit_code, say, start
from scripts.target import CONN_ID, Target, choose_target

DEMO_DAGS = ROOT / "scripts" / "demo_dags"
DEMO_DAG_IDS = ("machfive_demo_failures", "machfive_demo_queue")
STEPS = 3


def main() -> int:
    """Run until Ctrl-C; return the exit code."""
    return exit_code(_run)


def _run(console: Console) -> None:
    with choose_target(os.environ, LEADS, demo=True) as target:
        say(console, f"Using {target.name}; campaign {target.campaign!r}.\n{target.plan}\n\n{PATIENCE}")
        with ui_airflow(console, target) as airflow:
            say(console, _guide(airflow, target))
            _until_interrupted()


@contextmanager
def ui_airflow(console: Console, target: Target) -> Iterator[LiveAirflow]:
    """Run an Airflow with the connection in its database and its runs begun; stop it and delete its database."""
    OWN_DAGS.mkdir(exist_ok=True)
    folders, wanted = [EXAMPLES, OWN_DAGS], [DAG_ID]
    if target.is_sandbox:
        folders.append(DEMO_DAGS)
        wanted += DEMO_DAG_IDS
    environment = {
        "MACHFIVE_CAMPAIGN": target.campaign,
        "MACHFIVE_RESULTS": str(RESULTS),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # A new file is to be seen while its author waits for it.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    }
    airflow = LiveAirflow(HOME, folders, wanted=wanted, env=environment)
    try:
        with Progress(console, STEPS) as progress:
            start(airflow, progress)
            progress.show(STEPS, "The connection is made, DAG runs begin")
            airflow.create_connection(CONN_ID, target.connection())
            # All runs before the first DAG is unpaused: see `create_run`.
            for dag_id in wanted:
                airflow.create_run(dag_id)
            for dag_id in wanted:
                airflow.unpause(dag_id)
            progress.done("Airflow is up")
        yield airflow
    finally:
        console.print("Stopping Airflow ...", style="dim")
        airflow.stop()
        # It holds the API key, encrypted with a key that lies beside it.
        airflow.home.database.unlink(missing_ok=True)


def _guide(airflow: LiveAirflow, target: Target) -> str:
    sights = [(f"Dags > {DAG_ID}", f"the example: emails for {LEADS.name}, written to {RESULTS}")]
    if target.is_sandbox:
        sights += [
            ("Dags > machfive_demo_queue", "20 batches queue for three slots of the workspace; 5 to 10 minutes"),
            ("Dags > machfive_demo_failures", "what can go wrong; clear no_credits or list_fails: it succeeds"),
        ]
    sights.append(("Admin > Connections", f"{CONN_ID}, of type MachFive; its Test button asks the API"))
    wide = max(len(where) for where, _ in sights)
    return "\n".join(
        [
            "",
            f"Open:      {airflow.base_url}",
            f"User:      {airflow.user}",
            f"Password:  {airflow.password}",
            "",
            "To look at:",
            *(f"  {where:<{wide}}  {what}" for where, what in sights),
            "",
            f"A DAG of your own: put its file into {OWN_DAGS}. It appears within 15 seconds, switched off.",
            f"It needs no connection id: the operators use {CONN_ID}.",
            "",
            "Ctrl-C stops everything that was started here.",
        ]
    )


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    raise SystemExit(main())

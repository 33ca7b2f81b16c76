"""Airflow as separate processes, of which scheduler and triggerer are started again whenever they die.

`airflow standalone` never starts a dead component again; in production a service manager does. This file holds
`RestartingAirflow`, used like `LiveAirflow`, and, run as a script by the guard, that small service manager.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.live_airflow import LiveAirflow

__all__ = ["RestartingAirflow"]

ESSENTIAL = ("api-server", "dag-processor")
# The scheduler of 3.3.2 dies of an assertion when a task whose heartbeat it missed reports its end at that moment.
RESTARTED = ("scheduler", "triggerer")


class RestartingAirflow(LiveAirflow):
    """A LiveAirflow whose scheduler and triggerer may be killed."""

    def command(self) -> list[str]:
        """Return what the guard runs: this file."""
        return [sys.executable, str(Path(__file__).resolve())]

    def pid(self, component: str) -> int:
        """Return the process id of a component's main process, which may be dead by now."""
        return int(_pid_file(self.home.path, component).read_text())

    def ends(self) -> dict[str, int]:
        """Return how often each component has ended so far."""
        log = self.home.process_log.read_text(errors="replace")
        return {name: log.count(f"{name} ended with") for name in (*ESSENTIAL, *RESTARTED)}


def main() -> int:
    """Prepare the database and run the components until one that is not restarted has ended."""
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], check=True, stdin=subprocess.DEVNULL)  # noqa: S603 - this Python
    first_to_end = threading.Event()
    for name in (*ESSENTIAL, *RESTARTED):
        threading.Thread(target=_run_component, args=(name, [*airflow, name], first_to_end), daemon=True).start()
    first_to_end.wait()
    return 1


def _run_component(name: str, command: list[str], ended: threading.Event) -> None:
    """Run one component, again and again if it is to be restarted; else report its end."""
    home = Path(os.environ["AIRFLOW_HOME"])
    with (home / f"{name}.log").open("ab", buffering=0) as log:
        while True:
            process = subprocess.Popen(  # noqa: S603 - the commands are those of `main`
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            # Replaced in one step, because another process may be reading it.
            (fresh := home / f"{name}.pid.new").write_text(str(process.pid))
            fresh.replace(_pid_file(home, name))
            code = process.wait()
            print(f"{name} ended with exit code {code}", flush=True)
            if name not in RESTARTED:
                ended.set()
                return


def _pid_file(home: Path, component: str) -> Path:
    return home / f"{component}.component.pid"


if __name__ == "__main__":
    raise SystemExit(main())

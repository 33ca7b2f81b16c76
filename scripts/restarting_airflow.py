"""Airflow as separate processes, of which scheduler and triggerer are started again whenever they die.

`airflow standalone` never starts a dead component again; in production a service manager does. This file holds
`RestartingAirflow`, used like `LiveAirflow`, and, run as a script by the guard, that small service manager.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.live_airflow import LiveAirflow

__all__ = ["Component", "RestartingAirflow"]

_AIRFLOW = (sys.executable, "-m", "airflow")


@dataclass(frozen=True)
class Component:
    """One process of Airflow: `airflow` with these arguments.

    `restarted`: it is started again whenever it ends, after `pause` seconds; else its end is the end of all.
    `host`: the loopback address by which Airflow knows the machine that it runs on.
    """

    name: str
    arguments: Sequence[str]
    restarted: bool = True
    pause: float = 0.0
    host: str = "127.0.0.1"


class RestartingAirflow(LiveAirflow):
    """A LiveAirflow whose scheduler and triggerer may be killed."""

    components: Sequence[Component] = (
        Component("api-server", ["api-server"], restarted=False),
        Component("dag-processor", ["dag-processor"], restarted=False),
        # That of 3.3.2 dies of an assertion when a task whose heartbeat it missed reports its end at that moment.
        Component("scheduler", ["scheduler"]),
        Component("triggerer", ["triggerer"]),
    )

    def command(self) -> list[str]:
        """Return what the guard runs: this file."""
        described = json.dumps([asdict(each) for each in self.components])
        return [sys.executable, str(Path(__file__).resolve()), described]

    def pid(self, component: str) -> int:
        """Return the process id of a component's main process, which may be dead by now."""
        return int(_pid_file(self.home.path, component).read_text())

    def ends(self) -> dict[str, int]:
        """Return how often each component has ended so far."""
        log = self.home.process_log.read_text(errors="replace")
        return {each.name: log.count(f"{each.name} ended with") for each in self.components}


def main(described: str) -> int:
    """Prepare the database and run the components until one that is not restarted has ended."""
    subprocess.run([*_AIRFLOW, "db", "migrate"], check=True, stdin=subprocess.DEVNULL)  # noqa: S603 - this Python
    first_to_end = threading.Event()
    for each in json.loads(described):
        threading.Thread(target=_run_component, args=(Component(**each), first_to_end), daemon=True).start()
    first_to_end.wait()
    return 1


def _run_component(component: Component, ended: threading.Event) -> None:
    """Run one component, again and again if it is to be restarted; else report its end."""
    home, name = Path(os.environ["AIRFLOW_HOME"]), component.name
    env = {**os.environ, "LOOPBACK_HOST": component.host}
    with (home / f"{name}.log").open("ab", buffering=0) as log:
        while True:
            command = [*_AIRFLOW, *component.arguments]
            process = subprocess.Popen(  # noqa: S603 - the components are those of `command`
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            # Replaced in one step, because another process may be reading it.
            (fresh := home / f"{name}.pid.new").write_text(str(process.pid))
            fresh.replace(_pid_file(home, name))
            code = process.wait()
            print(f"{name} ended with exit code {code}", flush=True)
            if not component.restarted:
                ended.set()
                return
            time.sleep(component.pause)


def _pid_file(home: Path, component: str) -> Path:
    return home / f"{component}.component.pid"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))

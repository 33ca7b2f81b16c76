"""Run a command and end it, with all it started, as soon as whoever asked for it is gone.

`python guard.py COMMAND...`: the caller keeps the other end of our standard input. However the caller ends,
by plan, by an exception or by SIGKILL, the operating system closes that pipe, and the end of file is what
stops the command. A signal handler in the caller could not promise that.

Airflow's task processes and DAG processors move into process groups of their own, so a signal to one group
misses them. None of them leaves the *session* it was born in, so the session is what is ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

import psutil  # type: ignore[import-untyped]  # comes with Airflow

GRACE_SECONDS = 15.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(command: list[str]) -> int:
    """Run the command until it ends or our standard input does; return its exit code."""
    if os.getsid(0) != os.getpid():
        print("guard.py must be started as the leader of a session of its own", file=sys.stderr)
        return 2
    for number in STOPPING:
        signal.signal(number, _stop)
    threading.Thread(target=_stop_with_caller, daemon=True).start()
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL).wait()  # noqa: S603 - our own caller gives it
    finally:
        # However the command ended, none of its children may stay.
        end_session(os.getpid(), grace=GRACE_SECONDS, exclude=frozenset({os.getpid()}))


def _stop(number: int, _frame: FrameType | None) -> None:
    for each in STOPPING:  # a second signal must not interrupt the cleaning up
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _stop_with_caller() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def session_members(session_id: int, *, exclude: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """Return the living processes of a session; zombies do nothing any more and are left out."""
    found = []
    for pid in psutil.pids():
        try:
            if pid in exclude or os.getsid(pid) != session_id:
                continue
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def end_session(session_id: int, *, grace: float, exclude: frozenset[int] = frozenset()) -> list[int]:
    """Send SIGTERM to every process of the session, then SIGKILL; return the pids that are still alive."""
    for how, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for _ in range(5):  # a process may fork between the listing and the signal: list again until none is left
            members = session_members(session_id, exclude=exclude)
            if not members:
                return []
            for process in members:
                try:
                    process.send_signal(how)
                except psutil.Error:
                    continue
            _, alive = psutil.wait_procs(members, timeout=patience)
            if alive:
                break
    return [process.pid for process in session_members(session_id, exclude=exclude)]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

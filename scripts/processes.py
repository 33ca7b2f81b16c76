"""Finding and ending every process of one session.

Airflow's task processes and DAG processors move into process groups of their own, so a signal to one group
misses them. None of them leaves the *session* it was born in: that is the net which catches all.
"""

from __future__ import annotations

import os
import signal

import psutil  # type: ignore[import-untyped]  # comes with Airflow


def session_members(session_id: int, *, but: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """Return the living processes of a session; zombies only wait to be counted and do nothing any more."""
    found = []
    for pid in psutil.pids():
        try:
            if pid in but or os.getsid(pid) != session_id:
                continue
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def end_session(session_id: int, *, grace: float, but: frozenset[int] = frozenset()) -> list[int]:
    """Ask every process of the session to end, then make it; return the pids that outlived even that."""
    for how, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for _ in range(5):  # a process may fork between the listing and the signal: list again until none is left
            members = session_members(session_id, but=but)
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
    return [process.pid for process in session_members(session_id, but=but)]

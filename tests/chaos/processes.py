"""Who is who among Airflow's processes, and how they are killed without breaking Airflow's own executor."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil

from scripts.airflow_parts import PartedAirflow

TASK, SUPERVISOR, BOTH, TRIGGERER = "task", "supervisor", "both", "triggerer"


@dataclass(frozen=True)
class RunningTask:
    """A task process and the LocalExecutor worker that supervises it; None if that one is dead already."""

    child: psutil.Process
    supervisor: psutil.Process | None


def running_tasks(airflow: PartedAirflow) -> list[RunningTask]:
    """List what runs under the scheduler now. Orphans are not found from here."""
    found = []
    with contextlib.suppress(psutil.Error):
        for worker in psutil.Process(airflow.pid("scheduler")).children():
            with contextlib.suppress(psutil.Error):
                if "LocalExecutor" in " ".join(worker.cmdline()):
                    found += [RunningTask(child, worker) for child in worker.children()]
    return sorted(found, key=lambda task: task.child.pid)


def triggerer_family(airflow: PartedAirflow) -> list[psutil.Process]:
    """Return the triggerer's main process and those that run under it; nothing between two lives."""
    with contextlib.suppress(psutil.Error):
        main = psutil.Process(airflow.pid("triggerer"))
        return [main, *main.children(recursive=True)]
    return []


def holder_of(port: int, server_port: int) -> psutil.Process | None:
    """Find the process whose connection to the server has this local port."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp4"):
            ends = (connection.laddr.port, connection.raddr.port if connection.raddr else None)
            if connection.pid and ends == (port, server_port):
                return psutil.Process(connection.pid)
    return None


def task_of(child: psutil.Process, airflow: PartedAirflow) -> RunningTask:
    """Return a task process with its supervisor."""
    known = {task.child.pid: task for task in running_tasks(airflow)}
    return known.get(child.pid, RunningTask(child, None))


def _begun(task: RunningTask) -> bool:
    """Tell whether Airflow has noted that the task runs: a task process renames itself right after that.

    LocalExecutor forgets a task for ever whose supervisor dies before: it stays queued until the scheduler is
    restarted, whatever the operator is.
    """
    return "LocalExecutor" not in " ".join(task.child.cmdline())


def kill_task(task: RunningTask, how: str) -> bool:
    """Kill a task process, its supervisor, or both; False if there was nothing to kill (any more).

    A supervisor may hold a lock of the executor's queues just before its task begins and just after it has
    ended, and a lock that dies with its holder stops the whole executor, which no provider could help. So it is
    stopped first, and killed only if its task is still alive.
    """
    if how == TASK or task.supervisor is None:
        return _kill(task.child)
    try:
        task.supervisor.suspend()
        if not _alive(task.child) or not _begun(task):
            task.supervisor.resume()
            return False
        task.supervisor.kill()
    except psutil.Error:
        return False
    return how == SUPERVISOR or _kill(task.child)


def kill_all(family: list[psutil.Process]) -> bool:
    """Kill a component, its main process first; False if it was dead already."""
    killed = [_kill(process) for process in family]
    return any(killed)


def _kill(process: psutil.Process) -> bool:
    try:
        if not _alive(process):
            return False
        process.kill()
    except psutil.Error:
        return False
    return True


def _alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)

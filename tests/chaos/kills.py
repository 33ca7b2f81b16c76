"""SIGKILLs: of the process that waits for a response which a fault holds back, and of processes at random moments."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil

from machfive_provider.sandbox import RecordedRequest, Sandbox
from scripts.restarting_airflow import RestartingAirflow
from tests.chaos.faults import POST, Hit

TASK, SUPERVISOR, BOTH, TRIGGERER = "task", "supervisor", "both", "triggerer"


@dataclass(frozen=True)
class KillPlan:
    """How many random kills of each sort, the mean seconds between two, and after how many purchases they begin.

    A task killed between recording its intent and the purchase waits minutes for a purchase that never shows up. A run
    too short for that begins its kills once everything is bought.
    """

    random: dict[str, int]
    every: float = 18.0
    once_bought: int = 0


@dataclass(frozen=True)
class Kill:
    """One SIGKILL, of a pair for BOTH. `within_post`: the request had arrived and was not answered."""

    what: str
    why: str
    within_post: bool


@dataclass
class PlannedKill:
    """A request whose sender is to be killed before it gets a response."""

    due: float
    request: RecordedRequest
    why: str
    how: str


@dataclass
class Killer:
    """Kills as planned with a fault, and at random; every choice is drawn under the seed."""

    sandbox: Sandbox
    airflow: RestartingAirflow
    plan: KillPlan
    seed: int
    kills: list[Kill] = field(default_factory=list)
    missed: int = 0

    def __post_init__(self) -> None:
        self._rng_planned = random.Random(f"{self.seed} planned")
        self._rng = random.Random(f"{self.seed} random")
        self._remaining = [what for what, count in self.plan.random.items() for _ in range(count)]
        self._rng.shuffle(self._remaining)
        self._planned_kills: list[PlannedKill] = []
        self._next = time.monotonic() + self._rng.expovariate(1 / self.plan.every)

    def plan_kills(self, hits: list[Hit]) -> None:
        """Plan a kill for each request that a fault with `kill` has just held back."""
        for hit in hits:
            if not hit.planned.kill:
                continue
            waiting = [
                request
                for request in self.sandbox.requests_to(hit.planned.endpoint)
                if request.fault == hit.planned.kind and request.status is None
            ]
            # One fault of a queue is scripted at a time, so the request held back last belongs to it.
            if waiting and all(known.request is not waiting[-1] for known in self._planned_kills):
                hang = hit.planned.kind == "hang"
                # A hang ends only with its client, so the client must be killed. With a delay, the client may also
                # be left without its supervisor.
                how = self._rng_planned.choice((TASK, BOTH) if hang else (TASK, BOTH, SUPERVISOR))
                due = time.monotonic() + self._rng_planned.uniform(0.1, 1.5)
                self._planned_kills.append(PlannedKill(due, waiting[-1], hit.planned.kind, how))
            else:
                self.missed += 1

    def step(self) -> None:
        """Carry out the kills that are due."""
        now = time.monotonic()
        for planned_kill in [each for each in self._planned_kills if each.due <= now]:
            self._planned_kills.remove(planned_kill)
            self._execute(planned_kill)
        if self._remaining and now >= self._next and len(self.sandbox.purchases) >= self.plan.once_bought:
            if self._kill_anyone(self._remaining[-1]):
                self._remaining.pop()
                self._next = now + self._rng.expovariate(1 / self.plan.every)
            else:
                self._next = now + 0.3  # no process of that sort is running right now

    @property
    def left(self) -> int:
        """How many random kills are still to come."""
        return len(self._remaining)

    @property
    def by_sort(self) -> Counter[tuple[str, str]]:
        """How many of each victim for each reason."""
        return Counter((kill.what, kill.why) for kill in self.kills)

    @property
    def within_post(self) -> int:
        """How many hit the sender of a POST that had arrived and was not answered yet."""
        return sum(kill.within_post for kill in self.kills)

    def _execute(self, planned_kill: PlannedKill) -> None:
        request = planned_kill.request
        process = process_with_port(request.client_port or 0, self.sandbox.port)
        if request.status is not None or process is None:
            self.missed += 1
            return
        triggerer = triggerer_processes(self.airflow)
        if process in triggerer:
            what, done = TRIGGERER, kill_all(triggerer)
        else:
            what, done = planned_kill.how, kill_task(task_of(process, self.airflow), planned_kill.how)
        if done:
            post = request.endpoint == POST and what != SUPERVISOR and request.status is None
            self.kills.append(Kill(what, planned_kill.why, post))
        else:
            self.missed += 1

    def _kill_anyone(self, what: str) -> bool:
        if what == TRIGGERER:
            done, post = kill_all(triggerer_processes(self.airflow)), False
        else:
            tasks = running_tasks(self.airflow)
            if not tasks:
                return False
            task = self._rng.choice(tasks)
            posts = self._open_posts() if what != SUPERVISOR else []
            held = [each for each in posts if process_with_port(each.client_port or 0, self.sandbox.port) == task.child]
            done = kill_task(task, what)
            post = any(each.status is None for each in held)
        if done:
            self.kills.append(Kill(what, "at random", post))
        return done

    def _open_posts(self) -> list[RecordedRequest]:
        return [request for request in self.sandbox.requests_to(POST) if request.status is None]


# --- finding Airflow's processes, and killing them without breaking Airflow's own executor


@dataclass(frozen=True)
class RunningTask:
    """A task process and the LocalExecutor worker that supervises it; None if that one is dead already."""

    child: psutil.Process
    supervisor: psutil.Process | None


def running_tasks(airflow: RestartingAirflow) -> list[RunningTask]:
    """List what runs under the scheduler now. Orphans are not found from here."""
    found = []
    with contextlib.suppress(psutil.Error):
        for worker in psutil.Process(airflow.pid("scheduler")).children():
            with contextlib.suppress(psutil.Error):
                if "LocalExecutor" in " ".join(worker.cmdline()):
                    found += [RunningTask(child, worker) for child in worker.children()]
    return sorted(found, key=lambda task: task.child.pid)


def triggerer_processes(airflow: RestartingAirflow) -> list[psutil.Process]:
    """Return the triggerer's main process and those under it; nothing while it is being restarted."""
    return component_processes(airflow, "triggerer")


def component_processes(airflow: RestartingAirflow, name: str) -> list[psutil.Process]:
    """Return a component's main process and those under it; nothing while it is being restarted."""
    with contextlib.suppress(psutil.Error):
        main = psutil.Process(airflow.pid(name))
        return [main, *main.children(recursive=True)]
    return []


def process_with_port(port: int, server_port: int) -> psutil.Process | None:
    """Return the process whose connection to the server has this local port."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp4"):
            ends = (connection.laddr.port, connection.raddr.port if connection.raddr else None)
            if connection.pid and ends == (port, server_port):
                return psutil.Process(connection.pid)
    return None


def task_of(child: psutil.Process, airflow: RestartingAirflow) -> RunningTask:
    """Return a task process with its supervisor."""
    known = {task.child.pid: task for task in running_tasks(airflow)}
    return known.get(child.pid, RunningTask(child, None))


def has_started(task: RunningTask) -> bool:
    """Tell whether Airflow has recorded that the task runs: a task process renames itself right after that.

    If the supervisor dies before, LocalExecutor never runs the task: it stays queued until the scheduler is restarted,
    whatever the operator is.
    """
    return "LocalExecutor" not in " ".join(task.child.cmdline())


def kill_task(task: RunningTask, how: str) -> bool:
    """Kill a task process, its supervisor, or both; False if there was nothing to kill (any more).

    A supervisor may hold a lock of the executor's queues just before its task begins and just after it has ended.
    A lock whose owner is killed stops the whole executor, which no provider can prevent. So the supervisor is
    suspended first, and killed only if its task is still alive.
    """
    if how == TASK or task.supervisor is None:
        return _kill(task.child)
    try:
        task.supervisor.suspend()
        if not _alive(task.child) or not has_started(task):
            task.supervisor.resume()
            return False
        task.supervisor.kill()
    except psutil.Error:
        return False
    return how == SUPERVISOR or _kill(task.child)


def kill_all(processes: list[psutil.Process]) -> bool:
    """Kill a component, its main process first; False if it was dead already."""
    killed = [_kill(process) for process in processes]
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

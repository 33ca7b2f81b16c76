"""What a run consists of: the load, the kills, and how soon Airflow notices them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from machfive_provider.sandbox import SandboxSettings

# The halves of the batches: each has a workspace, an API key and a connection of its own.
HINT, NO_HINT = "hint", "without"
PEOPLE = "people"
POSTS_A_BATCH = {HINT: 1.1, NO_HINT: 1.3}

# What of a purchase is not known after a death makes a mapped task wait two minutes for it to show up: so first come
# those that end tasks, and the others go on meanwhile. Tasks fail that cannot report to the API server.
KILLS = ((0.05, "worker-1"), (0.15, "api-server"), (0.3, "triggerer-1"), (0.45, "scheduler-1"), (0.6, "dag-processor"))


@dataclass(frozen=True)
class Plan:
    """One run. A part of all batches that are done, 0 to 1, says when to kill which process.

    `batches` is the number in each half. The names `modes`, `batches` and `leads` are those of `tests/chaos`.
    """

    batches: int = 100
    leads: int = 2
    sensors: int = 20
    concurrency: int = 10
    # A list takes this part of the seconds that Airflow took to start, so that workspaces get full however fast the
    # machine is. Measured: the start took 106 CPU seconds, each start of a task 0.9.
    list_part: float = 0.4
    poll_interval: float = 4.0
    watch_interval: float = 4.0
    retries: int = 8
    retry_delay: float = 2.0
    slots: int = 4  # of each Celery worker
    kills: tuple[tuple[float, str], ...] = KILLS
    restart_pause: float = 3.0  # seconds in which a supervisor of services does nothing
    timeout: float = 900.0
    modes: tuple[str, ...] = field(default=(HINT, NO_HINT))

    @property
    def all_batches(self) -> int:
        """How many batches there are in both halves."""
        return self.batches * len(self.modes)

    def sandbox_settings(self) -> SandboxSettings:
        """Return the sandbox: a workspace for each half, and one in which people buy by themselves."""
        return SandboxSettings(
            workspaces=3,
            credits=10 * self.batches * self.leads,
            concurrency=self.concurrency,
            # `run.py` ends the lists.
            processing_seconds=math.inf,
        )

    def airflow_settings(self) -> dict[str, str]:
        """Return the settings with which Airflow gets over a killed process within a minute, and why each."""
        settings: dict[str, dict[str, object]] = {
            "scheduler": {
                # Two schedulers share two cores with all others.
                "scheduler_idle_sleep_time": 0.5,
                # Seconds after which a dead scheduler's tasks are another's, and how often one looks for such.
                "scheduler_health_check_threshold": 20,
                "orphaned_tasks_check_interval": 10,
                # After these a running task counts as dead, as those of a killed worker are. Longer than the API
                # server is away: meanwhile no task can send a heartbeat.
                "task_instance_heartbeat_timeout": 45,
                "task_instance_heartbeat_timeout_detection_interval": 5,
                # A task that a worker took and did not begin before it was killed is sent again.
                "task_queued_timeout": 60,
                "task_queued_timeout_check_interval": 10,
            },
            # A killed triggerer's triggers are taken over once it counts as dead. With less, a busy machine's living
            # triggerers count as dead: 11 s between two heartbeats were seen while all of this starts.
            "triggerer": {"triggerer_health_check_threshold": 20},
            "celery": {
                "worker_concurrency": self.slots,
                # Two cores: a process for each of the scheduler's questions to Celery would only cost time.
                "sync_parallelism": 1,
            },
            # Redis gives a dead worker's messages to another after these; longer than any of our tasks takes, because
            # a living worker's would be begun twice.
            "celery_broker_transport_options": {"visibility_timeout": 90},
            # The assets of a paused DAG are not watched.
            "core": {"executor": "CeleryExecutor", "dags_are_paused_at_creation": False},
        }
        return {
            f"AIRFLOW__{section}__{name}".upper(): str(value)
            for section, values in settings.items()
            for name, value in values.items()
        }

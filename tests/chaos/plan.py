"""What a run consists of, and what it must have gone through to count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from machfive_provider.sandbox import SandboxSettings
from tests.chaos.faults import FEW, GAPS, HEAD_START, Amounts
from tests.chaos.kills import BOTH, SUPERVISOR, TASK, TRIGGERER, KillPlan
from tests.chaos.people import PeoplePlan

HEARTBEAT_TIMEOUT = 20
FULL = 160


@dataclass(frozen=True)
class Wanted:
    """The least that a run must have gone through to prove anything."""

    batches: int
    faults: int
    each_http_kind: int
    kinds: int
    kills: int
    kills_within_post: int
    edits_and_clears: int = 0

    def scaled(self, size: float) -> Wanted:
        """Return the requirements for a run of another size; the number of kinds of faults stays."""
        fewer = {name: math.floor(count * size) for name, count in asdict(self).items()}
        return Wanted(**{**fewer, "kinds": self.kinds})


@dataclass(frozen=True)
class Plan:
    """One run: one sandbox and one Airflow."""

    seed: int
    modes: tuple[str, ...]
    batches: int  # of each mode
    wanted: Wanted
    kills: KillPlan
    amounts: Amounts = field(default_factory=Amounts)
    gaps: Mapping[str, int] = field(default_factory=lambda: GAPS)
    head_start: float = HEAD_START
    people: PeoplePlan = field(default_factory=PeoplePlan)
    leads: int = 3
    in_flight: int = 28
    parallelism: int = 28
    list_seconds: float = 12.0
    concurrency: int = 12
    poll_interval: float = 2.0
    retry_delay: float = 2.0
    timeout: float = 1200.0
    without_search: bool = False

    def sandbox_settings(self) -> SandboxSettings:
        """Return the sandbox to run against."""
        return SandboxSettings(
            credits=100_000,
            concurrency=self.concurrency,
            pending_seconds=2.0,
            processing_seconds=self.list_seconds - 2.0,
            seed=self.seed,
        )

    def airflow_settings(self) -> dict[str, str]:
        """Return the settings with which Airflow notices a killed process within a minute."""
        return {
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            # A killed triggerer's triggers are taken over once it counts as dead.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        }


def full(mode: str, seed: int, batches: int = FULL) -> Plan:
    """Return the full run of one mode; with fewer batches it has fewer faults and kills."""
    size = min(1.0, batches / FULL)
    kills = {TASK: 8, SUPERVISOR: 5, BOTH: 6} | ({TRIGGERER: 3} if mode == "deferrable" else {})
    return Plan(
        seed=seed,
        modes=(mode,),
        batches=batches,
        wanted=Wanted(150, 500, 20, 25, 40, 10, 46).scaled(size),
        kills=KillPlan({what: math.ceil(count * size) for what, count in kills.items()}),
        amounts=Amounts().scaled(size),
        people=PeoplePlan(
            retries=math.ceil(6 * size), edits=math.ceil(16 * size), clears=math.ceil(24 * size), at_the_end=4
        ),
    )


def without_search(mode: str, seed: int) -> Plan:
    """Return a run that buys twice: responses get lost, and no attempt searches for the list."""
    return Plan(
        seed=seed,
        modes=(mode,),
        batches=16,
        wanted=Wanted(16, 0, 0, 0, 0, 0),
        kills=KillPlan({TASK: 1}),
        amounts=replace(
            FEW,
            post_accepted=1,
            lists=0,
            list=0,
            post_without_id=1,
            post_limited=1,
            post_hang_accepted=3,
            list_faults=0,
        ),
        gaps=dict.fromkeys(GAPS, 0),
        in_flight=16,
        parallelism=16,
        list_seconds=5.0,
        timeout=150.0,
        head_start=1.0,
        without_search=True,
    )


def short(seed: int) -> Plan:
    """Return a run of both modes side by side that takes no longer than a test may."""
    return Plan(
        seed=seed,
        modes=("deferrable", "worker"),
        batches=6,
        wanted=Wanted(12, 25, 0, 12, 5, 2),
        kills=KillPlan({TASK: 1, BOTH: 1}, every=1.0, once_bought=12),
        amounts=FEW,
        gaps=dict.fromkeys(GAPS, 0),
        in_flight=12,
        parallelism=12,
        list_seconds=5.0,
        # Capacity for all: a POST refused behind a hang makes the task wait minutes for a purchase that never shows up.
        concurrency=14,
        retry_delay=1.0,
        # A shard that is bought again first waits two minutes for its unanswered purchase; two may do so in turn.
        timeout=400.0,
    )

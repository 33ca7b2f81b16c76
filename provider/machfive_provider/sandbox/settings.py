"""What a sandbox can be told before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Generation: TypeAlias = Literal["2025", "2026"]
Clock: TypeAlias = Callable[[], float]
"""Answers the time in seconds since the epoch."""


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """How the sandbox behaves; the defaults make every list complete at once, which is what tests want.

    All durations are in seconds. `math.inf` as a duration means "until it is told otherwise by hand".
    `concurrency` is the number of unfinished batches a workspace may have, `credits` what each
    workspace starts with.

    Raises ValueError where a value makes no sense.
    """

    generation: Generation = "2025"
    host: str = "127.0.0.1"
    port: int = 0
    workspaces: int = 1
    credits: int = 2000
    concurrency: int = 3
    pending_seconds: float = 0.0
    processing_seconds: float = 0.0
    generate_seconds: float = 0.0
    seed: int = 0
    access_log: bool = False

    def __post_init__(self) -> None:
        if self.generation not in get_args(Generation):
            raise ValueError(f"generation must be one of {', '.join(get_args(Generation))}: {self.generation!r}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be 0 to 65535: {self.port}")
        for name in ("workspaces", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: {getattr(self, name)}")
        if self.credits < 0:
            raise ValueError(f"credits must not be negative: {self.credits}")
        for name in ("pending_seconds", "processing_seconds", "generate_seconds"):
            value = getattr(self, name)
            if math.isnan(value) or value < 0:
                raise ValueError(f"{name} must not be negative: {value}")

"""How tries ended, read from the task logs: every exception has to be of a class in `exceptions.py`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machfive_provider import exceptions

TYPED = frozenset(exceptions.__all__)
# Raised by Airflow itself: its API server was slow, its database locked.
INFRASTRUCTURE = frozenset({"AirflowRuntimeError", "ServerResponseError", "TaskAlreadyRunningError"})
# Airflow raises these where a trigger of ours crashed or outlived its deadline.
OUR_TRIGGERS = frozenset({"TaskDeferralError", "TaskDeferralTimeout"})


@dataclass(frozen=True)
class Endings:
    """Exceptions that ended a try: ours counted by class, the texts of Airflow's own and of all others."""

    typed: Counter[str]
    untyped: tuple[str, ...]
    infrastructure: tuple[str, ...]
    tries: int


def read_endings(logs: Path) -> Endings:
    """Read the logs of all tries."""
    typed: Counter[str] = Counter()
    untyped, infrastructure, tries = [], [], 0
    for path in sorted(logs.rglob("attempt=*.log")):
        # The triggerer writes logs of its own beside that of the try it waits for.
        tries += ".trigger." not in path.name
        for event in _failures(path):
            outermost = event["error_detail"][0]
            name = str(outermost.get("exc_type"))
            line = f"{path.relative_to(logs)}: {name}: {str(outermost.get('exc_value'))[:300]}"
            if name in TYPED:
                typed[name] += 1
            elif name in INFRASTRUCTURE or (name not in OUR_TRIGGERS and _is_foreign(outermost)):
                infrastructure.append(line)
            else:
                untyped.append(line)
    return Endings(typed, tuple(untyped), tuple(infrastructure), tries)


def _is_foreign(exception: Mapping[str, Any]) -> bool:
    """Tell whether an exception came from Airflow's code alone, or from its SIGTERM handler, which may interrupt ours.

    (On 3.3.2 that handler looks for `on_kill` on a mapped operator that is not a task yet and has none.)
    """
    frames = exception.get("frames") or [{}]
    ours = any("machfive_provider" in str(frame.get("filename")) for frame in frames)
    return not ours or frames[-1].get("name") == "_on_term"


def _failures(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the events that carry an exception; a line that a kill has cut short carries nothing."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("error_detail"):
            yield event

"""Run one benchmark: in its environment, its result kept, its table printed.

``python -m tests.benchmarks.running NAME`` is what ``python -m tests.benchmarks`` does for each.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
import traceback
from typing import Any

from tests.benchmarks import environment
from tests.benchmarks.report import Kept, keep, to_text

__all__ = ["BROKE", "MISSED", "run"]

MISSED, BROKE = 1, 2  # exit statuses


def run(name: str, **options: Any) -> int:
    """Run a benchmark of this package to its end and return the exit status.

    In another environment than the benchmarks' it is run again in that one, with the same command line.

    :param name: the module's
    :param options: for its ``measure``; a result with options of its own is printed and not kept
    """
    if not environment.inside():
        return environment.enter(f"tests.benchmarks.{name}")
    try:
        figure = importlib.import_module(f"tests.benchmarks.{name}").measure(**options)
    except Exception:  # noqa: BLE001 - the other benchmarks still run
        traceback.print_exc()
        print(f"\n{name} broke; nothing was kept.", file=sys.stderr)
        return BROKE
    kept = Kept(figure, time.strftime("%Y-%m-%d", time.gmtime()), environment.version("apache-airflow"), machine())
    print(f"\n{to_text(kept)}", flush=True)
    if not options:
        keep(kept)
    return 0 if figure.holds else MISSED


def machine() -> str:
    """Return what of this machine matters to the figures, without anything that identifies it."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]) if environment.inside() else environment.enter("tests.benchmarks.running"))

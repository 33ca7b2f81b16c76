"""Run the benchmarks, one after the other, and write docs/performance.md from what they found.

Usage: ``python -m tests.benchmarks [--only NAME,...] [--report]``; ``--only scale`` runs all whose names begin so. Exit
status 1 if a limit was missed or a benchmark broke.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.benchmarks import environment, plots, report

# Short ones first, so that what is broken shows early.
BENCHMARKS = (
    "import_cost",
    "leads",
    "outage",
    "page",
    "export",
    "heartbeat",
    "worker_starts",
    "polling",
    "warehouse",
    "makespan",
    "scale_waiting",
    "scale_database",
    "scale_polls",
    "scale_capacity",
)
PAGE = environment.ROOT / "docs" / "performance.md"


def main() -> int:
    """Run what is asked for; return the exit status."""
    if not environment.inside():
        return environment.enter("tests.benchmarks")
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(BENCHMARKS)}, or how some begin")
    parser.add_argument("--report", action="store_true", help="run nothing: write the page from the kept results")
    options = parser.parse_args()
    asked = tuple((options.only or "").split(","))
    if unknown := [each for each in asked if not any(name.startswith(each) for name in BENCHMARKS)]:
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    only = [name for name in BENCHMARKS if name.startswith(asked)]
    broken = [] if options.report else [name for name in only if not run_alone(name)]
    results = write_page()
    return verdict([each for each in results if each.figure.name in only], broken)


def run_alone(name: str) -> bool:
    """Run one benchmark in a process of its own; return whether it left a result, be its limits kept or missed."""
    print(f"\n=== {name}", flush=True)
    began, before = time.monotonic(), report.taken_at(name)
    subprocess.run([sys.executable, "-m", "tests.benchmarks.running", name], cwd=environment.ROOT, check=False)
    print(f"=== {name} took {time.monotonic() - began:.0f} s", flush=True)
    return report.taken_at(name) != before


def write_page() -> list[report.Kept]:
    """Write the page and its plots anew from all kept results, and return these."""
    results = report.kept(BENCHMARKS)
    found = {each.figure.name for each in results}
    if drawn := plots.can_draw():
        plots.draw_all([each.figure for each in results], PAGE.with_suffix(""))
    else:
        print(f"No plots: {', '.join(environment.absent(['matplotlib'])) or 'matplotlib is not there'}")
    missing = [name for name in BENCHMARKS if name not in found]
    PAGE.write_text(report.to_markdown(results, missing, plotted=drawn))
    return results


def verdict(results: list[report.Kept], broken: list[str]) -> int:
    """Print which limits were missed and what broke; return the exit status."""
    for name in broken:
        print(f"BROKE: {name}")
    missed = [(each.figure.name, limit) for each in results for limit in each.figure.limits if not limit.holds]
    for name, limit in missed:
        print(f"MISSED: {name}: {limit.claim}: {limit.measured:.3g}, allowed {limit.limit:g}")
    limits = sum(len(each.figure.limits) for each in results)
    print(f"\n{limits - len(missed)} of {limits} limits hold; the page is docs/performance.md.")
    return 1 if broken or missed else 0


if __name__ == "__main__":
    sys.exit(main())

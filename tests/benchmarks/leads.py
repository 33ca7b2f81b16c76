"""What it costs to read and check many leads, beside email_validator on the same addresses.

Usage: ``python -m tests.benchmarks.leads``; needs Linux and a minute.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.environment import ROOT, version
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.leads_client import COLUMNS, COMPANIES, write
from tests.benchmarks.running import run

__all__ = ["measure"]

COUNT, RUNS = 200_000, 3
TIME, MEMORY = 15.0, 60.0  # µs a lead, MB above idle
SOURCES = {"CSV file": "leads.csv", "JSON Lines file": "leads.jsonl", "list of objects": "list"}
HOW = f"""
{COUNT:,} leads with the columns {", ".join(COLUMNS)}, all addresses plain ASCII and different, at {COMPANIES:,}
companies, are read and prepared as the operator does: columns matched, addresses checked and normalised, duplicates
sought. Time is CPU, reading included, the median of {RUNS} fresh processes; email_validator's is that of
`validate_email(..., check_deliverability=False)` alone on the same addresses right after, in the same process.
Memory is the peak of the resident set above what the process held before, when it had read 100 leads of the same kind;
a list of objects is there before. The same is done again when a deferred task resumes. A MB is a million bytes.
""".strip().replace("\n", " ")


def measure() -> Figure:
    """Run every source in fresh processes, taking turns."""
    with tempfile.TemporaryDirectory(prefix="machfive-bench-") as folder:
        for name in SOURCES.values():
            if name != "list":
                write(Path(folder) / name, COUNT)
        found = {label: [] for label in SOURCES}
        for _ in range(RUNS):
            for label, name in SOURCES.items():
                found[label].append(once(name if name == "list" else str(Path(folder) / name), folder))
    micro = {label: median(runs, "cpu") / COUNT * 1e6 for label, runs in found.items()}
    library = statistics.median(each["library"] for runs in found.values() for each in runs) / COUNT * 1e6
    peaks = {label: max(each["above_idle"] for each in runs) / 1e6 for label, runs in found.items()}
    peer = f"email_validator {version('email-validator')} alone"
    return Figure(
        name="leads",
        title="Many leads, read and checked",
        how=HOW,
        columns=("leads from", "CPU µs a lead", "of email_validator's", "peak MB above idle"),
        rows=(
            *((label, round(cost, 1), round(cost / library, 2), round(peaks[label])) for label, cost in micro.items()),
            (peer, round(library, 1), 1, "not measured"),
        ),
        limits=(
            *(Limit(f"CPU a lead: {label}", cost, TIME, unit="µs") for label, cost in micro.items()),
            *(Limit(f"peak memory above idle: {label}", peak, MEMORY, unit="MB") for label, peak in peaks.items()),
        ),
        plots=(
            Plot(
                title=f"CPU a lead, {COUNT:,} leads",
                unit="µs",
                bars={**{f"MachFive, {label}": cost for label, cost in micro.items()}, peer: library},
                limit=TIME,
            ),
        ),
    )


def once(source: str, folder: str) -> dict[str, float]:
    """Measure one source in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.leads_client", source, str(COUNT)],
        cwd=ROOT,
        env={**os.environ, "AIRFLOW_HOME": f"{folder}/airflow"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def median(runs: list[dict[str, float]], what: str) -> float:
    """Return the median of one value."""
    return statistics.median(each[what] for each in runs)


if __name__ == "__main__":
    sys.exit(run("leads"))

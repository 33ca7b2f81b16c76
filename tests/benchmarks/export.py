"""How fast an export is written and counted, beside ``curl -o``, and how much memory that takes.

Usage: ``python -m tests.benchmarks.export``; needs curl, Linux with glibc, 2 GB of disk and five minutes.
"""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.environment import ROOT
from tests.benchmarks.export_client import WARM_UP
from tests.benchmarks.export_server import EMAILS_PER_LEAD, list_id, make_exports
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.running import run

FORMATS = ("csv", "json", "jsonl")
SIZES = SMALL, LARGE = 20_000, 200_000
PACE = 20_000_000  # bytes a second
RATIO, MEMORY = 0.8, 32.0
A_LEAD = 100.0  # bytes: a digest takes 48, its place in the set 16 to 64, and a set that grows holds its old table too
KEY = "mf_live_0123456789abcdefghijABCDEFGHIJ00"
MB = 1e6

HOW = f"""
A server process sends prebuilt exports of {EMAILS_PER_LEAD} emails a lead (500-900 bytes each, in several scripts), at
{PACE / MB:g} MB/s and as fast as it can. Each export is run by MachFiveExportListOperator.execute in a fresh process,
with a local file as its destination, and is compared byte by byte with what was sent (jsonl: line by line counted);
curl -o fetches the same bytes just before. Throughput is what the server sent (jsonl is made from the json), divided
by the time of the whole task, its look at the list, fsync and count included. Memory is the peak of the resident set
(VmHWM, reset before the export) above what the process held after it had exported {WARM_UP} leads and given the heap's
free memory back (malloc_trim); the larger of both paces. The growth between the two sizes is
the set of delivered leads' digests, some 90 bytes a lead. A MB is a million bytes.
""".strip().replace("\n", " ")


@dataclass(frozen=True)
class Transfer:
    """One export. Bytes and seconds; the last two are not known of curl."""

    size: int
    seconds: float
    cpu: float = 0.0
    above_idle: int = 0

    @property
    def speed(self) -> float:
        """MB a second."""
        return self.size / self.seconds / MB


@dataclass(frozen=True)
class Pair:
    """The same bytes, fetched by both."""

    ours: Transfer
    curl: Transfer

    @property
    def ratio(self) -> float:
        """Our throughput, of curl's."""
        return self.ours.speed / self.curl.speed


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run the server on the exports of a folder; gives its address."""
    command = [sys.executable, "-m", "tests.benchmarks.export_server", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def by_curl(url: str, source: Path, name: str, target: Path) -> Transfer:
    """Fetch an export with ``curl -o``."""
    path = f"{url}/api/v1/lists/{name}/export?format={source.suffix[1:]}"
    command = ["curl", "-sS", "-H", f"Authorization: Bearer {KEY}", "-o", str(target), "-w", "%{time_total}", path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    check(filecmp.cmp(source, target, shallow=False), "curl's file is not what was sent")
    return Transfer(target.stat().st_size, float(done.stdout))


def by_operator(url: str, source: Path, name: str, form: str, target: Path) -> Transfer:
    """Fetch an export with the operator, in a process of its own, and make sure that it is whole."""
    connection = json.dumps({"conn_type": "machfive", "host": url, "password": KEY})
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.export_client", name, form, str(target)],
        cwd=ROOT,
        env={**os.environ, "AIRFLOW_CONN_MACHFIVE_DEFAULT": connection, "AIRFLOW_HOME": str(target.parent / "airflow")},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    leads = int(source.stem)
    whole = lines(target) == leads if form == "jsonl" else filecmp.cmp(source, target, shallow=False)
    told = {"leads": leads, "emails": leads * EMAILS_PER_LEAD, "missing": 0, "extra": 0}
    check(whole and measured["told"].items() >= told.items(), f"the export of {source.name} as {form} is not whole")
    return Transfer(source.stat().st_size, measured["seconds"], measured["cpu"], measured["above_idle"])


def lines(path: Path) -> int:
    """Count lines in constant memory."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def check(holds: bool, otherwise: str) -> None:
    """Refuse to measure what does not work."""
    if not holds:
        raise RuntimeError(otherwise)


def transfers(folder: Path) -> dict[tuple[str, int, int], Pair]:
    """Fetch everything; by format, number of leads and pace."""
    make_exports(folder, (WARM_UP, *SIZES))
    found = {}
    with serving(folder) as url:
        for form in FORMATS:
            for leads in SIZES:
                for pace in (PACE, 0):
                    source = folder / f"{leads}.{'csv' if form == 'csv' else 'json'}"
                    name, target = list_id(leads, pace), folder / "exported"
                    curl = by_curl(url, source, name, target)
                    target.unlink()
                    found[form, leads, pace] = Pair(by_operator(url, source, name, form, target), curl)
                    target.unlink()
    return found


def measure() -> Figure:
    """Run everything."""
    with tempfile.TemporaryDirectory(prefix="machfive-bench-") as folder:
        found = transfers(Path(folder))
    peaks = {
        (form, leads): max(found[form, leads, pace].ours.above_idle for pace in (PACE, 0)) / MB
        for form in FORMATS
        for leads in SIZES
    }
    return Figure(
        name="export",
        title="Exports at wire speed, in little memory",
        how=HOW,
        columns=(
            "export",
            "MB sent",
            f"MB/s at {PACE / MB:g} MB/s",
            "curl",
            "of curl's",
            "MB/s unpaced",
            "curl",
            "CPU s unpaced",
            "peak MB above idle",
        ),
        rows=tuple(row(form, leads, found, peak) for (form, leads), peak in peaks.items()),
        limits=limits(found, peaks),
        plots=plots(found, peaks),
    )


def row(form: str, leads: int, found: Mapping[tuple[str, int, int], Pair], peak: float) -> tuple[str | float, ...]:
    """Return one line of the table."""
    paced, unpaced = found[form, leads, PACE], found[form, leads, 0]
    return (
        label(form, leads),
        round(paced.ours.size / MB),
        round(paced.ours.speed, 2),
        round(paced.curl.speed, 2),
        round(paced.ratio, 2),
        round(unpaced.ours.speed),
        round(unpaced.curl.speed),
        round(unpaced.ours.cpu, 1),
        round(peak, 1),
    )


def limits(found: Mapping[tuple[str, int, int], Pair], peaks: Mapping[tuple[str, int], float]) -> tuple[Limit, ...]:
    """Return what was promised."""
    throughput = [
        Limit(
            f"throughput at {PACE / MB:g} MB/s, of curl's: {label(form, LARGE)}",
            found[form, LARGE, PACE].ratio,
            RATIO,
            at_most=False,
        )
        for form in FORMATS
    ]
    memory = [Limit(f"peak memory above idle: {label(*key)}", peak, MEMORY, unit="MB") for key, peak in peaks.items()]
    growth = [
        Limit(
            f"memory of a further lead, from {SMALL:,} to {LARGE:,}: {form}",
            (peaks[form, LARGE] - peaks[form, SMALL]) * MB / (LARGE - SMALL),
            A_LEAD,
            unit="B",
        )
        for form in FORMATS
    ]
    return (*throughput, *memory, *growth)


def plots(found: Mapping[tuple[str, int, int], Pair], peaks: Mapping[tuple[str, int], float]) -> tuple[Plot, ...]:
    """Return the charts: the large exports' throughput, and everybody's memory."""
    paced, unpaced = (
        {
            "curl, csv": found["csv", LARGE, pace].curl.speed,
            "curl, json": found["json", LARGE, pace].curl.speed,
            **{f"MachFive, {form}": found[form, LARGE, pace].ours.speed for form in FORMATS},
        }
        for pace in (PACE, 0)
    )
    slowest = min(paced["curl, csv"], paced["curl, json"])
    return (
        Plot(f"{LARGE:,} leads, server at {PACE / MB:g} MB/s", "MB/s", paced, limit=RATIO * slowest),
        Plot(f"{LARGE:,} leads, server as fast as it can", "MB/s", unpaced, log=True),
        Plot(
            "Peak memory above idle",
            "MB",
            {f"MachFive, {label(*key)}": peak for key, peak in peaks.items()},
            limit=MEMORY,
        ),
    )


def label(form: str, leads: int) -> str:
    """Return what an export is called."""
    return f"{form}, {leads:,} leads"


if __name__ == "__main__":
    sys.exit(run("export"))

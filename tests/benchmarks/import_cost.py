"""What importing this provider costs a DAG file, beside the Airbyte provider, in one run.

The DAG processor imports every DAG file again and again, so CPU spent at import is spent all day. Two files are
measured: one that imports every operator and the sensor, and one that uses them as well.

``python -m tests.benchmarks.import_cost [--runs 9]`` takes two minutes.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys

from tests.benchmarks import environment
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.running import run

__all__ = ["measure"]

RUNS = 9
LIMIT = 0.25
PEER, PEER_USED = "Airbyte", "Airbyte, operator and sensor used"
OURS, OURS_USED = "MachFive, all modules", "MachFive, all operators and the sensor used"

# A DAG of nothing but Airflow's own goes before what is used: the first one of a process costs Airflow 20 ms.
BARE = """
with DAG("bare", schedule=None):
    BaseOperator(task_id="one") >> BaseOperator(task_id="other")
"""
IMPORT_OURS = """
import machfive_provider.operators.generate, machfive_provider.operators.export, machfive_provider.sensors.lead_list
"""
USE_OURS = """
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sensors.lead_list import MachFiveListSensor

with DAG("all_of_it", schedule=None):
    lead = {"email": "dana.reyes@example.com"}
    campaign = "c0000000-0000-4000-8000-000000000000"
    given = {"campaign_id": campaign, "email_count": 2, "email_signature": "Dana"}
    batch = MachFiveGenerateBatchOperator(task_id="batch", leads=[lead], deferrable=True, **given)
    MachFiveGenerateOperator(task_id="single", lead=lead, **given)
    wait = MachFiveListSensor(task_id="wait", list_id=batch.output, deferrable=True)
    wait >> MachFiveExportListOperator(task_id="export", list_id=batch.output, export_to="emails.jsonl")
"""
USE_PEER = """
from airflow.providers.airbyte.operators.airbyte import AirbyteTriggerSyncOperator
from airflow.providers.airbyte.sensors.airbyte import AirbyteJobSensor

with DAG("all_of_it", schedule=None):
    sync = AirbyteTriggerSyncOperator(task_id="sync", connection_id="c0000000", deferrable=True)
    AirbyteJobSensor(task_id="wait", airbyte_job_id=sync.output, deferrable=True)
"""
# By name: what has gone before, and what is measured.
FILES = {
    OURS: ("", IMPORT_OURS),
    PEER: ("", "import airflow.providers.airbyte.operators.airbyte"),
    "HTTP": ("", "import airflow.providers.http.operators.http"),
    "dbt Cloud": ("", "import airflow.providers.dbt.cloud.operators.dbt"),
    "Anthropic": ("", "import airflow.providers.anthropic.operators.batch"),
    OURS_USED: (BARE, USE_OURS),
    PEER_USED: (BARE, USE_PEER),
}
MEASURE = """
import gc, time
from airflow.sdk import DAG, BaseOperator
{before}
gc.disable()
before = time.process_time()
{measured}
print((time.process_time() - before) * 1000)
"""
HOW = """\
CPU of the imports after `from airflow.sdk import DAG, BaseOperator`: the median of {runs} fresh processes, the files
taking turns. Of MachFive, that is every module with an operator or sensor; of the peers, the one with the operator
that starts their work. "Used" means imported and instantiated in a DAG, after a DAG of bare operators in the same
process. Bytecode is on disk, as in an installation: each file has been imported once before. The garbage collector is
off meanwhile: whose share its one large collection falls into is luck."""

# With PYTHONDONTWRITEBYTECODE, as some container images set it, each process would compile all that it imports.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(runs: int = RUNS) -> Figure:
    """Let the files take turns in fresh processes."""
    absent = list(environment.absent(FILES))
    files = [name for name in FILES if not any(each.startswith(f"{_provider(name)}:") for each in absent)]
    for name in list(files):
        try:
            parse(name)  # the first import of each compiles it and writes the bytecode
        except RuntimeError as error:
            if name in (OURS, OURS_USED):
                raise
            files.remove(name)
            absent.append(f"{name}: installed, but {error}")
    taken: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(runs):
        for name in files:
            taken[name].append(parse(name))
    return figure(taken, runs, tuple(absent))


def parse(name: str) -> float:
    """Return the CPU milliseconds that one file costs in a fresh process."""
    command = [sys.executable, "-c", MEASURE.format(before=FILES[name][0], measured=FILES[name][1])]
    done = subprocess.run(command, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"its file broke: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def figure(taken: dict[str, list[float]], runs: int, absent: tuple[str, ...]) -> Figure:
    """Return the medians beside the peer's."""
    medians = {name: statistics.median(each) for name, each in taken.items()}
    peer, peer_used = (medians.get(name, math.nan) for name in (PEER, PEER_USED))
    rows = tuple(
        (
            _named(name),
            median,
            median / (peer_used if "used" in name else peer),
            ", ".join(f"{each:.0f}" for each in sorted(taken[name])),
        )
        for name, median in medians.items()
    )
    return Figure(
        name="import_cost",
        title="Importing it in a DAG file",
        how=HOW.format(runs=runs),
        columns=("DAG file", "CPU ms", f"of {PEER}'s", "each, ms"),
        rows=rows,
        limits=(
            Limit(f"imports, of {PEER}'s", medians[OURS] / peer, LIMIT),
            Limit(f"all operators and the sensor used, of {PEER}'s", medians[OURS_USED] / peer_used, LIMIT),
        ),
        plots=(
            Plot(
                title="CPU of importing it in a DAG file",
                unit="ms",
                bars=medians,
                limit=None if math.isnan(peer) else LIMIT * peer,
                log=True,
            ),
        ),
        absent=absent,
    )


def _provider(name: str) -> str:
    return name.partition(",")[0]


def _named(name: str) -> str:
    package = environment.PACKAGES.get(_provider(name))
    return f"{name} ({environment.version(package)})" if package else name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    chosen = parser.parse_args().runs
    sys.exit(run("import_cost", **({} if chosen == RUNS else {"runs": chosen})))

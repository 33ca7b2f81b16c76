"""How much a DAG file pays for importing this provider, beside the Airbyte provider, in one run.

The DAG processor imports every DAG file again and again, so CPU spent at import is spent all day.
The figure is the CPU time of the imports after ``from airflow.sdk import DAG, BaseOperator``, the
median over fresh processes that take turns. The peer is installed from the index into an environment
of its own; if it cannot be, it is named as absent and the benchmark fails.

Usage: ``python -m tests.benchmarks.import_cost [--runs 5]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-bench"
PEER = "apache-airflow-providers-airbyte"
LIMIT = 0.5

IMPORTS = {
    "machfive": "import machfive_provider.operators.generate, machfive_provider.operators.export, "
    "machfive_provider.sensors.lead_list",
    "airbyte": "import airflow.providers.airbyte.operators.airbyte",
}
MEASURE = """
import time
from airflow.sdk import DAG, BaseOperator
before = time.process_time()
{imports}
print((time.process_time() - before) * 1000)
"""


def install() -> Path:
    """Make the environment, with this very checkout and the peer beside the same Airflow."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    pin = ["--exclude-newer", os.environ["EXCLUDE_NEWER"]] if os.environ.get("EXCLUDE_NEWER") else []
    subprocess.run([*uv, *pin, f"apache-airflow=={version('apache-airflow')}", "-e", str(ROOT), PEER], check=True)
    return python


def measure(python: Path, name: str, home: str) -> float:
    """Return the CPU milliseconds of one provider's imports in a fresh process."""
    done = subprocess.run(
        [str(python), "-c", MEASURE.format(imports=IMPORTS[name])],
        env={**os.environ, "AIRFLOW_HOME": home},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def main() -> int:
    """Print both medians and their ratio; 1 if the ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    try:
        python = install()
    except subprocess.CalledProcessError as error:
        print(f"absent: {PEER} could not be installed ({error}); nothing was compared")
        return 1
    with tempfile.TemporaryDirectory() as home:
        for name in IMPORTS:
            measure(python, name, home)  # the first import of each compiles it
        taken = {name: [] for name in IMPORTS}
        for _ in range(runs):
            for name in IMPORTS:
                taken[name].append(measure(python, name, home))
    medians = {name: statistics.median(each) for name, each in taken.items()}
    ratio = medians["machfive"] / medians["airbyte"]
    print(f"\nCPU of the imports after 'from airflow.sdk import DAG, BaseOperator' (median of {runs} processes)\n")
    print("| provider | imports | CPU ms | all |")
    print("| --- | --- | ---: | --- |")
    for name, median in medians.items():
        each = ", ".join(f"{value:.0f}" for value in sorted(taken[name]))
        print(f"| {name} | {IMPORTS[name].removeprefix('import ')} | {median:.1f} | {each} |")
    print(f"\nmachfive / airbyte = {ratio:.2f} (limit {LIMIT})")
    return 0 if ratio < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

"""One export by the operator, in a process of its own: how long it took, and how much memory at most.

Usage: ``python -m tests.benchmarks.export_client LIST_ID FORMAT DESTINATION``, with the connection in the environment;
its last line is JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from machfive_provider.operators.export import MachFiveExportListOperator
from tests.benchmarks.export_server import list_id
from tests.tasks import Run

WARM_UP = 100


def export(name: str, form: str, destination: Path) -> dict[str, Any]:
    """Run the task and return what it tells of the export."""
    operator = MachFiveExportListOperator(
        task_id="export", list_id=name, export_to=str(destination), export_format=form, deferrable=False
    )
    run = Run(operator)
    run()
    return run.xcoms["machfive_export"]


def memory(what: str) -> int:
    """Return bytes: ``VmRSS`` is what the process holds now, ``VmHWM`` the most it has held."""
    return int(re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def main() -> None:
    """Export a tiny list to have everything imported, then the real one."""
    name, form, destination = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    export(list_id(WARM_UP), form, destination.with_name("warm-up"))
    # What imports have left free would hide what the export takes: it goes back to the system first.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    idle = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    started, cpu = time.perf_counter(), time.process_time()
    told = export(name, form, destination)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "above_idle": memory("VmHWM") - idle, "told": told}))


if __name__ == "__main__":
    main()

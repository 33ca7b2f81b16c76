"""One run of any size; exit code 1 if a requirement is not met."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.distributed.plan import Plan
from tests.distributed.report import shortcomings, table
from tests.distributed.run import DistributedRun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    options = _parser().parse_args(arguments)
    # So that the database server is stopped as well: the rest ends with this process in any case.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    plan = Plan(batches=options.batches, list_part=options.list_part, timeout=options.timeout)
    if options.without_kills:
        plan = replace(plan, kills=())
    folder = Path(tempfile.mkdtemp(prefix="machfive-distributed-"))
    outcome = DistributedRun(plan, folder, lambda line: print(line, flush=True)).run()
    wrong = shortcomings(outcome)
    print(f"\n{table(outcome)}\n")
    print(
        "\n".join(["Requirements not met:", *(f"  {each}" for each in wrong)]) if wrong else "All requirements are met."
    )
    if wrong or options.keep:
        print(f"Logs and files: {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return int(bool(wrong))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.distributed", description=__doc__)
    parser.add_argument("--batches", type=int, default=Plan.batches, help="in each half; %(default)s if not given")
    parser.add_argument("--list-part", type=float, default=Plan.list_part, help="see plan.py; %(default)s if not given")
    parser.add_argument("--timeout", type=float, default=Plan.timeout, help="in seconds; %(default)s if not given")
    parser.add_argument("--without-kills", action="store_true", help="kill nothing")
    parser.add_argument("--keep", action="store_true", help="leave logs and files behind in any case")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`make chaos`: the full runs, one mode after the other; exit code 1 if a requirement is not met."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.plan import FULL, full, short, without_search
from tests.chaos.report import shortcomings, table
from tests.chaos.run import ChaosRun

MODES = ("deferrable", "worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    if options.without_search:
        plans = [without_search(mode, seed) for mode in options.mode or ["worker"]]
    elif options.short:
        plans = [short(seed)]
    else:
        plans = [full(mode, seed, options.batches) for mode in options.mode or MODES]
    failed = False
    for plan in plans:
        print(f"Seed {plan.seed}, {' and '.join(plan.modes)}; again with --seed {plan.seed}.", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="machfive-chaos-"))
        outcome = ChaosRun(plan, folder, lambda line: print(line, flush=True)).run()
        wrong = shortcomings(outcome)
        print(f"\n{table(outcome)}\n")
        print(
            "\n".join(["Requirements not met:", *(f"  {each}" for each in wrong)])
            if wrong
            else "All requirements are met."
        )
        if wrong or options.keep:
            print(f"Logs and files: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
        failed = failed or bool(wrong)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat the faults and kills of that run")
    parser.add_argument("--mode", choices=MODES, action="append", help="one mode only")
    parser.add_argument("--batches", type=int, default=FULL, help="of each mode; %(default)s if not given")
    parser.add_argument("--short", action="store_true", help="the run that is also a test")
    parser.add_argument("--keep", action="store_true", help="leave logs and files behind in any case")
    parser.add_argument(
        "--without-search",
        action="store_true",
        help="buy without the search for earlier purchases, to show that this suite can fail: expect exit code 1",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

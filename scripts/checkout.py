"""Where `make run` and `make ui` work in this checkout, and how one of them keeps it for itself."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / ".run"
HOME = RUN / "airflow"
RESULTS = RUN / "results"
# The user's files: nothing here deletes them.
OWN_DAGS = ROOT / "dags"
EXAMPLES = ROOT / "example_dags"
LEADS = EXAMPLES / "data" / "leads.csv"


class CheckoutInUseError(RuntimeError):
    """Another run works in this checkout."""


@contextmanager
def only_run() -> Iterator[None]:
    """Begin with empty folders, which no second run in this checkout may delete meanwhile.

    A signal becomes an exception from here on, so that every `finally` on the way out is run.
    """
    # The provider's own modules import Airflow, which creates AIRFLOW_HOME: not in the user's home directory.
    os.environ["AIRFLOW_HOME"] = str(HOME)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)
    RUN.mkdir(exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckoutInUseError(f"another run is using {RUN}; stop it first.") from None
        for folder in (HOME, RESULTS):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        yield


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)

"""Run a command and end it, with all it started, as soon as whoever asked for it is gone.

`python guard.py COMMAND...`: the caller keeps the other end of our standard input. However the caller ends,
by plan, by an exception or by SIGKILL, the operating system closes that pipe, and the end of file is what
stops the command. A signal handler in the caller could not promise that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.processes import end_session

GRACE_SECONDS = 15.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(command: list[str]) -> int:
    """Run the command until it ends or our standard input does; return its exit code."""
    if os.getsid(0) != os.getpid():
        print("guard.py must be started as the leader of a session of its own", file=sys.stderr)
        return 2
    for number in STOPPING:
        signal.signal(number, _stop)
    threading.Thread(target=_stop_with_caller, daemon=True).start()
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL).wait()
    finally:
        # Whether the command ended by itself or is being ended: none of its children may stay.
        end_session(os.getpid(), grace=GRACE_SECONDS, but=frozenset({os.getpid()}))


def _stop(number: int, _frame: FrameType | None) -> None:
    for each in STOPPING:  # once is enough: a second one must not cut the clearing up short
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _stop_with_caller() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""The sandbox on the command line."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from typing import get_args

from machfive_provider.sandbox.model import Generation, SandboxSettings
from machfive_provider.sandbox.sandbox import Sandbox


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m machfive_provider.sandbox``."""
    parser = argparse.ArgumentParser(
        prog="python -m machfive_provider.sandbox",
        description="A stand-in for the MachFive API. Costs nothing, forgets everything when it stops.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8555, help="0 picks a free one")
    parser.add_argument("--generation", choices=get_args(Generation), default="2025", help="edition of the API")
    parser.add_argument("--workspaces", type=int, default=1, help="how many workspaces")
    parser.add_argument("--credits", type=int, default=2000, help="credits of each workspace")
    parser.add_argument("--concurrency", type=int, default=3, help="unfinished batches a workspace may have")
    parser.add_argument("--pending-seconds", type=float, default=1.0, help="how long a batch is pending")
    parser.add_argument(
        "--processing-seconds",
        type=float,
        default=5.0,
        help="how long it is processing after that",
    )
    parser.add_argument("--generate-seconds", type=float, default=1.0, help="how long a generate call takes")
    parser.add_argument("--seed", type=int, default=0, help="decides keys, ids and texts")
    parser.add_argument("--demo", action="store_true", help="begin with lists in every state, two weeks of them")
    parser.add_argument("--quiet", action="store_true", help="do not log a line per request")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; returns the exit status, 2 where it cannot start."""
    parser = make_parser()
    given = vars(parser.parse_args(arguments))
    quiet = given.pop("quiet")
    try:
        sandbox = Sandbox(SandboxSettings(**given, access_log=not quiet))
    except ValueError as problem:
        parser.error(str(problem))
    if not quiet:
        logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    try:
        sandbox.start()
    except OSError as problem:
        parser.error(f"cannot listen on {sandbox.settings.host} port {sandbox.settings.port}: {problem.strerror}")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        # Flushed, because a script that starts the sandbox reads these lines from a pipe.
        sys.stdout.write(_introduction(sandbox))
        sys.stdout.flush()
        stopped.wait()
    finally:
        sandbox.stop()
    return 0


def _introduction(sandbox: Sandbox) -> str:
    lines = [f"MachFive sandbox, generation {sandbox.settings.generation}, at {sandbox.base_url}"]
    for number, workspace in enumerate(sandbox.workspaces, start=1):
        lines += [
            "",
            workspace.name,
            f"  base URL  {sandbox.base_url}",
            f"  API key   {workspace.api_key}",
            f"  credits   {workspace.credits}",
        ]
        for campaign in workspace.campaigns:
            note = "" if campaign.built_at is not None else " (not set up for generation)"
            lines.append(f"  campaign  {campaign.id}  {campaign.name}{note}")
        connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": workspace.api_key}
        suffix = "DEFAULT" if number == 1 else str(number)
        lines += ["", f"export AIRFLOW_CONN_MACHFIVE_{suffix}='{json.dumps(connection)}'"]
    return "\n".join([*lines, "", ""])


if __name__ == "__main__":
    sys.exit(main())

"""Carries a command out: errors become their text on standard error, and the command ends with an exit code."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from machfive_provider.cli.definition import make_parser

__all__ = ["main", "run"]

_FAILED, _WRONG_USAGE, _INTERRUPTED = 1, 2, 130  # 130 is what shells say of Ctrl+C


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m machfive_provider`` with these arguments, those of the process by default."""
    run(make_parser().parse_args(arguments))


def run(args: Namespace) -> None:
    """Run one command, of either parser.

    :raises SystemExit: if it fails, with the exit code
    """
    if args.subcommand == "sandbox":
        from machfive_provider.sandbox.__main__ import main as sandbox

        sys.exit(sandbox(args.arguments))
    if code := _code(args):
        sys.exit(code)


def _code(args: Namespace) -> int:
    # Connections are in Airflow's database, and only a process that says this may read it, as Airflow's own
    # `connections get` does (airflow/cli/commands/connection_command.py).
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from machfive_provider import exceptions
    from machfive_provider.cli import commands
    from machfive_provider.cli.connection import source

    try:
        code = commands.BY_NAME[args.subcommand](args)
        sys.stdout.flush()
    except exceptions.MachFiveError as error:
        _tell(str(error))
        if hasattr(args, "conn_id") and _may_be_the_connection(error):
            _tell(source(args))
        return _WRONG_USAGE if isinstance(error, exceptions.ConfigurationError) else _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone, as in `… | head`; Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except OSError as error:
        _tell(str(error))
        return _FAILED
    return code


def _may_be_the_connection(error: Exception) -> bool:
    from machfive_provider import exceptions

    return isinstance(
        error,
        (
            exceptions.ForbiddenError,
            exceptions.NotFoundError,
            exceptions.ProtocolError,
            exceptions.TransportError,
            exceptions.UnauthorizedError,
        ),
    )


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")

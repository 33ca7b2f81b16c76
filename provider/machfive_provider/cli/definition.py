"""The commands and their arguments, as plain data, and the two parsers made of them: Airflow's and our own.

Airflow imports this module whenever ``airflow`` is called, so it imports nothing but argparse.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

__all__ = ["COMMANDS", "Argument", "Command", "get_commands", "make_parser"]

_GROUP = "Look at campaigns and lists of MachFive, export lists, check leads. Nothing here spends credits."
_EXIT_CODES = (
    "Exit codes: 0 done; 1 failed, for instance because of an error of the API or of leads that cannot be used; "
    "2 wrong usage or a wrong connection."
)
_NO_PREFIX = "\0"  # no argument begins with it


class Argument(NamedTuple):
    """An argument of a command.

    :param settings: as argparse's ``add_argument`` takes them
    """

    flags: tuple[str, ...]
    settings: dict[str, Any]


class Command(NamedTuple):
    """A command.

    :param passes_on: whether everything after its name goes to a program with arguments of its own
    """

    name: str
    help: str
    arguments: tuple[Argument, ...]
    passes_on: bool = False


def _argument(*flags: str, **settings: Any) -> Argument:
    return Argument(flags, settings)


_OUTPUT = _argument(
    "-o", "--output", choices=("table", "json", "csv"), default="table", help="how to write the result; default: table"
)
_CONNECTION = _argument(
    "--conn-id",
    metavar="ID",
    help="the Airflow connection; default: the environment variable MACHFIVE_API_KEY if it holds a key "
    "(MACHFIVE_BASE_URL: its host), else machfive_default",
)
_LIST = _argument("list_id", metavar="LIST", help="the list's id, as `lists` shows it")

COMMANDS = (
    Command(
        "campaigns",
        "Show the campaigns of the workspace",
        (
            _argument("query", metavar="TEXT", nargs="?", help="a part of the name; default: all campaigns"),
            _OUTPUT,
            _CONNECTION,
        ),
    ),
    Command(
        "lists",
        "Show lists, newest first",
        (
            _argument("--campaign", metavar="CAMPAIGN", help="a campaign's id or its whole name"),
            _argument(
                "--status",
                choices=("running", "pending", "processing", "completed", "failed"),
                help="running is pending or processing",
            ),
            _argument("--text", help="a part of the list's name, in any case"),
            _argument("--since", metavar="TIME", help="created since then: 30m, 2h or 7d ago, or a date or time (UTC)"),
            _argument("--limit", metavar="N", type=int, default=20, help="so many at most; default: 20"),
            _argument("--watch", action="store_true", help="keep the table up to date until Ctrl+C"),
            _argument(
                "--interval",
                metavar="SECONDS",
                type=float,
                default=10.0,
                help="between two updates; default: 10",
            ),
            _OUTPUT,
            _CONNECTION,
        ),
    ),
    Command("show", "Show one list: status, times, leads, emails", (_LIST, _OUTPUT, _CONNECTION)),
    Command(
        "export",
        "Write the emails of a completed list to a file and count them",
        (
            _LIST,
            _argument("path", metavar="PATH", help="a file, or a URL such as s3://aws_default@bucket/emails.jsonl"),
            _argument("--format", choices=("csv", "json", "jsonl", "parquet"), help="default: by the ending of PATH"),
            _OUTPUT,
            _CONNECTION,
        ),
    ),
    Command(
        "check",
        "Say what a task would send of a file of leads, what it would skip and what it would cost; sends nothing",
        (
            _argument("path", metavar="FILE", help="leads as CSV, JSON, JSON Lines or Excel: a path or URL"),
            _argument(
                "--columns",
                metavar="JSON",
                help='MachFive\'s fields to columns of the file: \'{"email": "E-mail", "name": ["First", "Last"]}\'',
            ),
            _argument("--on-invalid", choices=("fail", "skip"), default="fail", help="invalid leads; default: fail"),
            _argument(
                "--on-duplicate", choices=("fail", "first"), default="fail", help="same email twice; default: fail"
            ),
            _argument(
                "--suppress",
                action="append",
                metavar="WHO",
                help="opt-outs: a file, an address or a domain; repeatable",
            ),
            _argument(
                "--already-written",
                action="append",
                metavar="RESULT",
                help="earlier results: a file or a pattern; repeatable",
            ),
            _argument("--enrichment", action="store_true", help="with enrichment_enabled: two credits a lead"),
            _OUTPUT,
        ),
    ),
    Command(
        "sandbox",
        "Run a stand-in for the MachFive API on this machine; --help tells its own arguments",
        (_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="the sandbox's own"),),
        passes_on=True,
    ),
)


def get_commands() -> list[Any]:
    """Return the group ``airflow machfive`` (key ``cli`` of the provider info)."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    class PassedOn(Arg):
        def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
            _pass_on(parser)
            super().add_to_parser(parser)

    def made(argument: Argument, kind: Any) -> Any:
        return kind(argument.flags, **argument.settings)

    run = lazy_load_command("machfive_provider.cli.run.run")
    commands = [
        ActionCommand(
            name=each.name,
            help=each.help,
            func=run,
            args=[made(argument, PassedOn if each.passes_on else Arg) for argument in each.arguments],
        )
        for each in COMMANDS
    ]
    return [GroupCommand(name="machfive", help=_GROUP, subcommands=commands, epilog=_EXIT_CODES)]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m machfive_provider``."""
    parser = argparse.ArgumentParser(prog="python -m machfive_provider", description=_GROUP, epilog=_EXIT_CODES)
    group = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for each in COMMANDS:
        made = group.add_parser(each.name, help=each.help, description=each.help)
        if each.passes_on:
            _pass_on(made)
        for flags, settings in each.arguments:
            made.add_argument(*flags, **settings)
    return parser


def _pass_on(parser: argparse.ArgumentParser) -> None:
    """Let the parser take options as plain arguments: of its own accord, argparse refuses those it does not know."""
    parser.prefix_chars = _NO_PREFIX

"""docs/hook.md and docs/command-line.md: what they show is run block after block, and prints what stands there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from machfive_provider.cli.run import main
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from tests.docs.pages import ROOT, blocks

Connect = Callable[..., None]
SPINNER = "⠹"  # on a terminal only


def plain(text: str) -> str:
    """Leave out line breaks, and what differs from run to run: times, ages, the size of a file and ids of requests."""
    text = re.sub(r"req_\w+", "REQUEST", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"\d+ (s|min|h)\b( \d+ s)?", "AGE", text)
    text = re.sub(r"[\d,]+ bytes", "SIZE", text)
    return " ".join(text.split())


def run(source: str, names: dict[str, object]) -> None:
    """Run a block as a notebook does: the value of a last expression is printed."""
    tree = ast.parse(source)
    last = tree.body[-1]
    if isinstance(last, ast.Expr) and not ast.unparse(last).startswith("print("):
        tree.body[-1] = ast.parse(f"_shown = {ast.unparse(last)}").body[0]
    names.pop("_shown", None)
    exec(compile(tree, "hook.md", "exec"), names)
    if "print" not in ast.unparse(last) and (shown := names.get("_shown")) is not None:
        print(repr(shown))


def test_the_hook(
    timed_sandbox: Sandbox,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    connect(timed_sandbox)  # so that the connection which the page sets is forgotten afterwards
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = ""
    for block in blocks("docs/hook.md", "python", "text"):
        if block.language == "python":
            assert printed == ""
            text = block.text.replace("http://127.0.0.1:8555", timed_sandbox.base_url)
            run(text.replace("mf_live_…", timed_sandbox.api_key), names)
            printed = capsys.readouterr().out
        elif not block.text.startswith(SPINNER):
            assert plain(printed) == plain(block.text)
            printed = ""
    names["hook"].close()
    assert len(timed_sandbox.purchases) == 1


def buy(hook: MachFiveHook, campaign: str, name: str, leads: list[dict[str, str]]) -> str:
    options = {"list_name": name, "email_count": 3}
    return hook.generate_batch(hook.resolve_campaign(campaign).id, leads, options).list_id


def test_the_command_line(
    timed_sandbox: Sandbox,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """The page's three lists: one of a task, one that failed, one in work. Its last command has a wrong key."""
    connect(timed_sandbox)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # as the command does, and undone after the test
    monkeypatch.delenv("MACHFIVE_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example_dags").symlink_to(ROOT / "example_dags")
    people = [{"email": f"person{number}@example.com"} for number in range(58)]
    with MachFiveHook() as hook:
        buy(hook, "Spring Outreach", "daily_outreach write_emails [af1:0123456789-0123456789ab:0..012345]", people)
        timed_sandbox.fail(buy(hook, "Product Launch", "Trade fair contacts", people))
        in_work = buy(hook, "Product Launch", "Q4 decision makers [af1:0123456789-0123456789ab:3..012345]", people)
        timed_sandbox.set_status(in_work, "processing")
    for block in blocks("docs/command-line.md", "console"):
        command, _, expected = block.text.partition("\n")
        if "Invalid API key" in expected:
            monkeypatch.setenv("MACHFIVE_API_KEY", "mf_live_wrong")
            monkeypatch.setenv("MACHFIVE_BASE_URL", timed_sandbox.base_url)
        with suppress(SystemExit):
            main(shlex.split(command)[3:])
        out, err = capsys.readouterr()
        assert plain(out + err) == plain(re.sub("^Exporting .*", "", expected)), str(block)

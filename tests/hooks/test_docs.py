"""docs/hook.md: its code runs as it is written, one block after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from machfive_provider.sandbox import Sandbox

PAGE = Path(__file__).parents[2] / "docs" / "hook.md"


def test_the_walk_through(
    timed_sandbox: Sandbox,
    connect: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    connect(timed_sandbox)  # so that the connection which the page sets is forgotten afterwards
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text().replace("http://127.0.0.1:8555", timed_sandbox.base_url)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.replace("mf_live_…", timed_sandbox.api_key), re.DOTALL):
        exec(block, names)
    names["hook"].close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emails.csv", "emails.jsonl"]
    printed = capsys.readouterr().out
    for expected in ("NotFoundError False 404 NOT_FOUND", "leads[0]: email is not a valid address"):
        assert expected in printed
        assert expected in page
    assert len(timed_sandbox.purchases) == 1

"""What the page makes of names that a stranger chose: campaigns and lists are named in MachFive."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from machfive_provider.ui.app import app
from machfive_provider.ui.html import render
from machfive_provider.ui.rows import join
from machfive_provider.ui.table import Query
from tests.ui.builders import CAMPAIGN, NOW, a_list, a_task, list_id

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_nothing_that_a_stranger_named_becomes_markup():
    error = {"class": HOSTILE, "message": HOSTILE, "remedy": HOSTILE, "code": HOSTILE, "request_id": HOSTILE}
    task = a_task("failed", dag=HOSTILE, task=HOSTILE, phase="failed", list_id=list_id(1), error=error)
    (row,) = join([a_list(1, "failed", custom_name=HOSTILE)], [task], {CAMPAIGN: HOSTILE}, NOW)
    known = {"row": row, "query": Query(), "now": NOW, "view": SimpleNamespace(conn_id=HOSTILE, now=NOW)}
    shown = render("row.html", **known, may_preview=False)
    assert shown.count("&lt;script&gt;") >= 5
    shown += render("refused.html", status=403, reason=HOSTILE)
    assert "<script>alert" not in shown
    assert "<img" not in shown


@pytest.mark.parametrize("path", ["/", "/static/machfive.js", "/nowhere"])
def test_the_browser_runs_only_our_own_scripts(path: str):
    policy = TestClient(app, raise_server_exceptions=False).get(path).headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy

"""Which request a scripted fault is for, and descriptions of faults that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from machfive_provider.sandbox import Sandbox
from tests.sandbox.conftest import World

LISTS = "/api/v1/lists"


def test_faults_wait_for_their_turn_and_their_text(world: World) -> None:
    sandbox = world.sandbox
    sandbox.fault("status", "lists", status=500, times=2, after=1)
    sandbox.fault("status", "lists", status=503)
    answers = [world.client.get(LISTS).status_code for _ in range(5)]
    assert answers == [503, 500, 500, 200, 200]
    sandbox.fault("status", "generate-batch", status=500, contains="Ümlaut", times=None)
    assert world.batch(options={"list_name": "plain"}).status_code == 202
    assert world.batch(options={"list_name": "Ümlaut"}).status_code == 500
    escaped = b'{"leads": [{"email": "a@x.example"}], "options": {"list_name": "\\u00dcmlaut"}}'
    url = f"/api/v1/campaigns/{sandbox.campaign_id}/generate-batch"
    headers = {"Content-Type": "application/json"}
    assert world.client.post(url, content=escaped, headers=headers).status_code == 500
    assert sandbox.unused_faults == []
    unused = sandbox.fault("reset", contains="never said")
    assert world.client.get(LISTS).status_code == 200
    assert sandbox.unused_faults == [unused]
    sandbox.clear_faults()
    assert world.batch(options={"list_name": "Ümlaut"}).status_code == 202


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kind": "explode"}, "explode"),
        ({"kind": "reset", "endpoint": "everything"}, "everything"),
        ({"kind": "cut_name", "endpoint": "lists", "length": 3}, "lists"),
        ({"kind": "cut_name"}, "length"),
        ({"kind": "reset", "seconds": 1}, "seconds"),
        ({"kind": "reset", "times": 0}, "times"),
        ({"kind": "reset", "after": -1}, "after"),
        ({"kind": "reset", "contains": 7}, "contains"),
        ({"kind": "status", "status": "x"}, "status"),
        ({"kind": "status", "status": 99}, "status"),
        ({"kind": "unknown_status", "status": 500}, "status"),
        ({"kind": "delay", "seconds": "1"}, "seconds"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Sandbox().fault(**arguments)

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.sandbox.conftest import MakeWorld


def test_a_seed_settles_keys_ids_and_bytes(make_world: MakeWorld) -> None:
    first, second, other = make_world(seed=5), make_world(seed=5), make_world(seed=6)
    ids = [world.bought("a@x.example", "b@x.example") for world in (first, second, other)]
    assert ids[0] == ids[1] != ids[2]
    assert first.sandbox.api_key == second.sandbox.api_key != other.sandbox.api_key
    assert first.export(ids[0]).content == first.export(ids[0]).content == second.export(ids[1]).content
    assert first.export(ids[0]).content != other.export(ids[2]).content


def test_the_first_workspace_is_always_the_same_and_the_others_differ() -> None:
    one, two = Sandbox(), Sandbox(SandboxSettings(workspaces=3))
    assert one.workspaces[0] == two.workspaces[0]
    assert re.fullmatch(r"mf_live_[A-Za-z0-9]{32}", one.api_key)
    assert len({workspace.api_key for workspace in two.workspaces}) == 3
    ids = [campaign.id for workspace in two.workspaces for campaign in workspace.campaigns]
    assert len(set(ids)) == 9
    assert two.workspaces[1].campaigns[0].name not in [campaign.name for campaign in one.workspaces[0].campaigns]


@pytest.mark.parametrize(
    "settings",
    [
        {"generation": "2024"},
        {"port": 70000},
        {"workspaces": 0},
        {"credits": -1},
        {"concurrency": 0},
        {"processing_seconds": -1},
        {"pending_seconds": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SandboxSettings(**settings)

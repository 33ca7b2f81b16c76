from __future__ import annotations

import re

import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.sandbox.exports import write_email
from tests.sandbox.conftest import LEAD, MakeWorld

LEADS = [
    {"email": f"lead{number}@x.example", "name": "Grace B. Hopper", "company": "Navy", "title": "Admiral"}
    for number in range(40)
]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_emails_have_a_real_length_and_are_hard_to_parse(step: int) -> None:
    for lead in [*LEADS, {"email": "bare@x.example"}]:
        body = str(write_email(0, "Spring Outreach", lead, step, "")["body"])
        assert 60 <= len(body.split()) <= 120, body
        assert {",", '"', "\n"} <= set(body)
        assert not re.search(r"[{}]", body)


def test_emails_are_personal_and_various() -> None:
    first = write_email(0, "Spring Outreach", LEADS[0], 1, "Robin\nMachFive")
    assert str(first["body"]).startswith("Hi Grace,\n")
    assert str(first["body"]).endswith("\n\nRobin\nMachFive")
    everything = " ".join(str(write_email(0, "Spring Outreach", LEADS[0], step, "")) for step in range(1, 6))
    assert "Navy" in everything
    bodies = {write_email(0, "Spring Outreach", lead, 1, "")["body"] for lead in LEADS}
    subjects = {write_email(0, "Spring Outreach", lead, 1, "")["subject"] for lead in LEADS}
    assert len(bodies) > 10
    assert len(subjects) == 3


def test_emails_follow_from_seed_campaign_address_and_step() -> None:
    same = [[write_email(3, "A", lead, 2, "") for lead in LEADS] for _ in range(2)]
    assert same[0] == same[1]
    assert [write_email(4, "A", lead, 2, "") for lead in LEADS] != same[0]
    assert [write_email(3, "A", lead, 3, "")["body"] for lead in LEADS] != [each["body"] for each in same[0]]


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


def test_the_name_may_carry_anything(make_world: MakeWorld) -> None:
    world = make_world()
    odd = {**LEAD, "name": '{0} "Bobby", tables\r\n', "company": "=1+1,\n😀"}
    list_id = world.post("generate-batch", {"leads": [odd]}).json()["list_id"]
    assert world.export(list_id, "json").json()["leads"][0]["company"] == "=1+1,\n😀"

from __future__ import annotations

import csv
import io
import re

from machfive_provider.sandbox.exports import write_email
from tests.sandbox.conftest import LEAD, World

LEADS = [
    {"email": f"lead{number}@x.example", "name": "Grace B. Hopper", "company": "Navy", "title": "Admiral"}
    for number in range(40)
]


def test_emails_have_a_real_length_and_are_hard_to_parse() -> None:
    for lead in [*LEADS, {"email": "bare@x.example"}]:
        for step in range(1, 6):
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


def test_csv_and_json_exports_tell_the_same(each_world: World) -> None:
    options = {"email_count": 2, "email_signature": 'Robin "R." Vale, MachFive\n+49 30 1'}
    list_id = each_world.bought("a@x.example", "b@x.example", options=options)
    as_csv, as_json = each_world.export(list_id), each_world.export(list_id, "json")
    assert as_csv.headers["Content-Disposition"] == f'attachment; filename="MachFive-{list_id}.csv"'
    assert as_csv.headers["Content-Type"].startswith("text/csv")
    assert as_csv.text.count("\r\n") == 3
    assert each_world.client.get(f"/api/v1/lists/{list_id}/export").content == as_csv.content
    rows = list(csv.DictReader(io.StringIO(as_csv.text, newline="")))
    assert list(rows[0]) == ["email", "name", "company", "title", "subject_1", "body_1", "subject_2", "body_2"]
    leads = as_json.json()["leads"]
    assert [lead["email"] for lead in leads] == [row["email"] for row in rows] == ["a@x.example", "b@x.example"]
    for row, lead in zip(rows, leads, strict=True):
        assert [email["step"] for email in lead["sequence"]] == [1, 2]
        for email in lead["sequence"]:
            assert row[f"subject_{email['step']}"] == email["subject"]
            assert row[f"body_{email['step']}"] == email["body"]
            assert email["body"].endswith(options["email_signature"])


def test_a_lead_may_hold_anything_or_only_an_address(world: World) -> None:
    odd = {**LEAD, "name": '{0} "Bobby", tables\r\n', "company": "=1+1,\n😀"}
    response = world.post("generate-batch", {"leads": [odd, {"email": "only@x.example"}]})
    first, second = world.export(response.json()["list_id"], "json").json()["leads"]
    assert first["company"] == "=1+1,\n😀"
    assert set(second) == {"email", "sequence"}

"""Who has a sequence in earlier results, whatever their format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machfive_provider.delivery.written import find_results, written_addresses
from machfive_provider.exceptions import ConfigurationError

EMAIL = {"step": 1, "subject": "Hello", "body": "Text"}
LEADS = [
    {"email": "ann@example.com", "sequence": [EMAIL]},
    {"email": "bob@example.com", "sequence": []},
    {"email": "cal@example.com", "sequence": None},
    {"sequence": [EMAIL]},
    "odd",
]
CONTENT = {
    "a.json": json.dumps({"leads": LEADS}),
    "a.jsonl": "\n".join(map(json.dumps, LEADS)),
    "flat.jsonl": '{"email":"ann@example.com","subject_1":"Hello","body_1":"Text"}\n'
    '{"email":"bob@example.com","subject_1":null}\n',
    "a.csv": "email,subject,body\nann@example.com,Hello,Text\nbob@example.com,,\n\n",
    "odd.csv": "who,what\nann@example.com,x\n",
}


@pytest.mark.parametrize("name", CONTENT)
def test_formats(name: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text(CONTENT[name])
    assert list(written_addresses([str(path)])) == ["ann@example.com"]


def test_which_files(tmp_path: Path):
    for day in ("01", "02"):
        (tmp_path / day).mkdir()
        for name in ("emails.jsonl", "emails.jsonl.missing.csv", "other.txt"):
            (tmp_path / day / name).write_text("")
    everything = [str(tmp_path / day / "emails.jsonl") for day in ("01", "02")]
    assert find_results(f"{tmp_path}/*/emails.jsonl") == everything
    assert find_results(f"{tmp_path}/*/*.csv") == [], "missing leads are no result"
    assert find_results(f"{tmp_path}/*/emails.jsonl", own=everything[1]) == everything[:1]
    assert (
        find_results([everything[0], everything[0], f"{tmp_path}/no/such.csv", f"{tmp_path}/no/*.csv"])
        == everything[:1]
    )
    assert find_results([]) == []


def test_what_cannot_be_read_stops_the_task(tmp_path: Path):
    (tmp_path / "broken.json").write_text('{"leads": [')
    with pytest.raises(ConfigurationError, match=r"broken\.json.*paid for again"):
        list(written_addresses([str(tmp_path / "broken.json")]))
    for wrong in (5, [5], [""], f"{tmp_path}/*.xlsx", "nosuch://bucket/*.csv"):
        with pytest.raises(ConfigurationError, match="skip_already_written"):
            find_results(wrong)

"""Each command against a sandbox: what it writes, in which form, and with which exit code it ends."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pendulum
import pytest

from machfive_provider.exceptions import ListFailedError
from machfive_provider.purchase.tag import Tag
from machfive_provider.sandbox import Sandbox
from tests.cli.conftest import Call, buy
from tests.sockets import unused_url
from tests.tasks import LEADS, UNKNOWN_ID, leaks

TAG = str(Tag("0123456789", "0123456789ab", 2, None, "012345"))
Connect = Callable[..., None]


@pytest.fixture
def done(sandbox: Sandbox, connect: Connect) -> Sandbox:
    """Give a sandbox whose lists complete at once, and connect to it."""
    connect(sandbox)
    return sandbox


@pytest.fixture
def slow(slow_sandbox: Sandbox, connect: Connect) -> Sandbox:
    """Give a sandbox whose lists end by hand, and connect to it."""
    connect(slow_sandbox)
    return slow_sandbox


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- campaigns, lists, show


def test_campaigns(call: Call, done: Sandbox):
    mine = done.workspaces[0].campaigns
    assert [(each["id"], each["name"]) for each in call("campaigns", "-o", "json").json] == [
        (each.id, each.name) for each in mine
    ]
    assert [each["id"] for each in rows(call("campaigns", mine[1].name.upper(), "-o", "csv").out)] == [mine[1].id]
    table = call("campaigns").out.splitlines()
    assert table[0].split() == ["CAMPAIGN", "ID", "NAME", "CREATED"]
    assert mine[0].id in table[1]
    assert call("campaigns", "nowhere") == (0, "The workspace has no campaign with 'nowhere' in its name.\n", "")
    assert call("campaigns", "nowhere", "-o", "json").json == []


def test_lists_and_their_filters(call: Call, slow: Sandbox):
    first, second = (each.name for each in slow.workspaces[0].campaigns[:2])
    old, failed, running = buy(slow, f"Spring {TAG}"), buy(slow, "Summer"), buy(slow, "SPRING 2", campaign=1)
    slow.complete(old)
    slow.fail(failed)

    def ids(*arguments: str) -> list[str]:
        return [each["id"] for each in call("lists", "-o", "json", *arguments).json]

    assert ids() == [running, failed, old]
    assert ids("--campaign", first.lower()) == ids("--campaign", slow.campaign_id) == [failed, old]
    slow.set_status(old, "pending")
    assert ids("--status", "running") == [running, old]
    slow.complete(old)
    assert ids("--status", "running") == [running]
    assert ids("--status", "failed") == [failed]
    assert ids("--text", "spring") == [running, old]
    assert ids("--since", "1h") == [running, failed, old]
    assert ids("--since", pendulum.now("UTC").add(hours=1).to_iso8601_string(), "--campaign", second) == []
    shown = call("lists", "-o", "json", "--text", "Spring [").json[0]
    assert (shown["name"], shown["list_name"], shown["by_airflow"]) == ("Spring", f"Spring {TAG}", True)
    assert (shown["campaign"], shown["status"]) == (first, "completed")


def test_no_more_pages_are_read_than_are_needed(call: Call, done: Sandbox):
    for number in range(101):
        buy(done, f"List {number}", leads=LEADS[:1])
    for arguments, pages in ((("--since", pendulum.now("UTC").add(hours=1).isoformat()), 1), (("--limit", "100"), 2)):
        before = len(done.requests_to("lists"))
        call("lists", *arguments)
        assert len(done.requests_to("lists")) - before == pages


def test_the_table_of_lists_is_for_people(call: Call, slow: Sandbox):
    for name in (f"Spring {TAG}", "Summer [bold]"):
        buy(slow, name)
    code, out, err = call("lists", "--limit", "1")
    heading, line = out.splitlines()
    assert heading.split() == ["LIST", "ID", "STATUS", "AGE", "TOOK", "NAME", "CAMPAIGN"]
    assert "Summer [bold]" in line
    assert (code, err) == (
        0,
        "There are more than 1 list: --limit shows more; --status, --text and --since choose.\n",
    )
    _, out, err = call("lists", "--text", "spring")
    assert TAG not in out
    assert err == ""
    assert call("lists", "--text", "winter") == (0, "No lists found.\n", "")
    assert len(call("lists", "--text", "winter", "-o", "csv").out.splitlines()) == 1


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x"])
def test_a_spreadsheet_takes_no_name_for_a_formula(call: Call, done: Sandbox, name: str):
    buy(done, name)
    assert [each["list_name"] for each in rows(call("lists", "-o", "csv").out)] == [f"'{name}"]
    assert [each["list_name"] for each in call("lists", "-o", "json").json] == [name]


def test_show(call: Call, slow: Sandbox):
    list_id = buy(slow, f"Spring {TAG}")
    running = call("show", list_id)
    assert running.code == 0
    assert "processing" in running.out
    assert "by an Airflow task" in running.out
    slow.complete(list_id)
    shown = call("show", list_id, "-o", "json").json
    assert (shown["id"], shown["status"], shown["leads_count"]) == (list_id, "completed", 3)
    assert rows(call("show", list_id, "-o", "csv").out)[0]["emails_created"] == str(shown["emails_created"])
    failed = buy(slow, "Summer")
    slow.fail(failed)
    assert ListFailedError.remedy in call("show", failed).out


# --- export


def test_export(call: Call, done: Sandbox, tmp_path: Path):
    list_id, path = buy(done, "Spring"), tmp_path / "emails.jsonl"
    code, out, err = call("export", list_id, str(path))
    assert (code, err) == (0, "")
    assert out == f"Wrote {path}: 3 leads, 9 emails, {path.stat().st_size:,} bytes.\n"
    assert len(path.read_text().splitlines()) == 3
    figures = call("export", list_id, str(tmp_path / "other.json"), "-o", "json").json
    assert (figures["leads"], figures["emails"], figures["missing"], figures["warnings"]) == (3, 9, 0, [])
    assert rows(call("export", list_id, str(tmp_path / "emails.csv"), "-o", "csv").out)[0]["leads"] == "3"


def test_an_export_that_lacks_leads_is_written_and_fails(call: Call, done: Sandbox, tmp_path: Path):
    done.fault("odd_leads", oddity="null_sequence")
    list_id, path = buy(done, "Spring"), tmp_path / "emails.json"
    code, out, err = call("export", list_id, str(path))
    assert code == 1
    assert "2 leads" in out
    assert "lacks 1 of the 3 leads that were submitted and paid for" in err
    assert len(json.loads(path.read_text())["leads"]) == 3


def test_what_cannot_be_exported(call: Call, slow: Sandbox, tmp_path: Path):
    list_id, path = buy(slow, "Spring"), str(tmp_path / "emails.json")
    code, _, err = call("export", list_id, path)
    assert code == 1
    assert f"List {list_id}: " in err
    assert "Wait until the list has completed." in err
    slow.fail(list_id)
    assert ListFailedError.remedy in call("export", list_id, path).err
    for arguments in ((list_id, path, "--format", "csv"), (list_id, str(tmp_path)), ("nonsense", path)):
        code, out, err = call("export", *arguments)
        assert (code, out) == (2, "")
        assert err
    assert list(tmp_path.iterdir()) == []


# --- check

FILE = "E-mail,Vorname,Nachname,Firma,Phone\na@example.com,Ada,Byron,Mills,1\nnobody,,,,\nA@example.com,Ada,,,\n"


@pytest.fixture
def leads(tmp_path: Path) -> str:
    path = tmp_path / "leads.csv"
    path.write_text(FILE)
    return str(path)


def test_check_tells_everything_and_refuses_as_a_task_would(call: Call, done: Sandbox, leads: str):
    code, out, err = call("check", leads)
    facts = dict(line.split("  ", 1) for line in out.splitlines()[:7])
    known = {name: value.strip() for name, value in facts.items()}
    assert known == {
        "File": leads,
        "A task would": "refuse the file; with on_invalid_lead='skip' and on_duplicate_lead='first' it would send 1 "
        "lead for 1 credit",
        "Leads in it": "3",
        "Cannot be used": "1",
        "Duplicates": "1",
        "Fields filled": "email 1, name 1, company 1",
        "Columns not sent": "Phone",
    }
    assert [line.split()[:2] for line in out.splitlines()[-2:]] == [["line", "3"], ["line", "4"]]
    assert code == 1
    assert err.startswith(f"leads_path '{leads}': 1 of 3 leads cannot be used: line 3: ")
    assert done.requests == []
    assert leaks(("a@example.com", "nobody", "Byron"), out, err) == []


def test_check_for_programs(call: Call, leads: str):
    policies = ("--on-invalid", "skip", "--on-duplicate", "first", "--enrichment")
    report = call("check", leads, "-o", "json", *policies).json
    assert (report["leads_given"], report["leads_to_send"], report["credits"]) == (3, 1, 2)
    assert not report["would_be_refused"]
    assert report["unknown_columns"] == ["Phone"]
    table = rows(call("check", leads, "-o", "csv", *policies).out)
    assert [(each["position"], each["kind"]) for each in table] == [("line 3", "invalid"), ("line 4", "duplicate")]
    assert report["skipped"] == table
    code, out, err = call("check", leads, "-o", "json", "--on-invalid", "skip")
    assert code == 1
    assert json.loads(out)["would_be_refused"]
    assert "are duplicates" in err


def test_check_leaves_out_who_must_not_be_written_to(call: Call, tmp_path: Path):
    leads, opt_outs, result = tmp_path / "leads.csv", tmp_path / "opt-outs.txt", tmp_path / "emails.csv"
    leads.write_text("email\na@example.com\nb@example.com\nc@example.com\n")
    opt_outs.write_text("A@example.com\n")
    result.write_text("email,subject,body\nb@example.com,Hello,Text\n")
    report = call("check", str(leads), "-o", "json", "--suppress", str(opt_outs), "--already-written", str(result)).json
    names = ("leads_given", "leads_to_send", "suppressed", "already_written", "credits")
    assert [report[name] for name in names] == [3, 1, 1, 1, 1]


def test_check_with_a_mapping(call: Call, tmp_path: Path):
    path = tmp_path / "leads.csv"
    path.write_text("Wohin,Wer\na@example.com,Ada\n")
    assert call("check", str(path)).code == 1
    mapping = json.dumps({"email": "Wohin", "name": ["Wer"]})
    assert call("check", str(path), "--columns", mapping, "-o", "json").json["fields"] == {"email": 1, "name": 1}
    for wrong in ("{", '{"emial": "Wohin"}'):
        code, out, err = call("check", str(path), "--columns", wrong)
        assert (code, out) == (2, "")
        assert "columns" in err


def test_check_without_a_usable_file(call: Call, tmp_path: Path):
    code, out, err = call("check", str(tmp_path / "absent.csv"))
    assert (code, out) == (1, "")
    assert "cannot be read" in err
    (tmp_path / "many.csv").write_text("email\n" + "nobody\n" * 30 + "a@example.com\n")
    assert call("check", str(tmp_path / "many.csv")).out.endswith("... and 10 more; -o csv shows them all.\n")


# --- connections and errors


def test_a_key_in_the_environment_needs_no_connection(
    call: Call, done: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    connect(host=unused_url(), password="mf_live_other")
    monkeypatch.setenv("MACHFIVE_API_KEY", done.api_key)
    monkeypatch.setenv("MACHFIVE_BASE_URL", done.base_url)
    assert len(call("campaigns", "-o", "json").json) == 3
    code, _, err = call("campaigns", "--conn-id", "machfive_default")
    assert code == 1
    assert "cannot be reached" in err
    assert "The Airflow connection was 'machfive_default'" in err


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "key": ({"status": 401, "code": "UNAUTHORIZED", "message": "Invalid API key."}, 1, "The Airflow connection was"),
    "server": ({"status": 503}, 1, "503"),
    "limit": ({"status": 429, "code": "RATE_LIMITED"}, 1, "429 RATE_LIMITED"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_are_those_of_tasks_and_each_read_is_sent_once(call: Call, done: Sandbox, wrong: str):
    fault, expected, says = WRONG[wrong]
    done.fault("status", times=None, **fault)
    code, out, err = call("lists")
    assert (code, out) == (expected, "")
    assert says in err
    assert "Traceback" not in err
    assert leaks([done.api_key], err) == []
    assert len(done.requests) == 1


def test_what_is_wrong_with_the_call(call: Call, done: Sandbox):
    for arguments in (
        ("lists", "--limit", "0"),
        ("lists", "--since", "yesterday"),
        ("lists", "--watch"),  # not on a terminal
        ("lists", "--campaign", "no such"),
        ("show", "nonsense"),
        ("show",),
        ("nonsense",),
        (),
        ("sandbox", "--nonsense"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), arguments
        assert err
    assert call("show", UNKNOWN_ID).code == 1
    code, _, err = call("lists", "--conn-id", "nobody_made_this")
    assert code == 2
    assert "The Airflow connection 'nobody_made_this' does not exist" in err
    assert "MACHFIVE_API_KEY" in err

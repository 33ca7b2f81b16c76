"""Who must not be written to: what counts as an entry, in lists and in files as CRMs export them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api.models import Lead
from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.leads.suppression import read_suppression, select


@pytest.mark.parametrize(
    ("entry", "covered", "left"),
    [
        ("Ann@Example.com", ["ann@example.com", "ANN@EXAMPLE.COM"], ["bob@example.com", "ann@mail.example.com"]),
        ("Ann Lee <ann@example.com>", ["ann@example.com"], ["lee@example.com"]),
        ("ann@example.com; bob@example.com", ["ann@example.com", "bob@example.com"], ["cal@example.com"]),
        ("ann@example.com (bounced)", ["ann@example.com"], []),
        ("example.org", ["ann@example.org", "bob@Example.ORG"], ["ann@mail.example.org", "ann@notexample.org"]),
        ("@example.org", ["ann@example.org"], ["ann@mail.example.org"]),
        ("*.example.org", ["ann@example.org", "ann@a.b.example.org"], ["ann@notexample.org"]),
        ("b\u00fccher.example.org", ["ann@b\u00fccher.example.org"], ["ann@bucher.example.org"]),
    ],
)
def test_an_entry(entry: str, covered: list[str], left: list[str]):
    suppression = read_suppression([entry])
    assert suppression is not None
    assert [each for each in covered if not suppression.covers(each)] == []
    assert [each for each in left if suppression.covers(each)] == []


FILES = {
    "one a line.txt": "ann@example.com\n\n  *.blocked.example.org \nwhole.example.net,\n",
    "one a line.csv": '"ann@example.com"\r\n*.blocked.example.org\r\nwhole.example.net\r\n',
    "crm.csv": "\ufeffContact ID;Email;Opted out\n1;ann@example.com;2026-11-01\n2;;\n3;@whole.example.net;\n"
    "4;*.blocked.example.org;\n",
    "two columns.csv": "E-mail,Email 2\nann@example.com,\nx@example.net,@whole.example.net\n*.blocked.example.org,\n",
    "domains.csv": "Domain,Why\n*.blocked.example.org,asked\nwhole.example.net,asked\nann@example.com,asked\n",
    "list.json": '["ann@example.com", "*.blocked.example.org", "whole.example.net"]',
    "objects.jsonl": '{"email":"ann@example.com"}\n{"email":"*.blocked.example.org"}\n{"email":"@whole.example.net"}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_a_file(name: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8", newline="")
    suppression = read_suppression(str(path))
    assert suppression is not None
    for address in ("ann@example.com", "x@deep.blocked.example.org", "y@whole.example.net"):
        assert suppression.covers(address), address
    assert not suppression.covers("bob@example.com")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nothing.txt", "", "no bytes"),
        ("nothing.csv", "", "no bytes"),
        ("nothing.jsonl", "", "no bytes"),
        ("junk.txt", "ann@example.com\nn/a\n", "line 2, is neither"),
        ("junk.csv", "email\nann@example.com\nunknown\n", "line 3, is neither"),
        ("half.csv", "email\nann@@example\n", "line 2, is neither"),
        ("other.csv", "Name,City\nAnn,Oslo\n", "no column of email addresses"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_what_cannot_be_understood_stops_the_task(name: str, content: str | None, says: str, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidLeadsError, match=says) as caught:
        read_suppression(str(path))
    assert name in str(caught.value)
    assert "ann@" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [5, {"a": 1}, [None], [""], [5], "[broken", b"x", pytest.param("[" * 100_000, id="deep")]
)
def test_what_is_no_list_is_refused(value: Any):
    with pytest.raises(ConfigurationError, match="suppress"):
        read_suppression(value)


def test_nobody_and_several_sources(tmp_path: Path):
    header_only = tmp_path / "nobody yet.csv"
    header_only.write_text("email,when\n")
    assert read_suppression(None) is None
    several = read_suppression([str(header_only), "ann@example.com", "example.org"])
    assert several is not None
    assert len(several) == 2
    as_text = read_suppression('["ann@example.com"]')
    assert as_text is not None
    assert as_text.covers("ann@example.com")


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.lists(st.sampled_from("abcdefgh")), st.data())
def test_everybody_is_kept_suppressed_or_written(names: list[str], out: list[str], data: st.DataObject):
    written = data.draw(st.lists(st.sampled_from("abcdefgh")))
    leads = [Lead(f"{name}@example.com") for name in names]
    suppression = read_suppression([f"{name.upper()}@example.com" for name in out])
    found = select(leads, suppression, [f"{name}@EXAMPLE.com" for name in written])
    kept = [name for name in names if name not in out and name not in written]
    assert [lead.email for lead in found.leads] == [f"{name}@example.com" for name in kept]
    assert found.suppressed == len(set(names) & set(out))
    assert found.already_written == len((set(names) & set(written)) - set(out))

"""An export as it flows: the bytes untouched, the figures right however the chunks are cut."""

from __future__ import annotations

import csv
import io
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api.models import Lead, LeadList, address_digest
from machfive_provider.delivery.count import Expected, Figures, compare
from machfive_provider.delivery.destination import Destination
from machfive_provider.delivery.export import iter_leads, write_export
from machfive_provider.exceptions import ProtocolError, TransportError


class Api:
    """Stands for the API: gives out the chunks of each format, and says what it was asked for."""

    def __init__(self, **exports) -> None:
        self.exports, self.asked = exports, []

    def stream_export(self, list_id: str, export_format: str = "csv") -> Iterator[bytes]:
        self.asked.append((list_id, export_format))
        export = self.exports[export_format]
        for chunk in [export] if isinstance(export, bytes) else export:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def email(step: int, body: str = "Hi") -> dict:
    return {"step": step, "subject": f"Subject {step}", "body": body}


LEADS = [
    {"email": "Zoë@Example.com", "name": "Zoë 🦆", "sequence": [email(1, 'Hi "Zoë",\r\n\nünï\u2028'), email(2)]},
    {"email": "bob@example.com", "company": "B, Inc.", "score": 1.5, "sequence": [email(1)]},
]
ZOE, BOB, EVE = (address_digest(f"{name}@example.com") for name in ("zoë", "bob", "eve"))
JSON = json.dumps({"leads": LEADS}, ensure_ascii=False).encode()


def as_csv(header: list[str], *rows: list[str], end: str = "\r\n", bom: bool = False) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([header, *rows])
    return text.getvalue().encode("utf-8-sig" if bom else "utf-8")


ROWS = [["Zoë@Example.com", 'Hi "Zoë",\r\n\nünï, 🦆'], ["bob@example.com", "Hi"]]
CSV = as_csv(["email", "body_1"], *ROWS)


def export(
    tmp_path: Path, export_format: str, emails_created: int | None = 3, email_count: int | None = None, **exports
) -> tuple[Figures, bytes, list]:
    api, path = Api(**exports), tmp_path / f"out.{export_format}"
    lead_list = LeadList("l1", "completed", emails_created=emails_created)
    figures = write_export(api, lead_list, Destination(str(path)), export_format, email_count)
    written = path.read_bytes()
    assert figures.bytes == len(written)
    return figures, written, api.asked


def test_json_passes_through_untouched(tmp_path: Path):
    figures, written, asked = export(tmp_path, "json", json=JSON)
    assert written == JSON
    assert asked == [("l1", "json")]
    assert (figures.leads, figures.emails, figures.delivered) == (2, 3, {ZOE, BOB})


def test_jsonl_is_one_lead_a_line(tmp_path: Path):
    figures, written, asked = export(tmp_path, "jsonl", json=JSON)
    lines = written.decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == LEADS
    assert "Zoë 🦆" in lines[0]
    assert asked == [("l1", "json")]
    assert (figures.leads, figures.emails, figures.delivered) == (2, 3, {ZOE, BOB})


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        as_csv(["email", "body_1"], *ROWS, end="\n"),
        as_csv(["email", "body_1"], *ROWS, bom=True),
        as_csv([" E-Mail ", "body_1"], *ROWS),
        as_csv(["name", "EMAIL"], *(row[::-1] for row in ROWS)),
        as_csv(["Recipient", "body_1"], *ROWS),
        as_csv(["name", "Recipient"], *(row[::-1] for row in ROWS)),
        CSV.rstrip(),
        CSV + b"\r\n\r\n",
    ],
    ids=[
        "plain",
        "lf",
        "bom",
        "e-mail",
        "second column",
        "another header",
        "another header, second column",
        "no last break",
        "blank lines",
    ],
)
def test_csv_passes_through_untouched_and_is_counted(tmp_path: Path, content: bytes):
    figures, written, asked = export(tmp_path, "csv", csv=content)
    assert written == content
    assert asked == [("l1", "csv")]
    assert (figures.leads, figures.emails, figures.delivered) == (2, 3, {ZOE, BOB})


@pytest.mark.parametrize(
    ("content", "emails_created", "email_count"),
    [
        (as_csv(["name", "body_1"], ["Zoë", "Hi"], ["Bob", "Hi"]), 3, None),
        (CSV, None, None),
        (CSV, 3, 2),
        (as_csv(["email", "Subject 1"], ["Zoë@Example.com", "Hi"], ["bob@example.com", ""]), 3, None),
        (b"email,body_1\r\nZo\xc3\xab@Example.com,Hi\r\nbob@example.com\r\n", 3, None),
        (
            as_csv(["email", "step"], *(["Zoë@Example.com", "1"], ["bob@example.com", "1"], ["ZOË@example.com", "2"])),
            3,
            1,
        ),
    ],
    ids=[
        "no email column",
        "emails not told",
        "fewer emails than asked",
        "a blank",
        "a short row",
        "a row for each email",
    ],
)
def test_what_a_csv_does_not_tell_comes_from_the_json(
    tmp_path: Path, content: bytes, emails_created: int | None, email_count: int | None
):
    figures, written, asked = export(tmp_path, "csv", emails_created, email_count, csv=content, json=JSON)
    assert written == content
    assert asked == [("l1", "csv"), ("l1", "json")]
    assert (figures.leads, figures.repeats, figures.emails, figures.delivered) == (2, 0, 3, {ZOE, BOB})
    assert (figures.short, figures.uncounted) == ({BOB: 2} if email_count == 2 else {}, set())


@pytest.mark.parametrize(("emails_created", "email_count"), [(4, 2), (5, 2), (3, 1), (3, None)])
def test_a_csv_with_emails_enough_needs_no_second_look(tmp_path: Path, emails_created: int, email_count: int | None):
    figures, _, asked = export(tmp_path, "csv", emails_created, email_count, csv=CSV, json=JSON)
    assert asked == [("l1", "csv")]
    assert figures == Figures(email_count, bytes=len(CSV), emails=emails_created, delivered={ZOE, BOB})


def test_the_json_adds_no_leads_to_those_of_the_csv(tmp_path: Path):
    """The file that was written counts: a lead that only the other export holds is missing from it."""
    only_bob = as_csv(["email", "body_1"], ROWS[1], ["eve@example.com", "Hi"])
    figures, _, _ = export(tmp_path, "csv", 3, 2, csv=only_bob, json=JSON)
    assert (figures.delivered, figures.short, figures.uncounted) == ({BOB, EVE}, {BOB: 2}, {EVE})
    bob, eve = Lead("bob@example.com"), Lead("eve@example.com")
    assert compare(figures, Expected.of([bob], 2)).short == 1
    assert compare(figures, Expected.of([bob, eve], 2)).short is None


@pytest.mark.parametrize("export_format", ["json", "jsonl", "csv"])
def test_a_lead_that_comes_again_is_counted(tmp_path: Path, export_format: str):
    again = [*LEADS, {**LEADS[1], "email": "BOB@example.com"}, {**LEADS[1], "email": " bob@example.com"}]
    as_json = json.dumps({"leads": again}).encode()
    as_rows = as_csv(["email"], *([lead["email"]] for lead in again))
    figures, _, _ = export(tmp_path, export_format, json=as_json, csv=as_rows)
    assert (figures.leads, figures.repeats, figures.emails, figures.delivered) == (
        4,
        2,
        3 if export_format == "csv" else 5,
        {ZOE, BOB},
    )


@pytest.mark.parametrize(
    ("export_format", "content"),
    [
        ("csv", b""),
        ("csv", b"email,body\r\n"),
        ("csv", b"name\r\n"),
        ("json", b'{"leads": []}'),
        ("jsonl", b'{"leads": []}'),
    ],
)
def test_a_list_without_leads(tmp_path: Path, export_format: str, content: bytes):
    source = {"csv" if export_format == "csv" else "json": content}
    figures, written, _ = export(tmp_path, export_format, 0, **source)
    assert (figures.leads, figures.emails, figures.delivered) == (0, 0, set())
    assert written == (b"" if export_format == "jsonl" else content)


@pytest.mark.parametrize(("export_format", "content"), [("csv", CSV), ("json", JSON), ("jsonl", JSON)])
def test_chunks_cut_anywhere_give_the_same(tmp_path: Path, export_format: str, content: bytes):
    source = "csv" if export_format == "csv" else "json"
    whole = export(tmp_path, export_format, **{source: content})
    for size in (1, 2, 3, 7, 64):
        chunks = [content[start : start + size] for start in range(0, len(content), size)]
        assert export(tmp_path, export_format, **{source: chunks}) == whole, size


BROKEN = {
    "empty": (b"", "it is not whole JSON"),
    "html": (b"<html>maintenance</html>", "it is not whole JSON"),
    "text": (b"OK", "it is not whole JSON"),
    "cut": (JSON[:-1], "it is not whole JSON"),
    "cut early": (JSON[:40], "it is not whole JSON"),
    "cut in a character": (JSON[: JSON.index("ë".encode()) + 1], "it is not whole JSON"),
    "trailing": (JSON + b"]", "it is not whole JSON"),
    "not utf-8": (b'{"leads": [{"email": "\xff", "sequence": []}]}', "it is not whole JSON"),
    "csv": (CSV, "it is not whole JSON"),
    "array": (b"[]", "it holds no 'leads'"),
    "null": (b"null", "it holds no 'leads'"),
    "no leads": (b'{"items": []}', "it holds no 'leads'"),
    "leads object": (b'{"leads": {}}', "it holds no 'leads'"),
    "leads null": (b'{"leads": null}', "it holds no 'leads'"),
    "deeper leads": (b'{"data": {"leads": [{"email": "a@example.com", "sequence": []}]}}', "it holds no 'leads'"),
}


ODD = (
    b'{"leads": [null, "x", {"email": null, "sequence": null}, {"email": "ann@example.com", "sequence": "none"}, '
    b'{"email": "bob@example.com", "sequence": [{"step": "1", "subject": "s", "body": "b"}, {"step": 2, "body": ""}]}, '
    b'{"email": "eve@example.com", "sequence": [{"step": "1", "subject": "", "body": "b"}]}]}'
)


@pytest.mark.parametrize("export_format", ["json", "jsonl"])
def test_odd_leads_are_written_as_they_were_sent_and_counted(tmp_path: Path, export_format: str):
    figures, written, _ = export(tmp_path, export_format, json=ODD)
    if export_format == "json":
        assert written == ODD
    else:
        assert [json.loads(line) for line in written.splitlines()] == json.loads(ODD)["leads"]
    assert (figures.odd, figures.unwritten) == ([1, 2, 3], {address_digest("ann@example.com"): 4})
    assert (figures.delivered, figures.short, figures.emails) == ({BOB, EVE}, {BOB: 5}, 2)
    compared = compare(figures, Expected(6))
    assert (compared.missing, compared.extra, compared.short, compared.short_at) == (4, 0, 1, (5,))


def test_half_a_surrogate_pair_is_written_as_json_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """ijson's parser in Python, used where its C one is not installed, returns it as it was sent."""
    import ijson
    from ijson.backends import python

    monkeypatch.setattr(ijson, "items_coro", python.items_coro)
    sent = b'{"leads":[{"email":"bob@example.com","name":"\\ud83d","sequence":[]}]}'
    _, written, _ = export(tmp_path, "jsonl", json=sent)
    assert written == sent[len(b'{"leads":[') : -len(b"]}")] + b"\n"


def test_csv_rows_without_an_address_are_counted_and_what_they_lack_is_looked_up(tmp_path: Path):
    content = as_csv(["email", "body_1"], ["", "Met @ the fair"], *ROWS, ["ann@example.com", ""]) + b"\r\n\r\n"
    sent = {"leads": [{"email": None}, *LEADS, {"email": "ann@example.com"}]}
    figures, written, _ = export(tmp_path, "csv", csv=content, json=json.dumps(sent).encode())
    assert written == content
    assert (figures.odd, figures.unwritten) == ([1], {address_digest("ann@example.com"): 4})
    assert (figures.leads, figures.delivered, figures.uncounted) == (2, {ZOE, BOB}, set())


@pytest.mark.parametrize("export_format", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize("before", [None, b"before"], ids=["absent", "present"])
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_export_leaves_the_destination_alone(
    tmp_path: Path, case: str, before: bytes | None, export_format: str
):
    path = tmp_path / "out"
    if before is not None:
        path.write_bytes(before)
    content, why = BROKEN[case]
    with pytest.raises(ProtocolError, match="not what the contract says") as caught:
        write_export(Api(json=content), LeadList("l1", "completed"), Destination(str(path)), export_format)
    assert why in caught.value.message
    assert "example.com" not in "".join(traceback.format_exception(caught.value))  # ijson's errors quote leads
    assert caught.value.endpoint == "GET /api/v1/lists/{list_id}/export"
    assert path.read_bytes() == before if before is not None else not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [b"<html>\n<p>sorry</p>\n</html>", b'email\r\n"' + (b"x" * 999 + b"\n") * 5_000],
    ids=["html", "a huge cell"],
)
def test_what_is_no_csv_leaves_the_destination_alone(tmp_path: Path, content: bytes):
    api = Api(csv=content, json=content)
    with pytest.raises(ProtocolError):
        write_export(api, LeadList("l1", "completed", emails_created=1), Destination(str(tmp_path / "out")), "csv")
    assert list(tmp_path.iterdir()) == []


def test_a_line_without_end_is_not_waited_for(tmp_path: Path):
    left = iter([b"x" * 100_000] * 100)
    with pytest.raises(ProtocolError, match="a line of it does not end"):
        export(tmp_path, "csv", csv=left)
    assert list(left)


@pytest.mark.parametrize(
    ("export_format", "content"), [("csv", CSV), ("json", JSON), ("jsonl", JSON), ("parquet", JSON)]
)
def test_an_export_that_breaks_off_leaves_the_destination_alone(tmp_path: Path, export_format: str, content: bytes):
    broken = [content[:-5], TransportError("reset")]
    with pytest.raises(TransportError):
        export(tmp_path, export_format, csv=broken, json=broken)
    assert list(tmp_path.iterdir()) == []


leads = st.lists(
    st.fixed_dictionaries(
        {
            "email": st.emails(),
            "name": st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
            "sequence": st.lists(
                st.builds(email, st.integers(1, 5), st.text(st.characters(exclude_categories=["Cs"]))), max_size=3
            ),
        }
    ),
    max_size=4,
)


@given(leads, st.integers(1, 40))
def test_any_leads_come_back_as_they_were_sent(sent, size: int):
    content = json.dumps({"total": len(sent), "leads": sent, "more": {"leads": [1]}}).encode()
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    assert list(iter_leads(chunks)) == sent


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.just("leads") | st.text(), inner),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_leads_or_a_protocol_error(content: bytes):
    try:
        outcome = list(iter_leads([content]))
    except ProtocolError:
        return
    assert len(outcome) == len(json.loads(content)["leads"])


@pytest.mark.parametrize(
    ("content", "delivered"),
    [
        (b"Title,Recipient\r\nHead @ Acme,a@x.io\r\nCTO,b@x.io\r\n", {"a@x.io", "b@x.io"}),
        (b"cc,Email Address\r\nz@x.io,a@x.io\r\n", {"a@x.io"}),
    ],
    ids=["an at sign elsewhere", "headed email address"],
)
def test_csv_leads_are_counted_by_their_email(tmp_path: Path, content: bytes, delivered: set[str]):
    figures, _, _ = export(tmp_path, "csv", csv=content)
    assert (figures.leads, figures.delivered) == (len(delivered), set(map(address_digest, delivered)))


def test_brackets_without_end_are_no_export():
    with pytest.raises(ProtocolError):
        list(iter_leads([b"[" * 3000 + b"]" * 3000]))

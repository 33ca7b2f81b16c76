"""Readers of what comes from outside, given anything: a result or one of our errors, and never a lead's text in it.

``make fuzz`` tries fifty times as many examples as ``make test``.
"""

from __future__ import annotations

import copy
import io
import json
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api import protocol
from machfive_provider.api.call import Response
from machfive_provider.api.client_settings import normalise_base_url
from machfive_provider.api.error_responses import error_from
from machfive_provider.api.models import LeadList
from machfive_provider.delivery.destination import Destination
from machfive_provider.delivery.export import write_export
from machfive_provider.delivery.written import written_addresses
from machfive_provider.exceptions import MachFiveError
from machfive_provider.hooks.connection import ConnectionSettings
from machfive_provider.leads.files import SUFFIXES, read_file
from machfive_provider.leads.prepare import prepare, read_leads
from machfive_provider.leads.suppression import read_suppression
from machfive_provider.purchase.record import Record
from machfive_provider.purchase.tag import Tag
from machfive_provider.triggers import events
from machfive_provider.waiting.ended_lists import Cursor

ID = "00000000-0000-4000-8000-000000000000"
LEAD = "qzvxj.lead"  # in every text of a lead, and nowhere else
PERSON = {"email": f"{LEAD}@example.com", "name": f"{LEAD} Reyes", "company": f"{LEAD} & Co"}
SEQUENCE = [{"step": 1, "subject": f"{LEAD} Hi", "body": f"Hello {LEAD}"}]
EXPORT = {"leads": [{**PERSON, "sequence": SEQUENCE}] * 3, "leads_count": 3}
LIST = {"id": ID, "processing_status": "completed", "created_at": "2026-11-01T10:00:00Z", "leads_count": 3}


@contextmanager
def only_our_errors() -> Iterator[None]:
    """Check that what goes wrong is one of our errors, which shows no lead and can be written as JSON."""
    try:
        yield
    except MachFiveError as error:
        check_error(error)


def check_error(error: MachFiveError) -> None:
    """Check that an error shows no lead, and that a triggerer can send it."""
    check_shown(error)
    # Columns are named, and a first line without an address or number is taken for their names.
    if "The columns are" not in error.message and "several columns called" not in error.message:
        assert LEAD not in "".join(traceback.format_exception(error))
    sent = json.dumps(events.failed(error), allow_nan=False)
    with pytest.raises(type(error)):
        events.read(json.loads(sent), "ended")


def check_shown(error: MachFiveError) -> None:
    """Check that an error is one line that can be written to a log."""
    assert len(str(error).splitlines()) == 1
    str(error).encode()


# --- what is made: JSON of the right shape, of any shape, and spoiled bytes

names = st.sampled_from(
    [*LIST, *PERSON, "error", "message", "detail", "request_id", "lists", "campaigns", "leads", "sequence", "list_id"]
)
texts = st.text(max_size=20) | st.sampled_from([LEAD, "\ud800", "\x00", "completed", "2026-13-01", "[af1:x]", "1e999"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=5),
    max_leaves=12,
)
deep = st.integers(1, 3000).flatmap(lambda depth: st.sampled_from(["[" * depth + "]" * depth, '{"detail":' * depth]))


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value of which a few places hold something else, or nothing."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, 3))):
        at = changed
        while isinstance(at, (dict, list)) and at:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if not isinstance(at[key], (dict, list)) or draw(st.booleans()):
                if draw(st.booleans()):
                    at[key] = draw(values)
                else:
                    del at[key]
                break
            at = at[key]
    return changed


@st.composite
def spoiled(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes of which a few are replaced, taken out or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 9))] = draw(
            st.binary(max_size=9) | st.sampled_from([b'"', b"\n", b",", b"\0"])
        )
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 4)) == 0 else data)


def as_json(value: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Return JSON of values, as it is or spoiled."""
    written = value.map(lambda each: json.dumps(each, default=str).encode())
    return written | written.flatmap(spoiled)


# --- the API's responses

CALLS = {
    "campaigns": (protocol.list_campaigns(), {"campaigns": [{"id": ID, "name": "Spring"}]}),
    "lists": (protocol.list_lists(), {"lists": [LIST, LIST]}),
    "statuses": (protocol.list_statuses("pending"), {"lists": [LIST, LIST]}),
    "list": (protocol.get_list(ID), LIST),
    "generate": (protocol.generate(ID, PERSON), {"list_id": ID, "lead_id": ID, "sequence": SEQUENCE}),
    "generate-batch": (protocol.generate_batch(ID, [PERSON]), {"list_id": ID, "leads_count": 1, "message": "Accepted"}),
}
headers = st.dictionaries(
    st.sampled_from(["retry-after", "x-request-id", "location", "content-type"]), st.text(max_size=30), max_size=3
)


@pytest.mark.parametrize("name", CALLS)
@given(st.data())
def test_any_response_is_parsed_or_refused(name: str, data: st.DataObject):
    call, right = CALLS[name]
    body = data.draw(as_json(altered(right)) | as_json(values) | deep.map(str.encode) | st.binary(max_size=60))
    with only_our_errors():
        call.parse(Response(data.draw(st.sampled_from([200, 200, 202, 204, 301])), data.draw(headers), body))


@given(
    st.integers(100, 999),
    headers,
    as_json(altered({"error": "E", "message": "m", "detail": {"a": [1]}, "request_id": "r"}))
    | as_json(st.fixed_dictionaries({"detail": values, "message": values, "error": values}))
    | deep.map(str.encode)
    | st.binary(max_size=60),
)
def test_any_error_response_becomes_an_error(status: int, sent: dict[str, str], body: bytes):
    error = error_from(CALLS["list"][0].request, Response(status, sent, body))
    str(error).encode()
    json.dumps(events.failed(error), allow_nan=False)


# --- leads, opt-outs and earlier results


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], str]:
    """Give a function that writes a file anew for each example."""
    folder = tmp_path_factory.mktemp("fuzz")

    def write(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return write


def csv_text(ends: str = "\n", delimiter: str = ",") -> bytes:
    """Return a CSV file of leads, with a quoted cell of two lines."""
    row = delimiter.join((PERSON["email"], PERSON["name"], f'"{LEAD}, one{ends}two ""x"""'))
    return ends.join((delimiter.join(("Email", "Name", "Notes")), row, row, "")).encode()


def workbook() -> bytes:
    """Return a small xlsx file, made by hand: nothing that is installed writes one."""
    cells = "".join(
        f'<row r="{number}">'
        + "".join(
            f'<c r="{letter}{number}" t="inlineStr"><is><t>{text}</t></is></c>'
            for letter, text in zip("AB", row, strict=True)
        )
        + "</row>"
        for number, row in enumerate([("Email", "Name"), (PERSON["email"], PERSON["name"])], 1)
    )
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets><sheet name="Leads" sheetId="1" '
        'r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r1" '
        f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>',
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def parquet() -> bytes:
    """Return results as parquet."""
    content = io.BytesIO()
    table = {"email": [PERSON["email"]] * 3, "subject": ["Hi"] * 3, "body": ["Hello"] * 3}
    pyarrow.parquet.write_table(pyarrow.table(table), content)
    return content.getvalue()


ANY_CSV = st.builds(csv_text, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(",;\t|")).flatmap(spoiled)
ANY_JSON = as_json(altered([PERSON, PERSON])) | as_json(altered({"leads": [PERSON]})) | deep.map(str.encode)
ANY_LINES = st.lists(as_json(altered(PERSON)), max_size=4).map(b"\n".join)
CONTENT = {
    ".csv": ANY_CSV,
    ".tsv": ANY_CSV,
    ".json": ANY_JSON | ANY_LINES,
    ".jsonl": ANY_LINES | ANY_JSON,
    ".xlsx": spoiled(workbook()),
    ".txt": st.lists(st.sampled_from([PERSON["email"], "example.org", "*.example.net", "@"]) | texts, max_size=5)
    .map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
    .flatmap(spoiled),
}


def test_the_workbook_is_one(write: Callable[[str, bytes], str]):
    (lead,) = prepare(read_file(write("whole.xlsx", workbook()))).leads
    assert lead.email == PERSON["email"]


@pytest.mark.parametrize("suffix", [each for each in CONTENT if each in SUFFIXES])
@given(st.data())
def test_any_file_of_leads_is_read_or_refused(suffix: str, write: Callable[[str, bytes], str], data: st.DataObject):
    path = write(f"leads{suffix}", data.draw(CONTENT[suffix]))
    with only_our_errors():
        prepare(read_file(path), data.draw(st.sampled_from(["fail", "skip"])))


@given(altered([PERSON, PERSON]) | values)
def test_any_value_is_leads_or_refused(leads: Any):
    with only_our_errors():
        prepare(read_leads(leads))


@pytest.mark.parametrize("suffix", [each for each in CONTENT if each != ".xlsx"])
@given(st.data())
def test_any_file_of_opt_outs_is_read_or_refused(suffix: str, write: Callable[[str, bytes], str], data: st.DataObject):
    path = write(f"opt-outs{suffix}", data.draw(CONTENT[suffix]))
    with only_our_errors():
        read_suppression(path)


@given(values | st.lists(texts, max_size=3) | deep)
def test_any_list_of_opt_outs_is_read_or_refused(sources: Any):
    with only_our_errors():
        read_suppression(sources)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
@given(st.data())
def test_any_earlier_result_is_read_or_refused(suffix: str, write: Callable[[str, bytes], str], data: st.DataObject):
    content = {
        ".csv": ANY_CSV,
        ".json": as_json(altered(EXPORT)) | deep.map(str.encode),
        ".jsonl": st.lists(as_json(altered(EXPORT["leads"][0])), max_size=3).map(b"\n".join),
        ".parquet": spoiled(parquet()),
    }
    path = write(f"written{suffix}", data.draw(content[suffix]))
    with only_our_errors():
        list(written_addresses([path]))


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet", "flat-csv", "flat-jsonl"])
@given(st.data())
def test_any_export_is_written_or_refused(form: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """In pieces of any size: MachFive sends it as it goes."""
    exports = {"csv": data.draw(ANY_CSV), "json": data.draw(as_json(altered(EXPORT)) | deep.map(str.encode))}
    size = data.draw(st.integers(1, 200))

    class Api:
        def stream_export(self, list_id: str, export_format: str = "csv") -> Iterator[bytes]:
            content = exports[export_format]
            yield from (content[at : at + size] for at in range(0, len(content), size))

    flat, _, ending = form.rpartition("-")
    path = tmp_path_factory.getbasetemp() / f"result.{ending}"
    with only_our_errors():
        write_export(Api(), LeadList(ID, "completed"), Destination(str(path)), ending, 1, shape=flat or "api")  # type: ignore[arg-type]


# --- what Airflow kept for us


@given(values | altered(events.failed(MachFiveError("m", status_code=500, detail={"a": 1}))))
def test_any_event_is_read_or_refused(event: Any):
    """An error shows the code that its event names, so here any text may be in it."""
    try:
        events.read(event, "ended")
    except MachFiveError as error:
        check_shown(error)


@given(values | altered({"since": "2026-11-01T10:00:00Z", "running": [ID], "told": [ID]}))
def test_any_cursor_is_read_or_refused(kept: Any):
    try:
        cursor = Cursor.from_json(kept)
    except ValueError:
        return
    assert Cursor.from_json(json.loads(json.dumps(cursor.to_json()))) == cursor


@given(values | altered({"phase": "intent", "tag": "[af1:x]", "call": "generate", "time": 1.0, "lists": {"a": ID}}))
def test_any_record_is_read_or_none(kept: Any):
    record = Record.from_json(kept)
    assert record is None or record.parsed_tag is None or isinstance(record.parsed_tag, Tag)


@given(st.text(max_size=120) | st.text("af1:.[]0123456789abcdefgrm-", max_size=60).map("x [af1:{}]".format))
def test_any_name_has_tags_or_none(name: str):
    assert all(isinstance(each, Tag) for each in Tag.all_in(name))


ports = st.none() | st.integers()
extras = (
    st.none()
    | texts
    | as_json(altered({"namespace": "a", "max_concurrent_batches": 3})).map(
        lambda text: text.decode("utf-8", "replace")
    )
    | deep
)


@given(st.none() | texts | st.text(":/@[]?#.-a1", max_size=30), ports, st.none() | texts, extras)
def test_any_connection_is_read_or_refused(host: Any, port: Any, password: Any, extra: Any):
    with only_our_errors():
        ConnectionSettings.from_connection(SimpleNamespace(host=host, port=port, password=password, extra=extra))
    with only_our_errors():
        normalise_base_url(host)

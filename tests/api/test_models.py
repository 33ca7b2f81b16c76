"""The objects of the API, parsed: optional fields may be anything, required ones may not."""

from __future__ import annotations

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.api.models import (
    AcceptedBatch,
    Campaign,
    Email,
    GeneratedSequence,
    Lead,
    LeadList,
    ShapeError,
    array,
    id_and_status,
)

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "id",
    "name",
    "list_id",
    "lead_id",
    "campaign_id",
    "custom_name",
    "processing_status",
    "created_at",
    "updated_at",
    "completed_at",
    "failed_at",
    "leads_count",
    "emails_created",
    "credits_remaining",
    "status",
    "message",
    "sequence",
    "step",
    "subject",
    "body",
)
times = st.sampled_from(
    ["2026-02-03T04:05:06Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-03", "20260203T040506"]
)
emails = st.fixed_dictionaries({"step": st.integers(), "subject": st.text(max_size=9), "body": st.text(max_size=9)})
near_misses = st.dictionaries(st.sampled_from(FIELDS), json_values | times | st.lists(emails, max_size=2))


@pytest.mark.parametrize("model", [AcceptedBatch, Campaign, Email, GeneratedSequence, LeadList])
@given(data=json_values | near_misses)
def test_any_json_is_read_or_refused_as_a_shape(model, data):
    try:
        value = model.from_json(data)
    except ShapeError:
        return
    assert type(value) is model


@given(near_misses.map(lambda data: {**data, "id": "i", "processing_status": "p"}))
def test_a_list_survives_the_trip_through_json(data):
    lead_list = LeadList.from_json(data)
    assert LeadList.from_json(lead_list.to_json()) == lead_list


@pytest.mark.parametrize(
    ("model", "data", "missing"),
    [
        (Campaign, {"name": "n"}, "'id'"),
        (Campaign, {"id": "", "name": "n"}, "'id'"),
        (Campaign, {"id": 7, "name": "n"}, "'id'"),
        (Campaign, {"id": "c", "name": None}, "'name'"),
        (Campaign, [], "a campaign is not an object"),
        (LeadList, {"id": "l"}, "'processing_status'"),
        (LeadList, {"processing_status": "pending"}, "'id'"),
        (LeadList, "l", "a list is not an object"),
        (AcceptedBatch, {"status": "processing"}, "'list_id'"),
        (AcceptedBatch, {"list_id": ""}, "'list_id'"),
        (AcceptedBatch, None, "the response is not an object"),
        (GeneratedSequence, {"sequence": []}, "'list_id'"),
        (Email, {"step": 1, "body": "b"}, "'subject'"),
        (Email, {"step": 1, "subject": "s"}, "'body'"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_what_the_contract_requires_is_never_guessed(model, data, missing: str):
    with pytest.raises(ShapeError, match=missing):
        model.from_json(data)


def test_a_completed_list():
    lead_list = LeadList.from_json(
        {
            "id": "l",
            "campaign_id": "c",
            "custom_name": "Fair",
            "processing_status": "completed",
            "created_at": "2026-02-03T04:05:06.5Z",
            "updated_at": "2026-02-03T05:05:06+01:00",
            "completed_at": "2026-02-03T04:05:06",
            "leads_count": 2,
            "emails_created": 6,
            "brand_new": {"unknown": True},
        }
    )
    assert lead_list == LeadList(
        id="l",
        campaign_id="c",
        custom_name="Fair",
        processing_status="completed",
        created_at=pendulum.datetime(2026, 2, 3, 4, 5, 6, 500000),
        updated_at=pendulum.datetime(2026, 2, 3, 4, 5, 6),
        completed_at=pendulum.datetime(2026, 2, 3, 4, 5, 6),
        leads_count=2,
        emails_created=6,
    )


@pytest.mark.parametrize(
    ("status", "completed", "failed"),
    [
        ("pending", False, False),
        ("processing", False, False),
        ("completed", True, False),
        ("failed", False, True),
        ("Completed", False, False),
        ("completed ", False, False),
        ("cancelled", False, False),
        ("", False, False),
    ],
)
def test_only_known_endings_are_endings(status: str, completed: bool, failed: bool):
    lead_list = LeadList("l", status)
    assert (lead_list.is_completed, lead_list.is_failed) == (completed, failed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created_at", "yesterday"),
        ("created_at", 1770091506),
        ("created_at", None),
        ("created_at", "0001-01-01T00:00:00+14:00"),
        ("leads_count", "2"),
        ("leads_count", True),
        ("leads_count", 2.0),
        ("custom_name", 7),
        ("campaign_id", []),
    ],
)
def test_optional_fields_of_another_type_are_not_known(field: str, value):
    lead_list = LeadList.from_json({"id": "l", "processing_status": "p", field: value})
    assert getattr(lead_list, field) is None


def test_a_lead_holds_what_is_set_and_is_known_by_its_email():
    lead = Lead("Ada@Example.com", name="Ada", company_website="https://a.example")
    assert lead.to_json() == {"email": "Ada@Example.com", "name": "Ada", "company_website": "https://a.example"}
    assert lead.key == Lead("aDA@eXAMPLE.COM").key != Lead("ada@example.org").key


def test_an_accepted_batch_and_a_sequence():
    assert AcceptedBatch.from_json({"list_id": "l", "sequence_id": "old"}) == AcceptedBatch("l")
    email = {"step": 1, "subject": "s", "body": "b"}
    response = {"lead_id": "p", "list_id": "l", "sequence": [email], "credits_remaining": 0}
    assert GeneratedSequence.from_json(response).to_json() == response
    recovered = GeneratedSequence("l", (Email(1, "s", "b"),))
    assert recovered.to_json() == {"list_id": "l", "sequence": [email]}


@pytest.mark.parametrize(
    ("sent", "usable"),
    [
        (None, 0),
        ("x", 0),
        ([], 0),
        ([None, "Hi", {"subject": None, "body": "b"}, {"subject": "s"}, {"subject": "s", "body": " \n"}], 0),
        ([{"step": "1", "subject": "", "body": "b"}, {"subject": "s", "body": "b"}, None], 2),
    ],
    ids=repr,
)
def test_a_sequence_that_was_paid_for_is_given_out_as_it_was_sent(sent, usable: int):
    sequence = GeneratedSequence.from_json({"list_id": "l", "sequence": sent})
    assert len(sequence.sequence) == usable
    assert sequence.to_json() == {"list_id": "l", "sequence": sent or ("x" if sent else [])}
    assert GeneratedSequence.from_json({"list_id": "l"}) == GeneratedSequence("l", ())


OURS = "Fair [af1:0123456789-0123456789ab]"


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        ({"id": "l", "processing_status": None}, "unknown"),
        ({"id": "l", "custom_name": OURS, "processing_status": 7}, "unknown"),
        ({"id": "l", "custom_name": None}, "unknown"),
        ({"id": "l", "processing_status": "completed", "custom_name": 7}, "completed"),
    ],
    ids=repr,
)
def test_an_odd_entry_of_a_page_is_a_list_that_runs_unless_it_says_otherwise(entry, status: str):
    lead_list = LeadList.from_page(entry)
    assert (lead_list.id, lead_list.processing_status) == id_and_status(entry) == ("l", status)
    assert lead_list.is_completed == (status == "completed")


@pytest.mark.parametrize("entry", [None, "x", [], {}, {"id": None}, {"id": ""}, {"id": 7, "custom_name": "Fair"}])
def test_an_entry_without_an_id_is_passed_over_unless_it_may_be_ours(entry):
    assert LeadList.from_page(entry) is None
    assert id_and_status(entry) is None
    for ours in ({"id": None, "custom_name": OURS}, {"list": {"name": OURS}, "was": entry}, OURS):
        for read in (LeadList.from_page, id_and_status):
            with pytest.raises(ShapeError, match="that an Airflow task bought has no 'id'"):
                read(ours)


@pytest.mark.parametrize("data", [[], None, "x", {}, {"lists": None}, {"lists": {}}, {"lists": "x"}], ids=repr)
def test_an_array_is_an_array(data):
    with pytest.raises(ShapeError):
        array(data, "lists")
    assert array({"lists": [1]}, "lists") == [1]

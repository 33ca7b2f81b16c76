"""The options of a submission: what the user set, and nothing else."""

from __future__ import annotations

import pytest

from machfive_provider.exceptions import InvalidLeadsError
from machfive_provider.purchase.options import build_options


@pytest.mark.parametrize(
    ("named", "options", "built"),
    [
        ({}, None, {}),
        ({}, {}, {}),
        ({"list_name": None, "email_count": None}, None, {}),
        ({"email_count": 3}, None, {"email_count": 3}),
        ({"email_count": "3"}, None, {"email_count": 3}),
        ({"email_count": 9}, None, {"email_count": 9}),
        ({"email_count": 0}, None, {"email_count": 0}),
        ({"email_count": -1}, None, {"email_count": -1}),
        ({}, {"email_count": "4"}, {"email_count": 4}),
        ({"enrichment_enabled": False}, None, {"enrichment_enabled": False}),
        ({"enrichment_enabled": "True"}, None, {"enrichment_enabled": True}),
        ({}, {"enrichment_enabled": " false"}, {"enrichment_enabled": False}),
        ({"list_name": ""}, None, {"list_name": ""}),
        ({"approved_ctas": ["Demo CTA"]}, None, {"approved_ctas": ["Demo CTA"]}),
        ({"approved_ctas": "Demo CTA, Trial CTA"}, None, {"approved_ctas": "Demo CTA, Trial CTA"}),
        ({"approved_ctas": ()}, None, {"approved_ctas": ()}),
        ({}, {"campaign_angle": "fair"}, {"campaign_angle": "fair"}),
        ({}, {"brand_new": {"a": [1]}, "none": None}, {"brand_new": {"a": [1]}}),
        ({"list_name": None}, {"list_name": "x"}, {"list_name": "x"}),
        ({"list_name": "x"}, {"list_name": None}, {"list_name": "x"}),
        (
            {"email_signature": "A\nB", "signature_id": "u", "additional_details": "d", "notification_email": "n@x.io"},
            None,
            {"email_signature": "A\nB", "signature_id": "u", "additional_details": "d", "notification_email": "n@x.io"},
        ),
    ],
    ids=str,
)
def test_only_what_is_set(named, options, built):
    assert build_options(named, options) == built


@pytest.mark.parametrize(
    ("named", "options", "reason"),
    [
        ({}, [], "options must be a mapping"),
        ({}, "x", "options must be a mapping"),
        ({}, {1: "x"}, "options must be a mapping"),
        ({"email_count": 3}, {"email_count": 3}, "email_count is given twice"),
        ({"list_name": "a"}, {"list_name": "a"}, "list_name is given twice"),
        ({}, {"sequence_name": "x"}, "deprecated alias of list_name"),
        ({"email_count": "three"}, None, "email_count must be a whole number such as 3, not a value of type str"),
        ({"email_count": ""}, None, "email_count must be a whole number"),
        ({"email_count": "3.0"}, None, "email_count must be a whole number"),
        ({"email_count": "²"}, None, "email_count must be a whole number"),
        ({"email_count": 3.0}, None, "email_count must be a whole number such as 3, not a value of type float"),
        ({"email_count": True}, None, "email_count must be a whole number such as 3, not a value of type bool"),
        ({"email_count": [3]}, None, "email_count must be a whole number"),
        ({}, {"email_count": 2.5}, "email_count must be a whole number"),
        ({"enrichment_enabled": "yes"}, None, "enrichment_enabled must be True or False"),
        ({"enrichment_enabled": 1}, None, "enrichment_enabled must be True or False"),
        ({"approved_ctas": [1]}, None, "approved_ctas must be a list of texts or one text"),
        ({"approved_ctas": {"Demo CTA"}}, None, "approved_ctas must be"),
        ({"approved_ctas": 7}, None, "approved_ctas must be"),
        ({"list_name": 7}, None, "list_name must be a text, not a value of type int"),
        ({"email_signature": ["a"]}, None, "email_signature must be a text"),
        ({"signature_id": 7}, None, "signature_id must be a text"),
        ({"additional_details": {}}, None, "additional_details must be a text"),
        ({}, {"notification_email": 7}, "notification_email must be a text"),
    ],
    ids=str,
)
def test_what_no_generation_can_take_is_refused(named, options, reason: str):
    with pytest.raises(InvalidLeadsError, match=reason):
        build_options(named, options)


def test_the_arguments_are_left_as_they_are():
    named, options = {"email_count": "3"}, {"x": 1}
    build_options(named, options)
    assert (named, options) == ({"email_count": "3"}, {"x": 1})

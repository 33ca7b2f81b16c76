"""Which format an export has."""

from __future__ import annotations

from typing import Any

import pytest

from machfive_provider.delivery.format import format_for
from machfive_provider.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("export_to", "given", "expected"),
    [
        ("emails.csv", None, "csv"),
        ("s3://aws@bucket/2026.01/Emails.JSON ", None, "json"),
        ("/tmp/emails.jsonl", None, "jsonl"),
        ("emails.ndjson", None, "jsonl"),
        ("emails.ndjson", "jsonl", "jsonl"),
        ("s3://aws@bucket/emails.parquet", None, "parquet"),
        ("emails.txt", "csv", "csv"),
        ("emails", "json", "json"),
        ("/tmp/a.csv/emails", "json", "json"),  # a folder has no format
        ("emails.csv", "json", "ends in .csv, but export_format is 'json'"),
        ("emails.ndjson", "json", "ends in .ndjson, but export_format is 'json'.*write jsonl"),
        (
            "emails.txt",
            None,
            "does not end in .csv, .json, .jsonl, .ndjson, .parquet: set export_format to one of 'csv'",
        ),
        ("/tmp/a.csv/emails", None, "set export_format"),
        ("emails.csv", "xlsx", "export_format is 'xlsx'; use one of 'csv', 'json', 'jsonl', 'parquet'"),
    ],
)
def test_format_for(export_to: Any, given: Any, expected: str):
    if " " in expected:
        with pytest.raises(ConfigurationError, match=expected):
            format_for(export_to, given)
    else:
        assert format_for(export_to, given) == expected

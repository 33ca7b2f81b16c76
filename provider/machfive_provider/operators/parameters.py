"""What the operators' parameters may be: checked in ``__init__``, when the DAG is parsed, and again in ``execute``.

In ``__init__`` templates are not rendered and XComArgs not resolved: ``rendered=False`` leaves those to ``execute``.
Each check raises ``ConfigurationError`` that names the parameter and the fix.
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal, get_args

from machfive_provider.delivery.format import ExportFormat, check_shape, format_for
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import kind_of
from machfive_provider.waiting.deferral import check_seconds

__all__ = [
    "OPTION_FIELDS",
    "DuplicatePolicy",
    "ExistingPolicy",
    "InvalidPolicy",
    "check_campaign_and_count",
    "check_choice",
    "check_columns",
    "check_export",
    "check_one_of",
    "check_purchase",
    "check_seconds",
    "check_whole_number",
    "named_options",
]

InvalidPolicy = Literal["fail", "skip"]
DuplicatePolicy = Literal["fail", "first"]
ExistingPolicy = Literal["adopt", "resubmit", "fail"]

# The parameters that become options of the submission.
OPTION_FIELDS = (
    "list_name",
    "email_count",
    "email_signature",
    "signature_id",
    "additional_details",
    "approved_ctas",
    "enrichment_enabled",
    "notification_email",
)


def _is_known(value: Any) -> bool:
    """Whether a value is now what it will be in ``execute``."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    return not hasattr(value, "iter_references")  # XComArgs and the arguments of a mapped task group have it


def check_choice(parameter: str, value: Any, choices: Any) -> None:
    """Check a policy.

    :param choices: the ``Literal`` of the words allowed
    """
    allowed = get_args(choices)
    if value not in allowed:
        given = repr(value) if isinstance(value, str) else kind_of(value)
        raise ConfigurationError(f"{parameter} is {given}; use one of {', '.join(map(repr, allowed))}.")


def check_one_of(first: str, one: Any, second: str, other: Any, *, rendered: bool) -> None:
    """Check that exactly one of two parameters is given; None and an empty text are not given."""
    if not rendered and not (_is_known(one) and _is_known(other)):
        return
    absent = [value is None or value == "" for value in (one, other)]
    if absent[0] == absent[1]:
        which = "neither" if absent[0] else "both"
        gone = " The task or template that it comes from gave nothing (None)." if rendered and absent[0] else ""
        raise ConfigurationError(f"{first} and {second}: {which} given; give exactly one of them.{gone}")


def check_whole_number(parameter: str, value: Any, least: int) -> None:
    """Check a number that counts something."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{parameter} must be a whole number of at least {least}, not {value!r}.")


def check_columns(columns: Any) -> None:
    """Check the mapping of fields to columns. Most tasks have none, and then its module is not imported."""
    if columns is not None:
        from machfive_provider.leads import columns as leads_columns

        leads_columns.check_columns(columns)


def check_campaign_and_count(task: Any, *, rendered: bool) -> None:
    """Check what the operators that take leads have in common."""
    check_one_of("campaign_id", task.campaign_id, "campaign_name", task.campaign_name, rendered=rendered)
    _check_email_count(task.email_count, rendered=rendered)


def check_purchase(task: Any, *, rendered: bool) -> None:
    """Check what the operators that spend credits have in common."""
    check_campaign_and_count(task, rendered=rendered)
    check_choice("on_existing_list", task.on_existing_list, ExistingPolicy)
    check_whole_number("max_resubmissions", task.max_resubmissions, least=0)
    for parameter in ("poll_interval", "timeout", "capacity_timeout"):
        check_seconds(parameter, getattr(task, parameter))


def _check_email_count(value: Any, *, rendered: bool) -> None:
    """Check that it is a whole number. Digits are one too: a template renders to text.

    The range is MachFive's to check: its two API generations differ in it (``docs/api.md``).
    """
    if value is None or (not rendered and not _is_known(value)):
        return
    digits = isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value)
    if not digits and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigurationError(f"email_count must be a whole number such as 3, not {kind_of(value)} ({value!r}).")


def check_export(task: Any, *, rendered: bool) -> None:
    """Check that the destination is a path and agrees with the format, and the format with the shape.

    ``rendered`` checks as well that what writes the format is installed: before a worker pays for what it cannot write.
    """
    export_to, form = task.export_to, task.export_format
    if rendered or (_is_known(export_to) and _is_known(form)):
        if not isinstance(export_to, (str, os.PathLike)) or not str(export_to).strip():
            raise ConfigurationError(f"export_to must be a path or URL, not {kind_of(export_to)} ({export_to!r}).")
        form = format_for(export_to, form)
    elif _is_known(form) and form is not None:
        check_choice("export_format", form, ExportFormat)
    else:
        return
    check_shape(form, task.export_shape, escape_formulas=task.escape_formulas)
    if rendered and form == "parquet":
        from machfive_provider.delivery.parquet import load_pyarrow

        load_pyarrow()


def named_options(task: Any) -> dict[str, Any]:
    """Return the options that an operator takes as parameters; None means not set."""
    return {name: getattr(task, name, None) for name in OPTION_FIELDS}

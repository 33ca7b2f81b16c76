"""Builds the ``options`` of a submission from an operator's arguments and its ``options`` mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from machfive_provider.api.models import GenerationOptions
from machfive_provider.exceptions import InvalidLeadsError
from machfive_provider.formatting import kind_of

__all__ = ["build_options"]

_TEXTS = ("list_name", "email_signature", "signature_id", "additional_details", "notification_email")


def build_options(named: Mapping[str, Any], options: Any = None) -> GenerationOptions:
    """Return the options that the user set, and no others.

    MachFive runs two versions of its API with different limits (``email_count`` up to 4 or 5, two kinds of
    signature; ``docs/api.md``). Only what both refuse is refused here.

    :param named: the operator's named arguments; None means not set
    :param options: further options, sent as they are; None means not set
    :raises InvalidLeadsError: naming the option, for a value of the wrong type or an option given twice
    """
    if options is None:
        options = {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise InvalidLeadsError(f"options must be a mapping of option names (texts) to values, not {kind_of(options)}.")
    given = {name: value for name, value in named.items() if value is not None}
    further = {name: value for name, value in options.items() if value is not None}
    if twice := sorted(given.keys() & further.keys()):
        raise InvalidLeadsError(f"{twice[0]} is given twice, as an argument and in options; keep one.")
    if "sequence_name" in further:
        raise InvalidLeadsError("options['sequence_name'] is a deprecated alias of list_name; use list_name.")
    merged = {**further, **given}
    for name, value in merged.items():
        _check(name, value)
    if "email_count" in merged:
        merged["email_count"] = int(merged["email_count"])
    if isinstance(enriched := merged.get("enrichment_enabled"), str):
        merged["enrichment_enabled"] = enriched.strip().lower() == "true"
    return merged


def _check(name: str, value: Any) -> None:
    if name == "email_count":
        # A template renders to text, so digits count as a number.
        digits = isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value)
        if not digits and (not isinstance(value, int) or isinstance(value, bool)):
            raise InvalidLeadsError(f"email_count must be a whole number such as 3, not {kind_of(value)} ({value!r}).")
    elif name == "enrichment_enabled":
        # A template renders to text, so these two words count.
        if not isinstance(value, bool) and str(value).strip().lower() not in ("true", "false"):
            raise InvalidLeadsError(f"enrichment_enabled must be True or False, not {kind_of(value)}.")
    elif name == "approved_ctas":
        texts = isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
        if not (texts or isinstance(value, str)):
            raise InvalidLeadsError(f"approved_ctas must be a list of texts or one text, not {kind_of(value)}.")
    elif name in _TEXTS and not isinstance(value, str):
        raise InvalidLeadsError(f"{name} must be a text, not {kind_of(value)}.")

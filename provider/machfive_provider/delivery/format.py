"""The formats and shapes of an export, and which one a destination asks for. Pure."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from machfive_provider.exceptions import ConfigurationError

__all__ = ["ExportFormat", "ExportShape", "MissingPolicy", "check_shape", "format_for"]

ExportFormat = Literal["csv", "json", "jsonl", "parquet"]
ExportShape = Literal["api", "flat"]
MissingPolicy = Literal["fail", "warn", "ignore"]

_BY_ENDING: dict[str, ExportFormat] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


def format_for(export_to: Any, export_format: str | None = None) -> ExportFormat:
    """Return the format in which to write.

    :param export_to: the path or URL of the destination
    :param export_format: the format asked for; None takes it from the ending of ``export_to``
    :raises ConfigurationError: for a format that is not known, an ending that contradicts it, or neither of them
    """
    known = get_args(ExportFormat)
    if export_format is not None and export_format not in known:
        raise ConfigurationError(f"export_format is {export_format!r}; use one of {', '.join(map(repr, known))}.")
    name = str(export_to).strip().replace("\\", "/").rpartition("/")[2]
    ending = f".{name.rpartition('.')[2].lower()}" if "." in name else ""
    by_ending = _BY_ENDING.get(ending)
    if export_format is None and by_ending is None:
        raise ConfigurationError(
            f"export_to {str(export_to)!r} does not end in {', '.join(_BY_ENDING)}: set export_format to one of "
            f"{', '.join(map(repr, known))}."
        )
    if export_format and by_ending and export_format != by_ending:
        raise ConfigurationError(
            f"export_to {str(export_to)!r} ends in {ending}, but export_format is {export_format!r}: change one of "
            f"them, or leave export_format out to write {by_ending}."
        )
    return by_ending or cast("ExportFormat", export_format)


def check_shape(form: str, shape: str, *, escape_formulas: bool) -> None:
    """Check that a format can be written in a shape, and has cells whose formulas can be escaped.

    :raises ConfigurationError: if not
    """
    if shape == "flat" and form not in ("csv", "jsonl"):
        raise ConfigurationError(
            f"export_shape 'flat' is one row a lead in csv or jsonl, but the export is written as {form}: leave "
            "export_shape out, or write csv or jsonl."
        )
    if escape_formulas and form != "csv":
        raise ConfigurationError(
            f"escape_formulas is about cells of a csv, but the export is written as {form}: leave it out, or write csv."
        )

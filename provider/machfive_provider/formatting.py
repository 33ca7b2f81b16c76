"""Numbers, durations and texts as they are written in messages and log lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["absolute", "counted", "duration", "for_spreadsheets", "kind_of", "one_line"]

_LONGEST_TEXT = 600


def one_line(text: str) -> str:
    """Return the text on one line of at most 600 characters, without what cannot be printed."""
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def for_spreadsheets(text: str) -> str:
    """Return the text of a CSV's cell; one that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def kind_of(value: Any) -> str:
    """Return the kind of a value: messages never quote what may be personal data."""
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def absolute(path: str) -> str:
    """Make a path absolute; keep a URL: task-sdk 1.1 (Airflow 3.1) reads a relative ObjectStoragePath from the root."""
    return path if "://" in path else str(Path(path).absolute())


def counted(number: int | None, noun: str, plural: str | None = None) -> str:
    """Write ``1 lead``, ``2 leads``, or ``an unknown number of leads``."""
    many = plural or f"{noun}s"
    if number is None:
        return f"an unknown number of {many}"
    return f"{number} {noun}" if number == 1 else f"{number} {many}"


def duration(seconds: float) -> str:
    """Write seconds for people: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"

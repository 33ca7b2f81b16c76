"""One lead as read, before its columns are matched."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Row"]


class Row(NamedTuple):
    """One lead as read.

    :param at: how its position is written, with ``{}`` for the number: ``line {}``, ``leads[{}]``
    :param number: where it is in the source; its first line, where it has several
    :param fields: its fields under the source's own names
    :param problem: why its fields cannot be read, None if they can
    """

    at: str
    number: int
    fields: Any
    problem: str | None = None

    @property
    def position(self) -> str:
        """Where the lead is, for messages."""
        return self.at.format(self.number)

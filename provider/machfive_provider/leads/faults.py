"""What is wrong with leads, told by reason: each reason once, with the positions and a remedy of its own."""

from __future__ import annotations

from collections.abc import Iterable

from machfive_provider.exceptions import InvalidLeadsError

__all__ = ["refusal"]

_POSITIONS, _REASONS = 10, 5  # so many are shown

_FLAT = "Flatten a list of lists; give rows of values the names of their columns, with dict(zip(names, row))."
# The remedies for reasons that begin with these words; "Correct them" serves the others.
_REMEDIES = (
    ("is a value of type list, not", _FLAT),
    ("is a value of type tuple, not", _FLAT),
    ("is a value of type str, not an object", "Give each lead as an object, such as {'email': …}."),
    ("is nothing, not an object", "A task that leads come from returned None."),
)


def refusal(source: str, total: int, what: str, entries: Iterable[tuple[str, str]], fix: str) -> InvalidLeadsError:
    """Return the error for leads that cannot be used.

    :param entries: position and reason of each
    :param fix: the remedy for all of them
    """
    positions: dict[str, list[str]] = {}
    for position, reason in entries:
        positions.setdefault(reason, []).append(position)
    count = sum(map(len, positions.values()))
    told = "; ".join(f"{_listed(where)}: {reason}" for reason, where in list(positions.items())[:_REASONS])
    more = f"; and {len(positions) - _REASONS} other reasons" if len(positions) > _REASONS else ""
    remedies = [text for words, text in _REMEDIES if any(reason.startswith(words) for reason in positions)]
    return InvalidLeadsError(f"{source}: {count} of {total} leads {what}: {told}{more}. {' '.join([*remedies, fix])}")


def _listed(positions: list[str]) -> str:
    more = f" and {len(positions) - _POSITIONS} more" if len(positions) > _POSITIONS else ""
    return f"{', '.join(positions[:_POSITIONS])}{more}"

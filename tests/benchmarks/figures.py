"""What every benchmark gives back: a table, the limits it is held to, and what to plot of it.

A benchmark is a module of this package with a function ``measure() -> Figure``. ``python -m tests.benchmarks`` runs
them all and writes docs/performance.md; ``python -m tests.benchmarks.NAME`` runs one and prints its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Figure", "Limit", "Plot"]


@dataclass(frozen=True)
class Limit:
    """One limit, and whether it holds.

    :param claim: what is compared with what, such as "requests per poll due, of dbt Cloud's"
    :param at_most: False: ``measured`` must be at least ``limit``
    """

    claim: str
    measured: float
    limit: float
    at_most: bool = True
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the limit holds."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass(frozen=True)
class Plot:
    """One bar chart.

    :param bars: by label, in order
    :param limit: drawn as a line, if there is one
    :param log: logarithmic scale, where the bars differ by orders of magnitude
    """

    title: str
    unit: str
    bars: Mapping[str, float]
    limit: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Figure:
    """What one benchmark has measured.

    :param name: the module's
    :param how: a paragraph for the reader: what was run and how it was counted
    :param columns: the table's header, the first column being the label
    :param absent: peers that could not be measured, each with the reason
    """

    name: str
    title: str
    how: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    limits: tuple[Limit, ...]
    plots: tuple[Plot, ...] = ()
    absent: tuple[str, ...] = field(default=())

    @property
    def holds(self) -> bool:
        """Whether every limit holds."""
        return all(each.holds for each in self.limits)

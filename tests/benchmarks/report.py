"""From figures to docs/performance.md: kept results in, Markdown out. Pure but for reading and writing files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.environment import ROOT
from tests.benchmarks.figures import Figure, Limit, Plot

__all__ = ["Kept", "from_json", "keep", "kept", "plot_file", "shown", "taken_at", "to_json", "to_markdown", "to_text"]

KEPT = ROOT / ".bench"

HEAD = """\
# Performance

Every figure beside its peers or its limit. `make bench` measures all of it again and writes this page from what it
has measured; `make bench ONLY=polling` does so for one of them and leaves the others as they were, with their dates.
The peers are installed from the package index into an environment of the benchmarks' own, beside the same Airflow.
Ratios travel from machine to machine, seconds do not: the limits are ratios wherever there is a peer.
"""


@dataclass(frozen=True)
class Kept:
    """A figure, and when and where it was taken."""

    figure: Figure
    date: str
    airflow: str
    machine: str


# --- results are kept as JSON


def to_json(kept: Kept) -> str:
    """Return a result as text that :func:`from_json` reads."""
    return json.dumps(asdict(kept), indent=1)


def from_json(text: str) -> Kept:
    """Read a result."""
    data = json.loads(text)
    figure = data.pop("figure")
    read: dict[str, Any] = {
        **figure,
        "columns": tuple(figure["columns"]),
        "rows": tuple(map(tuple, figure["rows"])),
        "limits": tuple(Limit(**each) for each in figure["limits"]),
        "plots": tuple(Plot(**each) for each in figure["plots"]),
        "absent": tuple(figure["absent"]),
    }
    return Kept(Figure(**read), **data)


def keep(result: Kept, folder: Path = KEPT) -> None:
    """Keep a result in place of the last one of its benchmark."""
    folder.mkdir(exist_ok=True)
    (folder / f"{result.figure.name}.json").write_text(to_json(result))


def kept(names: Iterable[str], folder: Path = KEPT) -> list[Kept]:
    """Return what is kept of these benchmarks, in their order."""
    files = [folder / f"{name}.json" for name in names]
    return [from_json(each.read_text()) for each in files if each.exists()]


def taken_at(name: str, folder: Path = KEPT) -> int:
    """Return when the kept result of a benchmark was written, 0 if there is none; for telling one from the next."""
    file = folder / f"{name}.json"
    return file.stat().st_mtime_ns if file.exists() else 0


# --- the page


def to_markdown(results: Sequence[Kept], missing: Sequence[str] = (), *, plotted: bool = True) -> str:
    """Return the whole page.

    :param missing: benchmarks of which there is no result: named, so that nobody takes the page for complete
    :param plotted: whether there are plots to show
    """
    parts = [HEAD, _summary(results)] if results else [HEAD]
    parts += [_section(each, plotted=plotted) for each in results]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def to_text(result: Kept) -> str:
    """Return one result as it is printed: the section without its plots."""
    return _section(result, plotted=False)


def plot_file(figure: Figure, number: int) -> str:
    """Return the name of a plot's file."""
    return f"{figure.name}-{number + 1}.png"


def _section(result: Kept, *, plotted: bool) -> str:
    figure = result.figure
    lines = [f"## {figure.title}", "", figure.how, "", _table(figure.columns, figure.rows), ""]
    if figure.limits:
        lines += [_table(("limit", "measured", "allowed", ""), map(_limit_row, figure.limits)), ""]
    lines += [f"Absent, and so not compared: {each}." for each in figure.absent]
    lines += [""] * bool(figure.absent)
    if plotted:
        lines += [f"![{each.title}](performance/{plot_file(figure, n)})" for n, each in enumerate(figure.plots)]
        lines += [""] * bool(figure.plots)
    lines += [f"Taken on {result.date} with Airflow {result.airflow}; {result.machine}.", ""]
    return "\n".join(lines)


def _summary(results: Sequence[Kept]) -> str:
    rows = [
        (f"[{each.figure.title}](#{_anchor(each.figure.title)})", len(each.figure.limits), _kept_of(each.figure.limits))
        for each in results
    ]
    return _table(("what", "limits", "kept"), rows) + "\n"


def _kept_of(limits: Sequence[Limit]) -> str:
    missed = [each for each in limits if not each.holds]
    return "all" if not missed else f"**{len(missed)} MISSED**"


def _limit_row(limit: Limit) -> tuple[str, str, str, str]:
    unit = f" {limit.unit}" if limit.unit else ""
    measured = "not measured" if math.isnan(limit.measured) else f"{shown(limit.measured)}{unit}"
    allowed = f"{'≤' if limit.at_most else '≥'} {shown(limit.limit)}{unit}"
    return limit.claim, measured, allowed, "holds" if limit.holds else "**MISSED**"


def _table(header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    rows = [list(each) for each in rows]
    numeric = [bool(rows) and all(isinstance(row[n], int | float) for row in rows) for n in range(len(header))]
    lines = [list(header), ["---:" if each else "---" for each in numeric]]
    lines += [[shown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown(value: str | float) -> str:
    """Return a number with three significant digits, or all digits before the point where there are more."""
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _anchor(title: str) -> str:
    """Return the name under which a heading is linked to."""
    return "".join(each for each in title.lower().replace(" ", "-") if each.isalnum() or each in "-_")

"""Bar charts of figures, as PNG. matplotlib is in the benchmarks' environment only."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.figures import Figure, Plot
from tests.benchmarks.report import plot_file, shown

__all__ = ["can_draw", "draw_all"]

OURS, PEERS, LINE = "#2f6fde", "#b8bec9", "#c8372d"


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_all(figures: Iterable[Figure], folder: Path) -> None:
    """Draw every plot of the figures into a folder, and leave no other plot there."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    for figure in figures:
        for number, plot in enumerate(figure.plots):
            _draw(plot, folder / plot_file(figure, number))


def _draw(plot: Plot, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    labels, values = list(plot.bars), list(plot.bars.values())
    canvas, axes = plt.subplots(figsize=(7.5, 0.9 + 0.42 * len(labels)), layout="constrained")
    bars = axes.barh(labels, values, color=[OURS if each.startswith("MachFive") else PEERS for each in labels])
    axes.bar_label(bars, labels=[shown(float(each)) for each in values], padding=4, fontsize=9)
    axes.invert_yaxis()
    if plot.log:
        axes.set_xscale("log")
    if plot.limit is not None:
        axes.axvline(plot.limit, color=LINE, linestyle="--", linewidth=1.2)
        text = f"limit for MachFive: {shown(float(plot.limit))}"
        axes.text(
            plot.limit,
            1.0,
            text,
            transform=axes.get_xaxis_transform(),
            color=LINE,
            fontsize=8,
            ha="center",
            va="bottom",
        )
    axes.margins(x=0.14)
    axes.set_xlabel(plot.unit)
    axes.set_title(plot.title, fontsize=11, pad=14)
    axes.spines[["top", "right"]].set_visible(False)
    # Without the metadata the same figures give the same file.
    canvas.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(canvas)

"""The ADL queries as dask graphs: files to events, events to histograms, histograms to pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import hist
import hist.dask
import matplotlib as mpl
import uproot
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from queries import QUERIES, Plot

# Small files lack some branches that others refer to; none of the queries follows those.
NanoAODSchema.warn_missing_crossrefs = False


def fileset(paths: Iterable[Path], chunks: int) -> dict[str, Any]:
    """What ``NanoEventsFactory`` reads: about ``chunks`` pieces of the files, the same number from each."""
    paths = [Path(path) for path in paths]
    each = math.ceil(chunks / len(paths))
    files = {}
    for path in paths:
        with uproot.open(path) as file:
            entries = file["Events"].num_entries
        pieces = max(1, min(each, entries))
        edges = [entries * i // pieces for i in range(pieces + 1)]
        steps = [[begin, end] for begin, end in pairwise(edges)]
        files[str(path)] = {"object_path": "Events", "steps": steps}
    return files


def planned_events(paths: Iterable[Path], chunks: int) -> Any:
    """Events of the files as a dask-awkward array: nothing but their structure is read."""
    factory = NanoEventsFactory.from_root(fileset(paths, chunks), schemaclass=NanoAODSchema, mode="dask")
    return factory.events()


def eager_events(path: Path) -> Any:
    """Events of one file in memory."""
    return NanoEventsFactory.from_root(
        {str(path): "Events"}, schemaclass=NanoAODSchema, mode="eager"
    ).events()


def planned_histograms(events: Any, names: Sequence[str] = tuple(QUERIES)) -> dict[str, Any]:
    """The queries' histograms as dask collections, by query, and for several of one query with a letter."""
    filled = {}
    for name in names:
        arrays = QUERIES[name].run(events)
        for key, plot, values in zip(plot_keys(name), QUERIES[name].plots, arrays, strict=True):
            filled[key] = hist.dask.Hist(axis_of(plot), storage=hist.storage.Int64()).fill(values)
    return filled


def plot_keys(name: str) -> list[str]:
    """``6`` has two histograms, ``6a`` and ``6b``."""
    several = len(QUERIES[name].plots) > 1
    return [name + "abc"[i] if several else name for i in range(len(QUERIES[name].plots))]


def plots() -> dict[str, Plot]:
    """Every histogram by its key."""
    return {
        key: plot
        for name, query in QUERIES.items()
        for key, plot in zip(plot_keys(name), query.plots, strict=True)
    }


def axis_of(plot: Plot) -> Any:
    """The axis of a plot's histogram."""
    return hist.axis.Regular(plot.bins, plot.low, plot.high, name="x", label=plot.label)


def draw(histograms: dict[str, Any], path: Path) -> None:
    """Draw all of them into one picture."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    known = plots()
    columns = 3
    rows = math.ceil(len(histograms) / columns)
    size = (4.6 * columns, 3.1 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat[len(histograms) :]:
        axes.set_axis_off()
    for axes, (key, histogram) in zip(grid.flat, histograms.items(), strict=False):
        draw_one(axes, key, known[key], histogram)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_one(axes: Any, key: str, plot: Plot, histogram: Any) -> None:
    """Draw one histogram, and how many entries it has."""
    counts = histogram.values()
    edges = histogram.axes[0].edges
    axes.stairs(counts, edges, fill=True, color="#4477aa", alpha=0.35)
    axes.stairs(counts, edges, color="#22466b", linewidth=1.1)
    axes.set_xlim(plot.low, plot.high)
    axes.set_ylim(0, 1.18 * max(counts.max(), 1))
    axes.set_xlabel(plot.label)
    unit = " GeV" if "GeV" in plot.label else ""
    axes.set_ylabel(f"entries / {(plot.high - plot.low) / plot.bins:g}{unit}")
    axes.set_title(f"{key}: {plot.title}", fontsize=10, loc="left")
    total = int(histogram.sum(flow=True))
    where = {"transform": axes.transAxes, "ha": "right", "va": "top"}
    axes.text(0.97, 0.94, f"{total:,}", **where, fontsize=9, color="#555555")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)

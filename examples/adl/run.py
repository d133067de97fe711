"""Runs the eight ADL benchmark queries on NanoAOD through graphvine, and draws their histograms.

    pip install ".[hep]"
    python examples/adl/run.py                      # 200,000 made-up events
    python examples/adl/run.py file.root ...        # your files

More workers can join while it runs: give it a port, and start ``graphvine worker HOST PORT`` anywhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import dask
from analysis import draw, planned_events, planned_histograms
from make_nanoaod import make_files
from queries import QUERIES

import graphvine as gv


def main() -> int:
    options = arguments()
    began = perf_counter()
    paths = options.files or made_files(options)
    histograms = planned_histograms(planned_events(paths, options.chunks), options.query or list(QUERIES))
    print(f"{len(histograms)} histograms of {len(paths)} files planned in {perf_counter() - began:.1f} s")
    with gv.Manager(options.port, name="adl") if options.port is not None else gv.Manager() as manager:
        began = perf_counter()
        (results,) = dask.compute(histograms, scheduler=manager.get)
        print(f"computed in {perf_counter() - began:.1f} s")
    for key, histogram in results.items():
        print(f"  {key:3s} {int(histogram.sum(flow=True)):12,} entries")
    draw(results, options.out)
    print(f"drawn: {options.out}")
    return 0


def made_files(options: argparse.Namespace) -> list[Path]:
    directory = options.directory or Path(tempfile.gettempdir()) / "graphvine-adl"
    print(f"{options.events:,} events are made up in {directory} (those of the last time are used again)")
    return make_files(directory, options.events, files=4)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="NanoAOD files (default: make some)")
    parser.add_argument("--events", type=int, default=200_000, help="how many events to make")
    parser.add_argument("--directory", type=Path, help="where to make them")
    parser.add_argument("--chunks", type=int, default=40, help="pieces to cut the files into")
    parser.add_argument("--query", action="append", choices=list(QUERIES), help="only these (repeat it)")
    parser.add_argument("--port", type=int, help="listen here for more workers")
    parser.add_argument("--out", type=Path, default=Path("adl.png"), help="the picture (default: adl.png)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""The ADL example as a benchmark: its files, its graph, its chunks."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import QUICK

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "adl"))

EVENTS = 50_000 if QUICK else 1_000_000


def files() -> list[Path]:
    """A million made-up events in eight files; made once."""
    from make_nanoaod import make_files

    return make_files(Path(tempfile.gettempdir()) / "graphvine-adl-bench", EVENTS, files=8)


def histograms(chunks: int) -> dict[str, Any]:
    """All eight queries over ``chunks`` chunks, planned."""
    from analysis import planned_events, planned_histograms

    return planned_histograms(planned_events(files(), chunks))

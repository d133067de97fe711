"""A task of a graph with files in its working directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphvine.protocol.payload import run
from graphvine.taskvine.remote import guarding, spawning
from graphvine.taskvine.remote.contents import place_named, resolved
from graphvine.worker import scratch


def run_with_files(
    inputs: Sequence[Any],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    fills: tuple[int, ...] | None,
    names: Sequence[str],
) -> Any:
    """Run an entry in a directory of its own, where the last inputs are files of these names.

    Raises FileNotFoundError for one that could not be had."""
    count = len(inputs) - len(names)
    directory = scratch.directory()
    files = [resolved(value) for value in inputs[count:]]
    for name, value in zip(names, files, strict=True):
        place_named(value, name, directory)
    seen = guarding.stamps(zip(files, names, strict=True))
    try:
        with spawning.inside(directory):
            return run((function, arguments, fills), inputs[:count])
    finally:
        guarding.drop_changed(seen)

"""What the node has kept of earlier runs, in place of making or sending it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from graphvine.protocol.trees import NewTree
from graphvine.taskvine.remote.cache import NodeCache
from graphvine.taskvine.remote.contents import Absent, Made, SmallFile, make, place
from graphvine.worker import scratch


def find(inputs: Sequence[Any], name: str) -> Made:
    """What the node kept under a name, or Absent."""
    target = os.path.join(scratch.directory(), "kept")
    return make(target) if NodeCache().take(name, target) else Absent("this node has not kept it")


def through(
    inputs: Sequence[Any], name: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    """What the node kept under a name; else what ``function(inputs, *arguments)`` makes, which is then
    kept."""
    found = find(inputs, name)
    if not isinstance(found, Absent):
        return found
    made = function(inputs, *arguments)
    if isinstance(made, NewTree):
        NodeCache().put(name, made.path)
    elif isinstance(made, SmallFile):
        path = os.path.join(scratch.directory(), "made")
        place(made, path, link=False)
        NodeCache().put(name, path)
    return made

"""A plan: one graph lowered for the manager, and what comes of running it.

A plan is made once (by ``dask_adapter``, or for plain functions by the executor) and handed over whole.
Its tasks are numbered 0..n-1 in the order in which they should run (depth first, so that neighbours belong
together): the number is the priority. Payloads are opaque: a task is an entry of a blob.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from graphvine.protocol.messages import Resources


class TaskOptions(msgspec.Struct, frozen=True):
    """What a task asks for beyond the defaults.

    ``priority``: larger runs earlier, before the plan's own order. ``retries``: how often the task is run
    again after it raised. ``workers``: names or hosts it may run on (empty: any); with
    ``allow_other_workers`` they are a preference only.
    """

    request: Resources = Resources()
    priority: int = 0
    retries: int = 0
    workers: tuple[str, ...] = ()
    allow_other_workers: bool = False


class Code(msgspec.Struct, frozen=True):
    """The user's own modules (a zip archive, may be empty) and the modules to import before any task."""

    name: str = ""
    modules: bytes = b""
    imports: tuple[str, ...] = ()


class Plan(msgspec.Struct):
    """Tasks with integer ids, their dependencies, payloads, categories.

    ``keys[t]``: how the user knows task ``t`` (only for messages). ``inputs[t]``: its dependencies in slot
    order, each once: a task number of this plan, or ``-1 - i`` for ``externals[i]``, an earlier plan's file.
    Task ``t`` is entry ``blob_index[t]`` of ``blobs[blob_of[t]]``. ``category_of[t]`` indexes
    ``categories``. ``wanted``: tasks whose results the user asked for (each once). ``options`` holds only
    the tasks that differ from ``default_options``.
    """

    keys: Sequence[object]
    inputs: list[tuple[int, ...]]
    blobs: list[bytes]
    blob_of: Sequence[int]
    blob_index: Sequence[int]
    categories: list[str]
    category_of: Sequence[int]
    wanted: list[int]
    externals: list[int] = []
    options: dict[int, TaskOptions] = {}
    default_options: TaskOptions = TaskOptions()
    code: Code = Code()
    label: str = ""

    def __len__(self) -> int:
        return len(self.inputs)

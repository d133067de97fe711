"""A plan: one graph lowered for the manager, and what comes of running it.

A plan is made once (by ``dask_adapter``, or for plain functions by the executor) and handed over whole.
Its tasks are numbered 0..n-1 in the order in which they should run (depth first, so that neighbours belong
together): the number is the priority. Payloads are opaque: a task is an entry of a blob.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from graphvine.protocol.messages import Resources


class TaskOptions(msgspec.Struct, frozen=True):
    """What a task asks for beyond the defaults.

    ``priority``: larger runs earlier, before the plan's own order. ``retries``: how often the task is run
    again after it raised. ``max_deaths``: how often it may kill its executor (or its worker) until it has
    failed (0: as the manager has it). ``workers``: names or hosts it may run on (empty: any); with
    ``allow_other_workers`` they are a preference only. ``max_s``: seconds that one run may take (0: any).
    ``features``: what its worker must have been started with. ``limit``: the name of a limit, of whose tasks
    only so many run at once, on all workers together (see ``Engine.limit``). ``lasts_s``: it sees to it by
    itself that it takes no longer (0: nobody knows). ``min_s``: it is begun only where its worker stays for
    so long. ``max_losses``: how often it may be lost with the worker that it was given to until it has failed
    (-1: any number of times).
    """

    request: Resources = Resources()
    priority: int = 0
    retries: int = 0
    workers: tuple[str, ...] = ()
    allow_other_workers: bool = False
    max_s: float = 0.0
    features: tuple[str, ...] = ()
    limit: str = ""
    lasts_s: float = 0.0
    min_s: float = 0.0
    max_deaths: int = 0
    max_losses: int = -1


class Code(msgspec.Struct, frozen=True):
    """What executors need before any task: the user's own modules (a zip archive, may be empty), and modules
    to import.

    What follows gives the plan executors of their own; plans that state the same share them. ``environment``:
    the result that is a packed environment, named as a task names its inputs (``-1 - i`` is
    ``externals[i]``); ``environment_name`` is its name by content. ``variables``: environment variables.
    ``setup``: run once per worker before anything else (see ``protocol.libraries``), called ``setup_name`` in
    messages: a library. ``inputs``: results that it is given, named as ``environment`` is.
    """

    name: str = ""
    modules: bytes = b""
    imports: tuple[str, ...] = ()
    environment: int | None = None
    environment_name: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    setup: bytes = b""
    setup_name: str = ""
    inputs: tuple[int, ...] = ()


class GivenValue(msgspec.Struct, frozen=True):
    """A value that is there from the start: its inline pickle."""

    data: bytes


class GivenFile(msgspec.Struct, frozen=True):
    """A file or directory of the manager's machine, sent to the first worker that needs it, and from there to
    others. ``size``: its bytes. ``tree``: consumers get it as a ``Tree``; otherwise it is a file of values,
    and they its value. ``stamp``: what it was like when it was declared (``protocol.given_files.stamp_of``;
    0: nobody looks): when it changed since, or is not there, its task fails ("missing")."""

    path: str
    size: int
    tree: bool = True
    stamp: int = 0


Given = GivenValue | GivenFile


def code_of(name: str, modules: bytes, imports: tuple[str, ...]) -> Code:
    """The code that is these modules, in an archive that is called ``name``, and these imports."""
    if not modules and not imports:
        return Code()
    digest = hashlib.sha256("\0".join((name, *imports)).encode()).hexdigest()[:32]
    return Code(digest, modules, imports)


class Plan(msgspec.Struct):
    """Tasks with integer ids, their dependencies, payloads, categories.

    ``keys[t]``: how the user knows task ``t`` (only for messages). ``inputs[t]``: its dependencies in slot
    order, each once: a task number of this plan, or ``-1 - i`` for ``externals[i]``, an earlier plan's file.
    Task ``t`` is entry ``blob_index[t]`` of ``blobs[blob_of[t]]``. ``category_of[t]`` indexes
    ``categories``. ``wanted``: tasks whose results the user asked for (each once). ``options`` holds only
    the tasks that differ from ``default_options``. ``given``: tasks that are never run (nor have a blob, or
    inputs), as their results are there from the start. ``separate``: one task that fails for good does not
    fail the plan: its result is a ``protocol.outcomes.Failed``; without ``outcomes`` nobody wants to hear of
    each of its tasks. ``unshared``: tasks whose results no worker fetches from another.
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
    given: dict[int, Given] = {}
    separate: bool = False
    outcomes: bool = True
    unshared: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.inputs)

"""Files that the manager's machine keeps for workers that had to leave, as long as they are needed.

They come the way wanted results do (``collect``), are written by a thread, and are given to workers like any
file of this machine (``giving``). The directory goes with the manager.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from graphvine.manager.collect import Collector, Wish
from graphvine.manager.instructions import Available, Stage
from graphvine.manager.plan import GivenFile
from graphvine.manager.run import Raw
from graphvine.protocol import tree_files
from graphvine.protocol.messages import Hello
from graphvine.protocol.trees import Tree

#: In place of a plan in what the collector is asked for.
STAGING = -1
#: So much of the disk is left to others.
_SPARE_SHARE = 0.1


class Teller(Protocol):
    """What is told of staged files: the core."""

    def on_staged(self, file: int, staged: GivenFile, now: float) -> None: ...
    def on_unstageable(self, file: int, reason: str, now: float) -> None: ...


class Staging:
    """Lives in the manager's thread; writes and removes in another, which reports through ``call``."""

    def __init__(
        self, directory: str, collector: Collector, call: Callable[[Callable[[], None]], None], core: Teller
    ) -> None:
        """``directory`` is made when it is first needed, in one that exists."""
        self._directory = directory
        self._collector = collector
        self._call = call
        self._core = core
        self._numbers = itertools.count(1)
        self._thread: ThreadPoolExecutor | None = None

    def bring(self, stage: Stage, hellos: dict[int, Hello]) -> None:
        """Get a file; ends in ``on_staged`` or ``on_unstageable`` of the core."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        usage = shutil.disk_usage(self._directory)
        if stage.size > usage.free - _SPARE_SHARE * usage.total:
            reason = f"no room for {stage.size} bytes in {self._directory}"
            self._core.on_unstageable(stage.file, reason, time.monotonic())
            return
        wanted = Available(STAGING, 0, stage.file, stage.size, None, stage.holders)
        self._collector.collect(wanted, hellos)

    def on_brought(self, wish: Wish, raw: Raw) -> None:
        """It is here, to be written."""
        self._submit(lambda: self._write(wish, raw))

    def remove(self, path: str) -> None:
        """It is not needed any more."""
        self._submit(lambda: self._remove(path))

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="graphvine-stage")
        self._thread.submit(work)

    # -- the thread ------------------------------------------------------------------------------------

    def _write(self, wish: Wish, raw: Raw) -> None:
        path = os.path.join(self._directory, f"{wish.file}-{next(self._numbers)}")
        try:
            if isinstance(raw, Tree):
                # It came into a directory of its own, which is ours from now on.
                os.rename(os.path.dirname(raw.path), path)
                staged = GivenFile(os.path.join(path, tree_files.DATA), wish.size)
            else:
                with open(path, "xb") as file:
                    file.write(raw)
                staged = GivenFile(path, wish.size, tree=False)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(path)
            reason = f"{path}: {error.strerror or error}"
            self._call(lambda: self._core.on_unstageable(wish.file, reason, time.monotonic()))
        else:
            self._call(lambda: self._core.on_staged(wish.file, staged, time.monotonic()))

    def _remove(self, path: str) -> None:
        inside = os.path.basename(path) == tree_files.DATA
        tree_files.remove(os.path.dirname(path) if inside else path)

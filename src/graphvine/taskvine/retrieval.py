"""Brings what lies on the workers to the manager's machine."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import stat
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from graphvine.manager.engine import Engine, Run
from graphvine.manager.plan import Plan
from graphvine.protocol.payload import Entry
from graphvine.protocol.trees import Tree
from graphvine.taskvine.remote.contents import SmallFile, copy_tree, place, reason_absent, resolved


class Retrieval:
    """One file on its way. ``take(value, error)`` is called once, by ``hands``."""

    def __init__(
        self,
        engine: Engine,
        hands: Executor,
        number: int,
        take: Callable[[Any, BaseException | None], None],
        entry: Entry | None = None,
    ) -> None:
        """``entry``: what is fetched is what this makes of the file, on a worker that has it."""
        self._engine = engine
        self._hands = hands
        self._number = number
        self._take = take
        self._entry = entry

    def begin(self) -> None:
        """Returns at once. Raises ManagerClosedError."""
        if self._entry is None:
            run = self._engine.gather([self._number])
        else:
            run = self._engine.run(_plan(self._number, self._entry))
        run.add_done_callback(self._on_done)

    def _on_done(self, run: Run) -> None:
        # The manager's thread: not the place to unpickle or copy.
        try:
            self._hands.submit(self._finish, run)
        except RuntimeError:
            return  # closed meanwhile

    def _finish(self, run: Run) -> None:
        try:
            value = resolved(run.result()[0])
        except BaseException as error:  # noqa: BLE001 -- it was lost, or is the user's to unpickle
            self._take(None, error)
        else:
            self._take(value, None)


def _plan(number: int, entry: Entry) -> Plan:
    return Plan(
        keys=[f"part of file {number}"],
        inputs=[(-1,)],
        blobs=[pickle.dumps([entry], protocol=5)],
        blob_of=[0],
        blob_index=[0],
        categories=["part"],
        category_of=[0],
        wanted=[0],
        externals=[number],
        label="part",
    )


def write_path(value: Any, path: str) -> None:
    """Have a file's content at a path: whole or not at all.

    A directory that is there keeps what the new one has not. A link to a file stays, what it leads to is
    replaced; a device is written to. Raises OSError; IsADirectoryError where a file would take the place of a
    directory, FileExistsError where it would take that of a pipe or socket."""
    path = path.rstrip("/")
    if not _is_directory(value):
        path = os.path.realpath(path)
        if _is_special(path):
            _write_to_device(value, path)
            return
    parent = os.path.dirname(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    building = tempfile.mkdtemp(prefix=f".{os.path.basename(path)[:100]}-", dir=parent)
    try:
        new = os.path.join(building, "new")
        _build(value, new)
        _move(new, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _is_directory(value: Any) -> bool:
    return isinstance(value, Tree) and os.path.isdir(value.path)


def _is_special(path: str) -> bool:
    """Whether something is there that is no file, directory or link."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _write_to_device(value: Any, path: str) -> None:
    """To /dev/null, say: that must never be replaced."""
    if not stat.S_ISCHR(os.stat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "what is there is no file, and stays", path)
    with open(path, "wb", buffering=0) as device:
        if isinstance(value, Tree):
            with open(value.path, "rb") as whole:
                shutil.copyfileobj(whole, device)
        else:
            device.write(read_bytes(value))


def write_over(value: Any, path: str) -> bool:
    """Have a file's content in the file that is there, for those who have it open. False if there is none, or
    it is none itself. Raises OSError."""
    if not os.path.isfile(path) or (isinstance(value, Tree) and not os.path.isfile(value.path)):
        return False
    with open(path, "r+b") as file:
        if isinstance(value, Tree):
            with open(value.path, "rb") as whole:
                shutil.copyfileobj(whole, file)
        else:
            file.write(read_bytes(value))
        file.truncate()
    return True


def _move(new: str, path: str) -> None:
    """Put what was built in its place; of two directories, the members of one among those of the other."""
    is_directory = os.path.isdir(new) and not os.path.islink(new)
    if is_directory and os.path.isdir(path):
        for name in os.listdir(new):
            _move(os.path.join(new, name), os.path.join(path, name))
    elif os.path.isdir(path) and not (os.path.islink(new) and os.path.islink(path)):
        raise IsADirectoryError(errno.EISDIR, "a file cannot replace the directory that is there", path)
    else:
        if is_directory and os.path.lexists(path):
            os.unlink(path)
        os.rename(new, path)


def _build(value: Any, path: str) -> None:
    if isinstance(value, Tree):
        copy_tree(value.path, path)
    else:
        place(value, path, link=False)
    if not os.path.isdir(path):
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IRUSR | stat.S_IWUSR)


def read_bytes(value: Any) -> bytes:
    """The bytes of a file. Raises OSError where there is none, IsADirectoryError."""
    reason = reason_absent(value)
    if reason:
        raise FileNotFoundError(reason)
    if isinstance(value, SmallFile):
        return value.data
    if isinstance(value, Tree):
        with open(value.path, "rb") as file:
            return file.read()
    raise TypeError(f"this is no file, but a {type(value).__name__}")

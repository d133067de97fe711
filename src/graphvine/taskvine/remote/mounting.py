"""The inputs of a command, put into its sandbox.

They are hard links into the store where that is possible: never to be written to (``guarding``). What is also
an output is a copy. An input that cannot be had means that the command is not run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

import msgspec

from graphvine.protocol.trees import Tree
from graphvine.taskvine.remote.cache import NodeCache
from graphvine.taskvine.remote.contents import is_for_lack_of_room, place, reason_absent
from graphvine.taskvine.remote.description import Command, Mount
from graphvine.taskvine.remote.home import Home


class SandboxError(OSError):
    """An input cannot be put where it is to stand, and why."""


class Lack(msgspec.Struct, frozen=True):
    """Why a task is not run: the word that is its result, and the reason."""

    word: str
    reason: str


def lacking(inputs: Sequence[Any], command: Command) -> Lack | None:
    """Which input cannot be had, and why; None when all can."""
    for slot, value in enumerate(inputs):
        reason = reason_absent(value)
        if reason:
            names = {mount.slot % len(inputs): mount.name for mount in command.inputs}
            word = "sandbox exhaustion" if is_for_lack_of_room(value) else "input missing"
            return Lack(word, f"{names.get(slot, 'its environment')}: {reason}")
    return None


def furnish(home: Home, inputs: Sequence[Any], command: Command) -> None:
    """Have the sandbox, with its inputs."""
    home.furnish()
    sandbox = home.sandbox
    for mount in command.inputs:
        try:
            _mount(inputs[mount.slot], mount, os.path.join(sandbox, mount.name))
        except OSError as error:
            why = f"{mount.name} cannot be put into the sandbox: {_why_not(sandbox, mount.name, error)}"
            raise SandboxError(error.errno, why) from error
    for outlet in command.outputs:
        os.makedirs(os.path.dirname(os.path.join(sandbox, outlet.name)), exist_ok=True)


def linked(inputs: Sequence[Any], command: Command) -> list[tuple[Any, str]]:
    """What stands in the sandbox without being a copy, with its name."""
    return [(inputs[mount.slot], mount.name) for mount in command.inputs if not mount.copied]


def _mount(value: Any, mount: Mount, path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if mount.keep_as and isinstance(value, Tree):
        NodeCache().put(mount.keep_as, value.path)
    if mount.symlink and isinstance(value, Tree):
        os.symlink(value.path, path)
    elif isinstance(value, Tree) and os.path.isdir(value.path) and os.path.isdir(path):
        # Something was put below it before.
        shutil.copytree(value.path, path, symlinks=True, dirs_exist_ok=True)
    else:
        place(value, path, link=not mount.copied)


def _why_not(sandbox: str, name: str, error: OSError) -> str:
    """What is in the way of an input, in the names that the task uses."""
    above = os.path.dirname(name)
    while above and not os.path.isfile(os.path.join(sandbox, above)):
        above = os.path.dirname(above)
    if above:
        return f"{above} is an input, too, and no directory"
    if os.path.isdir(os.path.join(sandbox, name)):
        return "other inputs stand below it, and it is no directory"
    return error.strerror or str(error)

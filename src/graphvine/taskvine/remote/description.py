"""What is said of a command between the user's process and an executor: what to run, what became of it."""

from __future__ import annotations

import msgspec

from graphvine.taskvine.remote.here import Making
from graphvine.taskvine.remote.limits import Limits


class Mount(msgspec.Struct, array_like=True):
    """Input ``slot`` stands in the sandbox as ``name``. ``copied``: may be written to. ``keep_as``: the name
    under which the node keeps it for later runs, "" for none."""

    slot: int
    name: str
    copied: bool = False
    symlink: bool = False
    keep_as: str = ""


class Outlet(msgspec.Struct, array_like=True):
    """An output: its name in the sandbox, and after which commands it is wanted ("always", "success",
    "failure"). ``watch``: it is sent as it grows. ``mode``: the permission bits that it gets, 0: its own."""

    name: str
    when: str = "always"
    watch: bool = False
    mode: int = 0


class Context(msgspec.Struct, array_like=True):
    """Input ``slot`` is a directory with bin/run_in_env, or a packed environment whose content has this
    name."""

    slot: int
    name: str = ""


class Command(msgspec.Struct, array_like=True):
    """What is run, and how. ``max_s``: its time, ``end_s``: when it must be over (since 1970); 0: no limit.
    ``contexts``: what it runs within, the outermost first.
    ``limits``: what it may use, where that is seen to. ``made``: inputs that are made here; their slots are
    -1, -2, ...
    A variable that is None is unset. ``threads``: how many libraries may start, 0: as many as they like."""

    line: str
    inputs: list[Mount] = []
    outputs: list[Outlet] = []
    variables: dict[str, str | None] = {}
    contexts: list[Context] = []
    max_s: float = 0.0
    end_s: float = 0.0
    threads: int = 1
    limits: Limits = Limits()
    made: list[Making] = []


class Status(msgspec.Struct, array_like=True):
    """What became of a command. Times in microseconds (``began``, ``ended`` since 1970), memory and disk in
    MB. ``signal``: the one that ended it, or 0. ``reason``: in words, where the word is not enough.
    ``kept_bytes``: that much standard output is with the outputs (see ``output_of``), as it is long."""

    word: str
    reason: str = ""
    exit_code: int = 0
    signal: int = 0
    output: bytes = b""
    kept_bytes: int = 0
    began: int = 0
    ended: int = 0
    cpu: int = 0
    memory: float = 0.0
    disk: float = 0.0
    files: int = 0
    missing: list[str] = []
    exceeded: dict[str, float] = {}


_encode = msgspec.msgpack.Encoder().encode
decode_command = msgspec.msgpack.Decoder(Command).decode
encode_status = _encode
decode_status = msgspec.msgpack.Decoder(Status).decode


def encode(command: Command) -> bytes:
    return _encode(command)

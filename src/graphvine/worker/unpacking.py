"""Environments on their way to being usable, as the agent's loop sees them. Nothing here waits.

For every zygote that runs in an environment there is first a helper process (``worker.unpacker``), so that
neither locks nor thousands of files are waited for here:

    helper: is it unpacked on this node?  yes -> Found
                                          no  -> Absent; the archive's path is said -> Found, or Unusable

With ``Found`` comes a descriptor that keeps the environment from being removed as long as somebody has it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys

import msgspec

from graphvine.worker.deaths import explain, tail

_MAX_BYTES = 2**17


class Absent(msgspec.Struct, array_like=True, tag=0):
    """The environment is not unpacked on this node: the helper waits for the path of its archive."""


class Found(msgspec.Struct, array_like=True, tag=1):
    """The environment can be used. ``unpacked_s``: how long it took to unpack, -1 when nothing was unpacked.
    ``variables``: what its activation scripts set."""

    prefix: str
    unpacked_s: float
    variables: dict[str, str]


class Unusable(msgspec.Struct, array_like=True, tag=2):
    """It cannot be used here, and why."""

    reason: str


FromHelper = Absent | Found | Unusable


class EnvironmentAbsent(msgspec.Struct):
    zygote: str


class EnvironmentFound(msgspec.Struct):
    """``hold``: the descriptor, which whoever takes this in has to close."""

    zygote: str
    found: Found
    hold: int


class EnvironmentUnusable(msgspec.Struct):
    zygote: str
    reason: str


class HelperDied(msgspec.Struct):
    zygote: str
    cause: str


UnpackingEvent = EnvironmentAbsent | EnvironmentFound | EnvironmentUnusable | HelperDied


class _Helper:
    """One helper process; what it prints goes to ``log``."""

    def __init__(self, zygote: str, name: str, cache: str, log: str) -> None:
        self.zygote = zygote
        self.log = log
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        flags = ["-P"] if sys.version_info >= (3, 11) else []
        with theirs, open(log, "ab") as output:
            self.log_begin = output.tell()
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *flags,
                    "-m",
                    "graphvine.worker.unpacker",
                    str(theirs.fileno()),
                    name,
                    cache,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.control.setblocking(False)

    def close(self) -> str:
        """End it, if it has not ended; how it did."""
        self.control.close()
        if self.process.poll() is None:
            # It has said all it had to say, or nobody wants to hear it.
            self.process.send_signal(signal.SIGKILL)
        code = self.process.wait()
        status = -code if code < 0 else code << 8
        return explain(status, 0.0, False, tail(self.log, self.log_begin))


class Unpacking:
    """All helpers of a worker. ``cache``: where environments lie ("": the default of ``envs.cache``)."""

    def __init__(self, log_directory: str, cache: str = "") -> None:
        self._log = os.path.join(log_directory, "environments.log")
        self._cache = cache
        self._epoll = select.epoll()
        self._helpers: dict[int, _Helper] = {}
        self._decode = msgspec.msgpack.Decoder(FromHelper).decode

    @property
    def descriptor(self) -> int:
        """Readable when ``completed`` has something."""
        return self._epoll.fileno()

    def start(self, zygote: str, name: str) -> None:
        """Look for the environment ``name`` on behalf of a zygote. Raises OSError."""
        for earlier in [one for one in self._helpers.values() if one.zygote == zygote]:
            self._end(earlier)
        helper = _Helper(zygote, name, self._cache, self._log)
        self._helpers[helper.control.fileno()] = helper
        self._epoll.register(helper.control, select.EPOLLIN)

    def unpack(self, zygote: str, archive: str) -> None:
        """Say where the archive lies, after ``EnvironmentAbsent``."""
        for helper in self._helpers.values():
            if helper.zygote == zygote:
                # One short message into an empty buffer; a helper that died meanwhile is told of by its end.
                try:
                    helper.control.send(os.fsencode(archive))
                except (BrokenPipeError, ConnectionResetError):
                    return

    def completed(self) -> list[UnpackingEvent]:
        events: list[UnpackingEvent] = []
        for descriptor, _ in self._epoll.poll(0):
            events.append(self._read(self._helpers[descriptor]))
        return events

    def _read(self, helper: _Helper) -> UnpackingEvent:
        try:
            data, descriptors, _, _ = socket.recv_fds(helper.control, _MAX_BYTES, 1)
        except ConnectionResetError:
            data, descriptors = b"", []
        if not data:
            return HelperDied(helper.zygote, self._end(helper))
        message = self._decode(data)
        if isinstance(message, Absent):
            return EnvironmentAbsent(helper.zygote)
        self._end(helper)
        if isinstance(message, Unusable):
            return EnvironmentUnusable(helper.zygote, message.reason)
        os.set_inheritable(descriptors[0], False)
        return EnvironmentFound(helper.zygote, message, descriptors[0])

    def _end(self, helper: _Helper) -> str:
        descriptor = helper.control.fileno()
        self._epoll.unregister(descriptor)
        del self._helpers[descriptor]
        return helper.close()

    def close(self) -> None:
        for helper in list(self._helpers.values()):
            self._end(helper)
        self._epoll.close()

"""A program begun: ``posix_spawn``, which shares this process's memory until the program is there, as a fork
would copy the page tables of an executor that holds all that its tasks import.

Python's own ``os.posix_spawn`` builds all that the C library is told anew for every program (44 variables, 62
signals), and knows no working directory, so that this process would have to go there itself, and back. Where
the C library can do it (glibc since 2.29), it is told directly: what is the same for every command once, the
environment whenever it changes. Elsewhere it is Python's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
#: More than any C library has for its file actions, its attributes, a set of signals.
_ROOM = 1024
_SET_PGROUP, _SET_SIGDEF, _SET_SIGMASK = 0x02, 0x04, 0x08
_REST = ("_init", "_addopen", "_adddup2", "_addchdir_np", "_destroy")


class Environment:
    """Environment variables of programs, as text and as the C library has them. Not to be changed."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Raises ValueError for what no environment can hold."""
        self.variables = variables
        for name in variables:
            if not name or "=" in name:
                raise ValueError(f"illegal environment variable name: {name!r}")
        self.block = _strings([f"{name}={value}" for name, value in variables.items()])


class PlainSpawner:
    """By Python's ``os.posix_spawn``."""

    def begin(
        self, path: str, arguments: tuple[str, ...], environment: Environment, directory: str, output: int
    ) -> int:
        """Begin a program in a directory, as a process group of its own; what it prints goes to the
        descriptor ``output``, it reads nothing, no signal is ignored or blocked. Its pid. Raises OSError when
        that cannot be, ValueError."""
        with inside(directory):
            return os.posix_spawn(
                path,
                arguments,
                environment.variables,
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ),
                setpgroup=0,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )


class Spawner(PlainSpawner):
    """By the C library itself. Raises AttributeError where it cannot do it. Not thread-safe."""

    def __init__(self) -> None:
        # That holds on to the interpreter's lock: it takes a fraction of a millisecond.
        library = ctypes.PyDLL(None)
        self._spawn = _function(library, "posix_spawn")
        self._init, self._open, self._dup2, self._chdir, self._destroy = (
            _function(library, f"posix_spawn_file_actions{rest}") for rest in _REST
        )
        self._pid = ctypes.c_int()
        self._pid_address = ctypes.addressof(self._pid)
        self._attributes = _make_attributes(library)
        self._actions = ctypes.create_string_buffer(_ROOM)
        self._made_for: tuple[str, int] | None = None

    def begin(
        self, path: str, arguments: tuple[str, ...], environment: Environment, directory: str, output: int
    ) -> int:
        if self._made_for != (directory, output):
            self._make_actions(directory, output)
        code = self._spawn(
            self._pid_address,
            _bytes(path),
            self._actions,
            self._attributes,
            _strings(arguments),
            environment.block,
        )
        if code:
            raise OSError(code, os.strerror(code), path)
        return self._pid.value

    def _make_actions(self, directory: str, output: int) -> None:
        actions = self._actions
        if self._made_for is not None:
            self._made_for = None
            self._destroy(actions)
        _check(self._init(actions))
        _check(self._open(actions, 0, b"/dev/null", os.O_RDONLY, 0))
        _check(self._dup2(actions, output, 1))
        _check(self._dup2(actions, output, 2))
        _check(self._chdir(actions, _bytes(directory)))
        self._made_for = directory, output


def make_spawner() -> PlainSpawner:
    """The best there is here."""
    try:
        return Spawner()
    except AttributeError:
        return PlainSpawner()


@contextlib.contextmanager
def inside(directory: str) -> Iterator[None]:
    """Be in a directory for a while. Raises OSError."""
    with coming_back():
        os.chdir(directory)
        yield


@contextlib.contextmanager
def coming_back() -> Iterator[None]:
    """Be in the same directory afterwards, which may have lost its name (users remove theirs)."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _make_attributes(library: ctypes.PyDLL) -> ctypes.Array[ctypes.c_char]:
    attributes, signals = ctypes.create_string_buffer(_ROOM), ctypes.create_string_buffer(_ROOM)

    def attribute(which: str, *arguments: object) -> None:
        _check(_function(library, f"posix_spawnattr_{which}")(attributes, *arguments))

    attribute("init")
    attribute("setpgroup", 0)
    _function(library, "sigemptyset")(signals)
    attribute("setsigmask", signals)
    for number in _SIGNALS:
        _function(library, "sigaddset")(signals, int(number))
    attribute("setsigdefault", signals)
    attribute("setflags", ctypes.c_short(_SET_PGROUP | _SET_SIGDEF | _SET_SIGMASK))
    return attributes


def _function(library: ctypes.PyDLL, name: str) -> Callable[..., int]:
    """A function of the C library that gives an error number. Raises AttributeError."""
    function: Any = getattr(library, name)
    function.restype = ctypes.c_int
    if name == "posix_spawn":
        # Told once, as that is quicker than looking at each argument.
        function.argtypes = [ctypes.c_void_p, ctypes.c_char_p] + [ctypes.c_void_p] * 4
    return function  # type: ignore[no-any-return]


def _check(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _strings(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """An array of C strings with a null at its end. Raises ValueError for a word with a null in it."""
    return (ctypes.c_char_p * (len(words) + 1))(*map(_bytes, words), None)


def _bytes(word: str) -> bytes:
    data = os.fsencode(word)
    if b"\0" in data:
        raise ValueError("embedded null byte")
    return data

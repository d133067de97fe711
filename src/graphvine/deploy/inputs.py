"""What jobs bring, put where nodes see it: in the submission's own directory, which its owner alone may
enter.

For batch systems whose jobs share a file system with the machine that submits. Small files are copied, so
that a manager that ends does not take them away from jobs that wait; proxies and tokens that are renewed are
copied again (``Renewals``).
The packed environment is linked, or copied once for all submissions whose directories lie side by side."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from graphvine.deploy.errors import DeployError
from graphvine.deploy.script import Surroundings
from graphvine.deploy.spec import WorkerSpec

#: Beside the directories of submissions.
ENVIRONMENTS = "environments"
#: In each of them.
CONNECTION = "connection.json"
_PROXY = "proxy"
_TOKEN = "token"


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute paths; "" for what there is none of."""

    connection_file: str
    archive: str = ""
    proxy: str = ""
    token: str = ""

    def named(self) -> Mapping[str, str]:
        """Those that are there, by name."""
        return {name: path for name, path in msgspec.structs.asdict(self).items() if path}


def around(inputs: Inputs, word: Callable[[str], str] = shlex.quote, **promised: str) -> Surroundings:
    """What a script is told: each path as a ``word`` of shell, and what else the batch system promises."""
    words = {name: word(path) for name, path in inputs.named().items()}
    return msgspec.convert({**words, **promised}, Surroundings, strict=False)


def place(spec: WorkerSpec, directory: Path) -> Inputs:
    """Put all that ``spec`` names into ``directory``. Raises DeployError."""
    try:
        directory.chmod(0o700)
        return Inputs(
            connection_file=_private_copy(spec.connection_file, directory / CONNECTION),
            archive=_archive(spec.archive, directory.parent / ENVIRONMENTS) if spec.archive else "",
            proxy=_private_copy(spec.proxy, directory / _PROXY) if spec.proxy else "",
            token=_private_copy(spec.token, directory / _TOKEN) if spec.token else "",
        )
    except OSError as error:
        raise DeployError(f"what the jobs bring can't be put into {directory}: {error}") from error


class Renewals:
    """Keeps copies of proxies and tokens as new as what they were made from."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def look(self, spec: WorkerSpec, directories: Collection[Path]) -> None:
        """Replace the copies in the directories of submissions if there is something newer. (What is gone
        was valid when it was copied, and perhaps still is.)"""
        for source, name in ((spec.proxy, _PROXY), (spec.token, _TOKEN)):
            with contextlib.suppress(OSError):
                if source and self._is_new(source):
                    for target in [directory / name for directory in directories]:
                        if target.exists():
                            _replace(source, target)

    def _is_new(self, source: str) -> bool:
        """Whether it has changed since it was looked at, if it was. Raises OSError."""
        found = os.stat(source)
        now = (found.st_mtime_ns, found.st_size)
        before = self._seen.setdefault(source, now)
        self._seen[source] = now
        return before != now


def _replace(source: str, target: Path) -> None:
    """Whoever reads it finds the old one or the new one, whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    _private_copy(source, temporary)
    temporary.replace(target)


def planned(spec: WorkerSpec, directory: Path) -> Inputs:
    """What ``place`` would return; nothing is done."""
    return Inputs(
        connection_file=str(directory / CONNECTION),
        archive=str(directory.parent / ENVIRONMENTS / Path(spec.archive).name) if spec.archive else "",
        proxy=str(directory / _PROXY) if spec.proxy else "",
        token=str(directory / _TOKEN) if spec.token else "",
    )


def _private_copy(source: str, target: Path) -> str:
    """A copy that nobody else can read, at no time."""
    data = Path(source).read_bytes()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return str(target)


def _archive(source: str, directory: Path) -> str:
    directory.mkdir(mode=0o700, exist_ok=True)
    target = directory / Path(source).name
    if not _is_same(source, target):
        temporary = directory / f".{target.name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # another file system
            shutil.copy2(source, temporary)
        temporary.replace(target)
    return str(target)


def _is_same(source: str, target: Path) -> bool:
    """A copy keeps size and time."""
    there = os.stat(source)
    try:
        here = target.stat()
    except FileNotFoundError:
        return False
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)

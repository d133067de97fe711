"""Names of contents: under which a node keeps what is declared ``cache="forever"``, from one run to the next.

A name is made of what a file is made of: the bytes of a local file or a buffer, the validator of a URL, the
command and the inputs of a mini-task. What has no name cannot be kept. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from graphvine.taskvine.files import Buffer, File, LocalFile, MiniTask, Unpacked, Url


def kept_name(file: File) -> str:
    """Under which nodes keep a file; "" where they are not to, or it has no name."""
    return content_of(file) if file.level == "forever" else ""


def content_of(file: File) -> str:
    """A name for what a file holds, as far as it is known; else ""."""
    if isinstance(file, LocalFile):
        return file.content
    if isinstance(file, Buffer):
        return _digest("buffer", file.data.decode("latin-1")) if file.data is not None else ""
    if isinstance(file, Url):
        known = file.validator
        return _digest("url", file.url, known.tag, str(known.size)) if known is not None and known.tag else ""
    if isinstance(file, Unpacked):
        archive = content_of(file.archive)
        return _digest("untar", archive) if archive else ""
    if isinstance(file, MiniTask):
        return _of_minitask(file)
    return ""


def _of_minitask(file: MiniTask) -> str:
    task = file.task
    parts = [task.command, file.output]
    for name, value in sorted(task._variables.items()):
        parts += [name, "" if value is None else f"={value}"]
    for mount in task._inputs:
        parts += [mount.name, content_of(mount.file)]
    for context in task._contexts:
        parts += ["within", content_of(context)]
    lacking = any(not content_of(one) for one in task.input_files())
    return "" if lacking else _digest("minitask", *parts)


def to_be_named(files: list[File], also: Sequence[File] = ()) -> list[LocalFile | Url]:
    """Of all these, what must be looked at before those that nodes keep, and ``also``, can have names."""
    found: dict[int, LocalFile | Url] = {}
    left = [*(file for file in files if file.level == "forever"), *also]
    while left:
        file = left.pop()
        if isinstance(file, (LocalFile, Url)):
            found[id(file)] = file
        elif isinstance(file, Unpacked):
            left.append(file.archive)
        elif isinstance(file, MiniTask):
            left += file.task.input_files()
    return list(found.values())


def _digest(kind: str, *parts: str) -> str:
    state = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape")
        state.update(b"%d:" % len(data) + data)
    return f"{kind}-{state.hexdigest()[:40]}"

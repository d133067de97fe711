"""Names of archives that say where they come from, not what is in them: of a URL and its version, say.

On a node such a name stands for that of the content, so that the same bytes are unpacked once, however they
came to be there. Who has the archive looks at it (``of_archive``) and leaves word in the cache, in a file
NAME.alias; who has not asks for that (``known``).
"""

from __future__ import annotations

import contextlib
import os
import re

from graphvine.envs.cache import Place
from graphvine.envs.errors import CacheError
from graphvine.envs.writer import digest_of

_ALIAS = ".alias"
#: Names that say how an archive was made; what has no name at all is not met again by its own.
_DERIVED = re.compile(r"(url|minitask|untar|buffer|unnamed)-")
_FOR_ONCE = "unnamed-"


def known(name: str, cache: str) -> str:
    """The name of the content that a name stands for here, as far as somebody has left word; else itself."""
    if not _DERIVED.match(name):
        return name
    try:
        with open(os.path.join(cache, name + _ALIAS), encoding="ascii") as file:
            return Place(cache, file.read()).name or name
    except (OSError, ValueError, CacheError):
        return name


def of_archive(archive: str, name: str, cache: str) -> str:
    """The name of an archive's content; leaves word that ``name`` stands for it. Raises OSError."""
    if name and not _DERIVED.match(name):
        return name
    found = known(name, cache) if name else ""
    if found != name and os.path.exists(Place(cache, found).marker):
        return found
    found = f"env-{digest_of(archive)}"
    if name and not name.startswith(_FOR_ONCE):
        with contextlib.suppress(OSError):
            _leave_word(name, found, cache)
    return found


def _leave_word(name: str, content: str, cache: str) -> None:
    """Words about what is not here any more go."""
    os.makedirs(cache, mode=0o700, exist_ok=True)
    for other in os.listdir(cache):
        if other.endswith(_ALIAS):
            meant = known(other.removesuffix(_ALIAS), cache)
            if meant != content and not os.path.exists(os.path.join(cache, meant + ".json")):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(cache, other))
    path = os.path.join(cache, name + _ALIAS)
    with open(f"{path}.{os.getpid()}", "w", encoding="ascii") as file:
        file.write(content)
    os.replace(file.name, path)

"""What a packed environment says of itself: the first member of its archive, read without unpacking the rest.

Archives that others made (conda-pack, poncho) have none; what they hold is found out by looking through them.
"""

from __future__ import annotations

import platform
import sys

import msgspec

#: Name of the archive's first member; it is not unpacked.
MEMBER = ".graphvine-environment.json"
FORMAT = 1


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """``python``: full version. ``platform``: as ``this_platform`` says it. ``glibc``: the oldest C library
    that it runs with, "" when it asks for none. ``packages``: names and versions, sorted. ``unpacked_bytes``
    and ``files``: sizes and number of all files; 0 when not known. ``front_bytes``: compressed size of the
    front (``envs.front``), which comes after the description; 0 when it has none."""

    format: int = FORMAT
    kind: str = "unknown"
    python: str = ""
    platform: str = ""
    glibc: str = ""
    packages: tuple[tuple[str, str], ...] = ()
    unpacked_bytes: int = 0
    files: int = 0
    front_bytes: int = 0


def encode(metadata: Metadata) -> bytes:
    """The member's bytes."""
    return msgspec.json.format(msgspec.json.encode(metadata), indent=1) + b"\n"


def decode(data: bytes) -> Metadata:
    """The other way. Raises msgspec.DecodeError (a ValueError)."""
    return msgspec.json.decode(data, type=Metadata)


def this_platform() -> str:
    """The kind of machine this is: ``linux-x86_64``, say."""
    return f"{sys.platform}-{platform.machine()}"


def this_glibc() -> str:
    """Version of this machine's C library, "" when it is another one."""
    name, version = platform.libc_ver()
    return version if name == "glibc" else ""


def numbers(version: str) -> tuple[int, ...]:
    """A version's leading numbers, to compare."""
    found: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def minor(version: str) -> str:
    """``3.11.7`` -> ``3.11``."""
    return ".".join(version.split(".")[:2])

"""What can go wrong with environments: one class for each thing a user can do something about.

Every message says what was found and what to do. Each class can be pickled, so that one raised in a helper
process arrives as itself.
"""

from __future__ import annotations


class PackedEnvironmentError(Exception):
    """An environment could not be packed, read or unpacked."""


class PackingError(PackedEnvironmentError):
    """What was given can't be packed: no environment, or a tool for packing it is missing."""


class ChangedError(PackingError):
    """A file of the environment changed while it was packed."""


class DamagedArchiveError(PackedEnvironmentError):
    """The archive is cut short, altered, or no archive of an environment at all."""


class UnsafeArchiveError(DamagedArchiveError):
    """The archive names files outside of itself, or devices: nothing of it is used."""


class WrongPlatformError(PackedEnvironmentError):
    """The environment was made for another kind of machine, or needs a newer C library."""


class WrongPythonError(PackedEnvironmentError):
    """The environment's Python is not of the minor version that is needed."""


class NoPythonError(PackedEnvironmentError):
    """The archive holds no ``bin/python`` that starts."""


class NoSpaceError(PackedEnvironmentError):
    """The cache directory's disk is full, or a quota is used up."""


class CacheError(PackedEnvironmentError):
    """The cache directory can't be used: not writable, or a file system without locks."""

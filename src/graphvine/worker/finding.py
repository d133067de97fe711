"""Finding a manager: by its connection file, by its port on this machine, by its name, or by a password.

By name means: the file ``NAME.json`` in the user's state directory. It is looked for again and again, as that
directory may be on another machine, whose changes nothing tells of; after a second at first, then less often.
"""

from __future__ import annotations

import argparse
import os
import select
import time
from pathlib import Path

import msgspec

from graphvine.protocol.connection import (
    Connection,
    ConnectionFileError,
    find_connection,
    keyless_connection,
    read_connection,
    state_directory,
)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 10.0


def stated(options: argparse.Namespace) -> Connection:
    """The connection that the command line names. Raises ConnectionFileError."""
    if options.security == "none":
        return keyless_connection(options.host, options.port)
    if options.password_file:
        from graphvine.protocol.passwords import connection_by_password

        return connection_by_password(options.host, options.port, Path(options.password_file))
    if options.connection_file:
        connection = read_connection(Path(options.connection_file))
    else:
        connection = find_connection(options.port)
    if options.host:
        connection = msgspec.structs.replace(connection, hosts=(options.host,))
    if options.port:
        connection = msgspec.structs.replace(connection, port=options.port)
    return connection


class Search:
    """For managers of one name, one after the other."""

    def __init__(self, name: str, stop: int) -> None:
        """``stop``: a descriptor that becomes readable when this process is asked to stop."""
        self._path = state_directory() / f"{name}.json"
        self._stop = stop
        self._served: tuple[str, int] | None = None

    def next(self, timeout_s: float) -> Connection | None:
        """Wait for one that was not returned before. None: this process is asked to stop. Raises
        ConnectionFileError when there is none for ``timeout_s``, or its file must not be used."""
        end = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            connection = self._look()
            if connection is not None:
                return connection
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise ConnectionFileError(f"no manager wrote {self._path} for {timeout_s:g} s")
            if select.select([self._stop], [], [], min(pause_s, left_s))[0]:
                return None
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _look(self) -> Connection | None:
        if not os.path.exists(self._path):
            return None
        try:
            connection = read_connection(self._path)
        except ConnectionFileError:
            if not os.path.exists(self._path):
                return None  # it went away just now
            raise
        # The manager's key is its own for one run.
        key = (connection.manager_public, connection.port)
        if key == self._served:
            return None
        self._served = key
        return connection

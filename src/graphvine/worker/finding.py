"""Finding a manager: by its connection file, by its port on this machine, by its name, or by a password.

Of several addresses it is whoever answers first, and the next one when that one has closed. By name means:
the file ``NAME.json`` in the user's state directory, or else one whose name NAME fits as a regular
expression. It is looked for again and again, as that directory may be on another machine, whose changes
nothing tells of; after a second at first, then less often.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from graphvine.protocol.connection import (
    Connection,
    ConnectionFileError,
    connection_files,
    find_connection,
    keyless_connection,
    read_connection,
    state_directory,
)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 10.0
#: So long one of several addresses is waited for.
_ANSWER_S = 4.0


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
    """For managers, one after the other. What it looks for is said by ``_look`` and ``_what``."""

    def __init__(self, stop: int) -> None:
        """``stop``: a descriptor that becomes readable when this process is asked to stop."""
        self._stop = stop

    def next(self, timeout_s: float) -> Connection | None:
        """Wait for the next one. None: this process is asked to stop. Raises ConnectionFileError when there
        is none for ``timeout_s``, or its file must not be used."""
        end = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            connection = self._look()
            if connection is not None:
                return connection
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise ConnectionFileError(f"{self._what()} for {timeout_s:g} s")
            if select.select([self._stop], [], [], min(pause_s, left_s))[0]:
                return None
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _look(self) -> Connection | None:
        raise NotImplementedError

    def _what(self) -> str:
        raise NotImplementedError


class SearchByName(Search):
    """For managers of one name, or of those that a regular expression fits, none of them twice."""

    def __init__(self, name: str, stop: int) -> None:
        super().__init__(stop)
        self._path = state_directory() / f"{name}.json"
        try:
            self._pattern = re.compile(name)
        except re.error:
            self._pattern = re.compile(re.escape(name))  # such as "c++"
        self._served: set[tuple[str, int]] = set()

    def _what(self) -> str:
        return f"no manager wrote {self._path}"

    def _look(self) -> Connection | None:
        for path in self._candidates():
            try:
                connection = read_connection(path)
            except ConnectionFileError:
                # It went away just now, or is none that was named.
                if path != self._path or not os.path.exists(path):
                    continue
                raise
            # The manager's key is its own for one run.
            key = (connection.manager_public, connection.port)
            if key not in self._served:
                self._served.add(key)
                return connection
        return None

    def _candidates(self) -> list[Path]:
        """The one of that very name, or all that are meant, the latest first."""
        if os.path.exists(self._path):
            return [self._path]
        return [path for path in connection_files() if self._pattern.fullmatch(path.stem)]


class SearchByAddress(Search):
    """For managers at any of several addresses, in turn."""

    def __init__(self, options: argparse.Namespace, addresses: Sequence[tuple[str, int]], stop: int) -> None:
        super().__init__(stop)
        self._options = options
        self._addresses = list(addresses)
        self._problem = ""

    def _what(self) -> str:
        told = f" ({self._problem})" if self._problem else ""
        return f"no manager answered at {', '.join(f'{h}:{p}' for h, p in self._addresses)}{told}"

    def _look(self) -> Connection | None:
        for _ in self._addresses:
            # The next one first, when this one has closed.
            address = self._addresses.pop(0)
            self._addresses.append(address)
            if not _listens(*address):
                continue
            try:
                host, port = address
                return stated(argparse.Namespace(**{**vars(self._options), "host": host, "port": port}))
            except ConnectionFileError as error:
                self._problem = str(error)
        return None


def _listens(host: str, port: int) -> bool:
    """Whether anybody does."""
    try:
        with socket.create_connection((host, port), _ANSWER_S):
            return True
    except OSError:
        return False

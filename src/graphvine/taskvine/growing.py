"""Outputs that grow here while their tasks run (``add_output(..., watch=True)``), by the pieces that workers
send."""

from __future__ import annotations

import os
import threading

from graphvine.taskvine.files import Buffer, File, LocalFile
from graphvine.taskvine.remote.watching import Piece


class Growth:
    """One output on its way. ``take`` may be called in any order, and from several threads; a piece that
    comes after ``end`` changes nothing."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._lives: set[bytes] = set()
        self._life = b""
        self._ended = False

    def take(self, piece: Piece) -> None:
        """Raises OSError."""
        with self._lock:
            if self._ended:
                return
            begins = piece.life != self._life and piece.life not in self._lives
            if begins:
                self._life = piece.life
                self._lives.add(piece.life)
            if piece.life == self._life:
                self._write(piece.offset, piece.data, begins)

    def _write(self, offset: int, data: bytes, begins: bool) -> None:
        if isinstance(self.file, Buffer):
            had = b"" if begins or self.file.growing is None else self.file.growing
            self.file.growing = had[:offset].ljust(offset, b"\0") + data + had[offset + len(data) :]
        elif isinstance(self.file, LocalFile):
            path = self.file.path
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            fresh = os.O_TRUNC if begins else 0
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | fresh, 0o666)
            try:
                os.pwrite(descriptor, data, offset)
            finally:
                os.close(descriptor)

    def end(self) -> None:
        """What is whole is about to be written."""
        with self._lock:
            self._ended = True

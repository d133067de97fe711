"""Starts a worker: ``python -m graphvine.worker HOST PORT``, or ``--embedded`` by a manager for itself.

A manager's own worker starts its zygote before anything else of ours is imported, so that both get ready at
the same time; all others, of which many may start at once, import everything and fork it (``several``).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphvine.protocol.errors import GraphvineError
from graphvine.protocol.stopping import catch_signals
from graphvine.worker.launch import Launched, Zygote, zygote_log
from graphvine.worker.options import ignored, parse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from graphvine.protocol.connection import Connection
    from graphvine.worker.loop import Ending
    from graphvine.worker.pool import Pool
    from graphvine.worker.rest import Rest
    from graphvine.worker.store import Store

log = logging.getLogger("graphvine.worker")

#: Where results lie in memory, unless ``--memory-dir`` or GRAPHVINE_MEMORY_DIR names another place.
_MEMORY_DIRECTORY = "/dev/shm"
_LOOPBACK = "127.0.0.1"
_MB = 2**20


class UnusablePlaceError(GraphvineError):
    """A directory or file that a worker was told to write to can't be written to."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until its end. Returns the exit code. Raises ConnectionFileError, UnusablePlaceError."""
    options = parse(argv)
    if options.parent_death:
        from graphvine.worker.forking import die_with

        die_with(os.getppid(), signal.SIGTERM)
    if options.workers > 1:
        from graphvine.worker.several import run_several

        if options.rest:
            from graphvine.worker.rest import complete

            complete(options.rest)
            options.rest = None
        share_out(options)
        return run_several(options.workers, lambda number: _serve_forked(numbered(options, number)))
    return _serve(options, forks=not options.embedded)


def share_out(options: argparse.Namespace) -> None:
    """Where several workers are started and it is not said what each offers, each offers its share."""
    from graphvine.worker import node

    options.cores = options.cores or max(1.0, node.usable_cores() // options.workers)
    options.memory = options.memory or node.usable_memory_mb() / options.workers


def numbered(options: argparse.Namespace, number: int) -> argparse.Namespace:
    """The options of one of several workers."""
    import argparse

    name = options.name or socket.gethostname()
    own = argparse.Namespace(
        **{**vars(options), "name": f"{name}-{number}", "place": (number, options.workers)}
    )
    if options.log_dir:
        own.log_dir = os.path.join(options.log_dir, str(number))
    return own


def _serve_forked(options: argparse.Namespace) -> int:
    """Be one of several workers, in its process."""
    from graphvine.protocol.connection import ConnectionFileError

    try:
        return _serve(options, forks=True)
    except (ConnectionFileError, UnusablePlaceError) as error:
        print(f"graphvine: {error}", file=sys.stderr)
        return 1


def _serve(options: argparse.Namespace, *, forks: bool) -> int:
    """Be a worker until its end; ``forks`` its first zygote. Returns the exit code. Raises
    ConnectionFileError, UnusablePlaceError."""
    _begin_log(options)
    for line in ignored(options):
        log.info("%s", line)
    wake = catch_signals(signal.SIGTERM, signal.SIGINT)
    until = time.monotonic() + options.wall_time if options.wall_time else math.inf
    if options.manager or options.addresses:
        return _serve_one_after_another(options, wake, until, forks)
    return _conclude(_work(options, None, wake, until, forks))


def _serve_one_after_another(options: argparse.Namespace, wake: int, until: float, forks: bool) -> int:
    """Work for the manager of a name, or at one of several addresses, and then for the next one. Raises
    ConnectionFileError when there was none in time."""
    from graphvine.protocol.connection import ConnectionFileError
    from graphvine.worker.finding import Search, SearchByAddress, SearchByName

    search: Search
    if options.manager:
        search, what = SearchByName(options.manager, wake), f"named {options.manager}"
    else:
        search = SearchByAddress(options, options.addresses, wake)
        what = "at " + ", ".join(f"{host}:{port}" for host, port in options.addresses)
    ending: Ending | None = None
    while True:
        log.info("looking for a manager %s", what)
        try:
            connection = search.next(min(options.timeout, max(0.0, until - time.monotonic())))
        except ConnectionFileError as error:
            if ending is None:
                raise
            log.info("%s", error)
            return 0
        if connection is None:
            log.info("stopped by a signal")
            return 0
        # A process that has worked has had threads: it forks no zygote.
        ending = _work(options, connection, wake, until, forks and ending is None)
        code = _conclude(ending)
        if options.single_shot or not ending.alone:
            return code


def _conclude(ending: Ending) -> int:
    """Say how it ended. Returns the exit code."""
    log.log(logging.INFO if ending.clean else logging.ERROR, "%s", ending.reason)
    return 0 if ending.clean else 1


def _work(
    options: argparse.Namespace, connection: Connection | None, wake: int, until: float, forks: bool
) -> Ending:
    """Work for one manager. ``forks`` the zygote. Raises ConnectionFileError."""
    # Where its output goes must be known: without a directory for logs that is the store's, which is slower.
    launched: Zygote | None = None
    if options.log_dir:
        with _usable("--log-dir", options.log_dir):
            os.makedirs(options.log_dir, exist_ok=True)
        if not forks:
            launched = Launched(zygote_log(options.log_dir))
    if forks:
        from graphvine.worker.several import warm_up

        warm_up()
    from graphvine.worker.descriptors import too_few
    from graphvine.worker.loop import Ending
    from graphvine.worker.node import usable_cores, usable_memory_mb
    from graphvine.worker.pool import Pool
    from graphvine.worker.store import Store

    if reason := too_few(options.cores or usable_cores()):
        return Ending(reason, clean=False)
    if options.memory_dir:
        with _usable("--memory-dir", options.memory_dir):
            os.listdir(options.memory_dir)
    rest: Rest | None = None
    if options.rest:
        from graphvine.worker.rest import Rest, parse

        rest = Rest(parse(options.rest))
        options.rest = None  # a worker may work for several managers, one after the other
    memory_directory = options.memory_dir or os.environ.get("GRAPHVINE_MEMORY_DIR", _MEMORY_DIRECTORY)
    memory_mb = usable_memory_mb() if options.memory is None else options.memory
    workdir = options.workdir or os.environ.get("TMPDIR", "/tmp")
    with _usable("--workdir" if options.workdir else "TMPDIR", workdir):
        store = Store(
            memory_directory,
            workdir,
            memory_limit_bytes=memory_mb * _MB,
            disk_limit_bytes=math.inf if options.disk is None else options.disk * _MB,
        )
    try:
        logs = options.log_dir or store.scratch
        if forks:
            from graphvine.worker.several import ForkedZygote

            launched = ForkedZygote(zygote_log(logs), rest.descriptor if rest is not None else -1)
        pool = Pool(store.scratch, logs, watched=store.directories, zygote=launched)
        try:
            pool.start_zygote()
            if rest is not None:
                rest.start()
            return _run(options, connection or _connection(options), store, pool, wake, until, rest)
        finally:
            if rest is not None:
                rest.close()
            pool.close()
    finally:
        store.close()


def _run(
    options: argparse.Namespace,
    connection: Connection,
    store: Store,
    pool: Pool,
    wake: int,
    until: float,
    rest: Rest | None,
) -> Ending:
    from graphvine.worker.loop import Loop, Offer, Stay
    from graphvine.worker.settings import Settings

    name = options.name or ("local" if options.embedded else f"{socket.gethostname()}-{os.getpid()}")
    # Where only this machine can reach the manager, nobody else can come for files either.
    listen_on = _LOOPBACK if options.embedded and connection.hosts == (_LOOPBACK,) else ""
    # Two batch systems may have the same number for a job.
    job = f"{options.fleet}:{options.job}" if options.fleet else options.job
    offer = Offer(
        name,
        options.cores,
        options.memory,
        options.disk,
        listen_on,
        tuple(options.feature),
        job,
        options.gpus,
        options.place,
    )
    stay = Stay(until, 0.0 if options.embedded else options.grace, options.timeout)
    loop = Loop(connection, store, pool, offer, Settings(), stay)
    try:
        loop.watch_signals(wake)
        if rest is not None:
            loop.wait_for_rest(rest)
        if options.embedded or options.lifeline:
            loop.watch(sys.stdin.fileno(), "the manager's process is gone")
        return loop.run()
    finally:
        loop.close()


@contextlib.contextmanager
def _usable(what: str, path: str) -> Iterator[None]:
    """What the system refuses there is told in the user's words. Raises UnusablePlaceError."""
    try:
        yield
    except OSError as error:
        raise UnusablePlaceError(f"{what} {path} can't be written to: {error.strerror or error}") from None


def _begin_log(options: argparse.Namespace) -> None:
    """Where this process logs, and how much. Raises UnusablePlaceError."""
    target = options.debug_file or ":stderr"
    handler: logging.Handler
    if target in (":stderr", ":stdout"):
        handler = logging.StreamHandler(sys.stdout if target == ":stdout" else sys.stderr)
    else:
        from logging.handlers import RotatingFileHandler

        with _usable("--debug-file", target):
            handler = RotatingFileHandler(target, maxBytes=options.debug_max_rotate, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.INFO, handlers=[handler])


def _embedded_connection() -> Connection:
    """The connection on the first line of standard input, read without taking anything after it."""
    from graphvine.protocol.connection import parse_connection

    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            break
        line += byte
    return parse_connection(bytes(line), "standard input")


def _connection(options: argparse.Namespace) -> Connection:
    if options.embedded:
        return _embedded_connection()
    from graphvine.worker.finding import stated

    return stated(options)


def start() -> int:
    """Run a worker until its end, by the command line of this process. Returns the exit code."""
    from graphvine.protocol.connection import ConnectionFileError

    try:
        return main()
    except (ConnectionFileError, UnusablePlaceError) as error:
        print(f"graphvine: {error}", file=sys.stderr)
        return 1
    except ImportError:
        if "--rest" not in sys.argv:
            raise
        from graphvine.worker.rest import start_again

        start_again()


if __name__ == "__main__":
    sys.exit(start())

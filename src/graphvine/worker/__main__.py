"""Starts a worker: ``python -m graphvine.worker HOST PORT``, or ``--embedded`` by a manager for itself.

The zygote is started before anything else of ours is imported, so that both get ready at the same time.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphvine.worker.launch import Launched, zygote_log

if TYPE_CHECKING:
    from graphvine.protocol.connection import Connection
    from graphvine.worker.loop import Ending
    from graphvine.worker.pool import Pool
    from graphvine.worker.store import Store

log = logging.getLogger("graphvine.worker")

#: Where results lie in memory, unless ``--memory-dir`` or GRAPHVINE_MEMORY_DIR names another place.
_MEMORY_DIRECTORY = "/dev/shm"
_LOOPBACK = "127.0.0.1"
#: Slurm's default from SIGTERM to SIGKILL (KillWait) is 30 s, the shortest of the usual ones (HTCondor's is
#: ten minutes): less, so that what is on its way at the end still arrives. Where a site gives more, its jobs
#: say so with ``--grace``.
_GRACE_S = 25.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until its end. Returns the exit code. Raises ConnectionFileError."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.embedded and not options.connection_file and options.port is None:
        parser.error("name the manager's HOST and PORT, or give its --connection-file")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    wake = _catch_signals()
    # Where its output goes must be known: without a directory for logs that is the store's, which is slower.
    launched = None
    if options.log_dir:
        os.makedirs(options.log_dir, exist_ok=True)
        launched = Launched(zygote_log(options.log_dir))
    from graphvine.worker.pool import Pool
    from graphvine.worker.store import Store

    memory_directory = options.memory_dir or os.environ.get("GRAPHVINE_MEMORY_DIR", _MEMORY_DIRECTORY)
    store = Store(memory_directory, options.workdir or os.environ.get("TMPDIR", "/tmp"))
    try:
        logs = options.log_dir or store.scratch
        pool = Pool(store.scratch, logs, watched=store.directories, zygote=launched)
        try:
            pool.start_zygote()
            ending = _run(options, store, pool, wake)
        finally:
            pool.close()
    finally:
        store.close()
    log.log(logging.INFO if ending.clean else logging.ERROR, "%s", ending.reason)
    return 0 if ending.clean else 1


def _run(options: argparse.Namespace, store: Store, pool: Pool, wake: int) -> Ending:
    connection = _embedded_connection() if options.embedded else _connection(options)
    from graphvine.worker.loop import Loop, Offer
    from graphvine.worker.settings import Settings

    name = options.name or ("local" if options.embedded else f"{socket.gethostname()}-{os.getpid()}")
    # Where only this machine can reach the manager, nobody else can come for files either.
    listen_on = _LOOPBACK if options.embedded and connection.hosts == (_LOOPBACK,) else ""
    # Two batch systems may have the same number for a job.
    job = f"{options.fleet}:{options.job}" if options.fleet else options.job
    offer = Offer(name, options.cores, options.memory, options.disk, listen_on, tuple(options.feature), job)
    loop = Loop(connection, store, pool, offer, Settings())
    try:
        loop.watch_signals(wake, 0.0 if options.embedded else options.grace)
        if options.embedded or options.lifeline:
            loop.watch(sys.stdin.fileno(), "the manager's process is gone")
        return loop.run()
    finally:
        loop.close()


def _catch_signals() -> int:
    """A descriptor that becomes readable when this process is asked to stop."""
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return receiver


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
    from pathlib import Path

    import msgspec

    from graphvine.protocol.connection import find_connection, read_connection

    if options.connection_file:
        connection = read_connection(Path(options.connection_file))
    else:
        connection = find_connection(options.port)
    if options.host:
        connection = msgspec.structs.replace(connection, hosts=(options.host,))
    if options.port:
        connection = msgspec.structs.replace(connection, port=options.port)
    return connection


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphvine worker",
        usage="%(prog)s HOST PORT [options]\n       %(prog)s --connection-file FILE [options]",
        description="Offer this machine's cores to a graphvine manager, until it sends the worker away.",
    )
    parser.add_argument("host", nargs="?", metavar="HOST", help="where the manager runs")
    parser.add_argument("port", nargs="?", type=int, metavar="PORT", help="the manager's port")
    parser.add_argument("--connection-file", metavar="FILE", help="the manager's connection file")
    parser.add_argument("--cores", type=float, metavar="N", help="default: all this process may use")
    parser.add_argument("--memory", type=float, metavar="MB", help="default: all")
    parser.add_argument(
        "--disk", type=float, metavar="MB", help="default: what is free in the work directory"
    )
    parser.add_argument("--name", help="default: host and process id")
    parser.add_argument(
        "--feature", metavar="NAME", action="append", default=[], help="what tasks may ask for; repeatable"
    )
    parser.add_argument("--job", metavar="ID", default="", help="the batch job that this is, by its number")
    parser.add_argument("--lifeline", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fleet", metavar="ID", default="", help=argparse.SUPPRESS)
    parser.add_argument("--workdir", metavar="DIR", help="where large results go that memory has no room for")
    parser.add_argument(
        "--memory-dir",
        metavar="DIR",
        help="where results lie in memory (default: $GRAPHVINE_MEMORY_DIR, else /dev/shm)",
    )
    parser.add_argument("--log-dir", metavar="DIR", help="keep the executors' output here")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=float,
        default=_GRACE_S,
        help="how long after a signal (SIGTERM, SIGINT) running tasks may go on, while what only this worker "
        f"holds is handed over (default: {_GRACE_S:g}); a second signal ends it at once",
    )
    parser.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    return parser


def _start() -> int:
    from graphvine.protocol.connection import ConnectionFileError

    try:
        return main()
    except ConnectionFileError as error:
        print(f"graphvine: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_start())

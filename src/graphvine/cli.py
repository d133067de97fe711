"""The commands ``graphvine`` and ``vine_worker``.

Each command imports what it needs when it runs: ``graphvine --version`` loads nothing else of ours. Whatever
a user can get wrong is one line on standard error, with exit code 2 (wrong usage) or 1 (it did not work).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from graphvine import __version__
from graphvine.protocol.usage import Parser, SubParser

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130

_EPILOG = """\
examples:
  graphvine demo                       a small analysis on this machine's cores
  graphvine worker localhost 9123      join the manager that listens on port 9123
  graphvine env pack                   the environment you are in, as one archive
  graphvine submit slurm -M NAME 50    fifty workers for the manager of that name
  graphvine COMMAND --help             the options of a command
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The ``graphvine`` command. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["worker"]:
        # The worker knows its own options; they are not spelled out twice.
        return worker_main(arguments[1:])
    if arguments[:1] == ["factory"]:
        return factory_main(arguments[1:])
    if arguments[:1] == ["submit"]:
        return _guarded(lambda: _submit(arguments[1:]))
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    run = _env if options.command == "env" else _demo
    return _guarded(lambda: run(options))


def worker_main(argv: Sequence[str] | None = None) -> int:
    """The ``vine_worker`` command. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _worker(arguments))


def factory_main(argv: Sequence[str] | None = None) -> int:
    """The ``vine_factory`` command. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _factory(arguments))


def _guarded(command: Callable[[], int]) -> int:
    """Run a command; a user's mistake, a Ctrl-C or a closed pipe is no traceback."""
    try:
        return _explained(command)
    except KeyboardInterrupt:
        print("\ngraphvine: interrupted", file=sys.stderr)
        return INTERRUPTED


def _explained(command: Callable[[], int]) -> int:
    from graphvine.envs.errors import PackedEnvironmentError
    from graphvine.protocol.connection import ConnectionFileError
    from graphvine.protocol.errors import GraphvineError

    try:
        code = command()
        sys.stdout.flush()
        return code
    except (GraphvineError, ConnectionFileError, PackedEnvironmentError) as error:
        print(f"graphvine: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone (``graphvine demo | head``): the last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _worker(arguments: list[str]) -> int:
    from graphvine.worker.__main__ import main as worker_main

    return worker_main(arguments)


def _factory(arguments: list[str]) -> int:
    from graphvine.deploy.factory import main as factory_main

    return factory_main(arguments)


def _submit(arguments: list[str]) -> int:
    from graphvine.deploy.submit import main as submit_main

    return submit_main(arguments)


def _demo(options: argparse.Namespace) -> int:
    from graphvine.demo import run_demo

    return run_demo(
        events=options.events,
        chunks=options.chunks,
        cores=options.cores,
        progress=not options.no_progress,
        seed=options.seed,
    )


def _env(options: argparse.Namespace) -> int:
    from graphvine.envs import command

    if options.env_command == "pack":
        return command.run_pack(options.source, options.output, options.compression, not options.no_progress)
    if options.env_command == "inspect":
        return command.run_inspect(options.archive)
    return command.run_unpack(options.archive, options.directory, not options.no_progress)


def _parser() -> Parser:
    parser = Parser(
        prog="graphvine",
        description="Runs dask graphs on clusters: one manager, many workers, data that stays put.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graphvine {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=SubParser)
    commands.add_parser("worker", help="offer this machine's cores to a manager", add_help=False)
    commands.add_parser("factory", help="keep workers for a manager, from a batch system", add_help=False)
    commands.add_parser("submit", help="submit workers to a batch system", add_help=False)
    _add_demo(commands.add_parser("demo", help="run a small analysis and draw what it found"))
    _add_env(commands.add_parser("env", help="pack, inspect and unpack environments for workers"))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes proton collisions up, finds their muon pairs, and draws the spectrum of the pairs' masses: "
        "a graph of some hundred tasks, run by a manager and a worker on this machine."
    )
    parser.add_argument(
        "--events", type=_positive, default=1_000_000, help="collisions to make (default: 1,000,000)"
    )
    parser.add_argument("--chunks", type=_positive, default=200, help="tasks to make them in (default: 200)")
    parser.add_argument("--cores", type=_positive, default=None, help="cores to use (default: all)")
    parser.add_argument("--seed", type=int, default=2012, help="another seed makes other collisions")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.description = "Environments as one file that runs on any machine of the same kind."
    commands = parser.add_subparsers(dest="env_command", metavar="COMMAND", required=True)
    pack = commands.add_parser("pack", help="make an archive of an environment")
    pack.add_argument(
        "source",
        nargs="?",
        default="current",
        help="a conda prefix, a virtual environment's directory, or nothing for the one that runs this",
    )
    pack.add_argument("-o", "--output", help="the archive (default: one in the cache)")
    pack.add_argument("--compression", choices=("zst", "gz"), default="", help="default: zst")
    inspect = commands.add_parser("inspect", help="say what an archive holds")
    inspect.add_argument("archive")
    unpack = commands.add_parser("unpack", help="unpack an archive and print where its Python's prefix is")
    unpack.add_argument("archive")
    unpack.add_argument(
        "directory", nargs="?", help="an empty directory (default: this machine's cache, as workers do it)"
    )
    for command in (pack, unpack):
        command.add_argument("--no-progress", action="store_true", help="no progress bar")


def _positive(text: str) -> int:
    try:
        number = int(float(text)) if "e" in text.lower() else int(text.replace(",", "").replace("_", ""))
    except (ValueError, OverflowError):
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 upward")
    return number


if __name__ == "__main__":
    sys.exit(main())

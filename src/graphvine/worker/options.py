"""The worker's command line: ``graphvine worker``, ``python -m graphvine.worker``, and ``vine_worker``.

Options of TaskVine's ``vine_worker`` that mean something here mean it. Those that do not are accepted, with a
line that says why there is nothing to do; an unknown one is an error that names the nearest.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence

from graphvine.protocol.quantities import parse_mb, parse_port, parse_s
from graphvine.protocol.usage import Parser, argument

#: Slurm's default from SIGTERM to SIGKILL (KillWait) is 30 s, the shortest of the usual ones (HTCondor's is
#: ten minutes): less, so that what is on its way at the end still arrives. Where a site gives more, its jobs
#: say so with ``--grace``.
GRACE_S = 25.0
#: TaskVine's: how long a worker that looks for its manager by name stays without work, or without a manager.
TIMEOUT_S = 900.0
#: Each is some processes of its own: more are a mistake, which would bring the machine to its knees.
MOST_WORKERS = 1000

#: TaskVine's options that there is nothing to do for: whether they take a value, and why.
NOTHING_TO_DO: dict[tuple[str, ...], tuple[bool, str]] = {
    ("-a", "--advertise"): (False, "managers are always found by their connection files"),
    ("-C", "--catalog"): (True, "there is no catalog server: managers are found by their connection files"),
    ("--debug-release-reset",): (False, "one log goes on from manager to manager"),
    ("-w", "--tcp-window-size"): (True, "the system chooses"),
    ("-i", "--min-backoff"): (True, "a manager is looked for again after a second"),
    ("-b", "--max-backoff"): (True, "a manager is looked for again after ten seconds at the latest"),
    ("-A", "--arch"): (True, "tasks are not chosen by architecture: give --feature NAME"),
    ("-O", "--os"): (True, "tasks are not chosen by system: give --feature NAME"),
    ("--volatility",): (True, "no worker fails on purpose"),
    ("--connection-mode",): (True, "all of a manager's addresses are tried"),
    ("--ssl",): (False, "all is encrypted"),
    ("--tls-sni",): (True, "all is encrypted, with the manager's own key"),
    ("--transfer-port",): (True, "any free port serves"),
    ("--contact-hostport",): (True, "all addresses of this machine are told"),
}

_port, _megabytes, _seconds = argument(parse_port), argument(parse_mb), argument(parse_s)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a worker. Prints what is wrong and exits."""
    parser = make_parser()
    options = parser.parse_args(argv)
    _take_address(parser, options)
    named = options.manager or options.connection_file or options.port is not None
    if not options.embedded and not named:
        parser.error("name the manager: HOST PORT, -M NAME, or --connection-file FILE")
    if options.manager and (options.connection_file or options.port is not None):
        parser.error("name the manager once: -M NAME goes with no HOST PORT, and no --connection-file")
    if options.manager and os.path.basename(options.manager) != options.manager:
        parser.error(f"-M {options.manager!r}: a name has no slashes; --connection-file takes a path")
    if options.security == "none" and not (options.port is not None and _is_bare(options)):
        parser.error("--security none goes with the manager's HOST and PORT, and nothing else that names it")
    if options.cores == 0:
        options.cores = None
    if options.gpus is not None and options.gpus < 0:
        options.gpus = None
    if options.timeout is None:
        options.timeout = TIMEOUT_S if options.manager or options.addresses else math.inf
    return options


def _is_bare(options: argparse.Namespace) -> bool:
    return not (options.manager or options.connection_file or options.password_file)


def _take_address(parser: Parser, options: argparse.Namespace) -> None:
    """HOST PORT, or HOST:PORT, or several of these: HOST:PORT;HOST:PORT."""
    options.addresses = []
    if not options.host or options.port is not None:
        return
    for text in filter(None, options.host.split(";")):
        host, colon, port = text.rpartition(":")
        if not colon:
            parser.error(f"{text!r}: give HOST PORT, or HOST:PORT")
        try:
            options.addresses.append((host.strip("[]"), parse_port(port)))
        except ValueError as error:
            parser.error(f"{text!r}: {error}")
    if not options.addresses:
        parser.error(f"{options.host!r}: give HOST PORT, or HOST:PORT")
    options.host, options.port = options.addresses[0]
    if len(options.addresses) == 1:
        options.addresses = []


def _cores(text: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = -1.0
    if not 0 <= count < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of cores; 0 for all")
    return count


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_WORKERS}")
    return int(text)


def make_parser() -> Parser:
    """Everything a worker can be told."""
    parser = Parser(
        prog="graphvine worker",
        usage="%(prog)s HOST PORT [options]\n       %(prog)s 'HOST:PORT;HOST:PORT;...' [options]\n"
        "       %(prog)s -M NAME [options]\n"
        "       %(prog)s --connection-file FILE [options]",
        description="Offer this machine's cores to a graphvine manager, until it sends the worker away.",
    )
    parser.wanted = "HOST PORT, or HOST:PORT, and options"
    from graphvine import __version__

    parser.add_argument("-v", "--version", action="version", version=f"graphvine {__version__}")
    _add_manager(parser.add_argument_group("which manager"))
    _add_offer(parser.add_argument_group("what it offers"))
    _add_stay(parser.add_argument_group("how long it stays"))
    _add_places(parser.add_argument_group("where it keeps what"))
    for names, (takes_value, _) in NOTHING_TO_DO.items():
        parser.add_argument(*names, help=argparse.SUPPRESS, action="store" if takes_value else "store_true")
    # Where nobody keeps jobs of this machine from each other's GPUs. (Nothing for tasks to see.)
    parser.set_defaults(place=(int(os.environ.pop("GRAPHVINE_PLACE", "0")), 1))
    for hidden in ("--embedded", "--lifeline"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fleet", default="", help=argparse.SUPPRESS)
    # What a job's script says where it has unpacked no more than the front of an environment (worker.rest).
    parser.add_argument("--rest", nargs=6, help=argparse.SUPPRESS)
    return parser


def _add_manager(group: argparse._ArgumentGroup) -> None:
    group.add_argument("host", nargs="?", metavar="HOST", help="where the manager runs")
    group.add_argument("port", nargs="?", type=_port, metavar="PORT", help="the manager's port")
    group.add_argument("--connection-file", metavar="FILE", help="the manager's connection file")
    group.add_argument(
        "--security",
        choices=["curve", "none"],
        default="curve",
        help='"none": join the manager at HOST PORT without any key, and without knowing who it is',
    )
    group.add_argument(
        "-M",
        "--manager",
        "--manager-name",
        metavar="NAME",
        help="find the connection file of that name, or regular expression, in your state directory; wait "
        "for it, and when its manager has closed, for the next one of that name",
    )
    group.add_argument(
        "-P",
        "--password",
        "--password-file",
        dest="password_file",
        metavar="FILE",
        help="with HOST PORT: the password that the manager was given, too, in a file",
    )
    group.add_argument(
        "--single-shot", action="store_true", help="with -M, or several addresses: end with the first manager"
    )


def _add_offer(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--cores", type=_cores, metavar="N", help="default, and 0: all this process may use")
    group.add_argument(
        "--memory", type=_megabytes, metavar="SIZE", help="such as 8GB; a number alone is MB (default: all)"
    )
    group.add_argument(
        "--disk",
        type=_megabytes,
        metavar="SIZE",
        help="likewise (default: what is free in its directory)",
    )
    group.add_argument(
        "--gpus", type=float, metavar="N", help="default: those that this process sees; 0: none is handed out"
    )
    group.add_argument(
        "--feature", metavar="NAME", action="append", default=[], help="what tasks may ask for; repeatable"
    )
    group.add_argument(
        "--workers",
        metavar="N",
        type=_count,
        default=1,
        help="start so many, each of which offers what is said here (default: an equal share); quicker than "
        "starting them one by one",
    )
    group.add_argument("--name", help="default: host and process id, or host and number of several")
    group.add_argument("--job", metavar="ID", default="", help="the batch job that this is, by its number")


def _add_stay(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-t",
        "--timeout",
        "--idle-timeout",
        type=_seconds,
        metavar="TIME",
        help="such as 15m; a number alone is seconds: leave after so long without "
        "work (unless it alone holds what is needed), or without a manager "
        f"(default: with -M {TIMEOUT_S:g}; else as long as the manager is there)",
    )
    group.add_argument(
        "--wall-time",
        type=_seconds,
        metavar="TIME",
        help="it will be gone after so long: nothing is begun that can't end before",
    )
    group.add_argument(
        "--grace",
        type=_seconds,
        metavar="TIME",
        default=GRACE_S,
        help="how long after SIGTERM or SIGINT running tasks may go on, while what only this worker holds is "
        f"handed over (default: {GRACE_S:g}); a second Ctrl-C ends it at once",
    )
    group.add_argument("--parent-death", action="store_true", help="leave when its parent process is gone")


def _add_places(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-s", "--workdir", metavar="DIR", help="where large results go that memory has no room for"
    )
    group.add_argument(
        "--memory-dir",
        metavar="DIR",
        help="where results lie in memory (default: $GRAPHVINE_MEMORY_DIR, else /dev/shm)",
    )
    group.add_argument("--log-dir", metavar="DIR", help="keep the executors' output here")
    group.add_argument("-d", "--debug", metavar="WHAT", action="append", help="log more (all of it)")
    group.add_argument(
        "-o", "--debug-file", metavar="FILE", help="log to a file (:stderr is the default, or :stdout)"
    )
    group.add_argument(
        "--debug-max-rotate",
        type=int,
        default=10_000_000,
        metavar="BYTES",
        help="begin a new log file after so many, and keep one old one (default: 10 MB; 0: never)",
    )


def ignored(options: argparse.Namespace) -> list[str]:
    """What is to be said about options for which there is nothing to do. They are taken out."""
    said = []
    if options.password_file and (options.manager or options.connection_file):
        options.password_file = None
        said.append("--password: nothing to do, the connection file has keys of its own")
    for names, (_, why) in NOTHING_TO_DO.items():
        attribute = next(name for name in names if name.startswith("--"))[2:].replace("-", "_")
        if getattr(options, attribute):
            said.append(f"{names[-1]}: nothing to do, {why}")
    return said

"""What is said of workers and their jobs on command lines: of ``graphvine submit`` and ``graphvine factory``.

An option is kept under the name that ``make_spec`` knows it by; those of TaskVine's ``vine_factory`` for the
same things are understood. What is not said is None: the defaults stand in ``make_spec``, and a factory has
to know what was said.
"""

from __future__ import annotations

import argparse
import inspect

from graphvine.deploy.spec import make_spec

#: What can be said of a job by these names; a manager's connection file is found otherwise.
OF_SPEC = frozenset(inspect.signature(make_spec).parameters) - {"connection_file"}


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """What is asked for a worker, what its job brings, and what the site needs to know."""
    _add_asked(parser.add_argument_group("asked for, and offered by each worker"))
    _add_brought(parser.add_argument_group("brought"))
    _add_site(parser.add_argument_group("what sites need"))


def _add_asked(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--cores", metavar="N", help="default: 1")
    add("--memory", metavar="SIZE", help="such as 8GB; a number alone is MB")
    add("--disk", metavar="SIZE", help="likewise")
    add("--gpus", type=int, metavar="N")
    add("--wall-time", metavar="TIME", help="such as 2h; the longest a job may run")
    add(
        "-t", "--idle", "--timeout", dest="idle", metavar="TIME",
        help="a worker without work for so long leaves",
    )  # fmt: skip
    add("--grace", metavar="TIME", help="how long the system waits before it kills a job")
    add(
        "--feature", dest="features", metavar="NAME", action="append",
        help="what tasks may ask for; repeatable",
    )  # fmt: skip


def _add_brought(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--environment", "--python-env", dest="environment", metavar="WHAT",
        help="archive, prefix, or current (the default)",
    )  # fmt: skip
    add("--python", metavar="PATH", help="instead: one that nodes have")
    add(
        "--no-node-cache", dest="node_cache", action="store_false", default=None,
        help="nodes keep nothing of what jobs unpack there",
    )  # fmt: skip
    add("--container", metavar="IMAGE", help="run in this image")
    add("--prologue", metavar="LINE", action="append", help="of shell, before the worker; repeatable")
    add("--env", dest="variables", metavar="NAME=VALUE", action="append", help="for the worker; repeatable")
    add("--proxy", metavar="FILE", help="X.509 proxy for tasks")
    add("--token", metavar="FILE", help="bearer token for tasks")
    add(
        "-E", "--worker-options", "--extra-options", dest="worker_options", metavar="OPTIONS",
        help="more of them, as graphvine worker has them",
    )  # fmt: skip


def _add_site(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--account", metavar="ACCOUNT")
    add("--queue", "--partition", dest="queue", metavar="QUEUE")
    add("--requirements", metavar="TEXT", help="which nodes will do")
    add(
        "-B", "--directive", "--batch-options", dest="directives", metavar="LINE", action="append",
        help="in the system's words; repeatable",
    )  # fmt: skip
    add("--option", metavar="NAME=VALUE", action="append", help="of the batch system; repeatable")
    add("--not-shared", action="store_true", default=None, help="nodes see no files of this machine (Slurm)")
    add("--name", metavar="NAME", help="what the system calls the jobs (default: graphvine)")

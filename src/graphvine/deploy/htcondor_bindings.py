"""HTCondor's tools where there are none, by its Python bindings: ``python -m ... condor_q 12.0 -json``.

Takes what ``deploy.htcondor`` says to the real tools and prints what they would print: nothing else has to
know. A process of its own, because the bindings hold the interpreter while they wait for a busy schedd, which
a manager's process can't afford.

``pip install htcondor``: the bindings of version 2, in a version the site's schedd understands.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    tool, *words = argv
    options = _parser().parse_args(words)
    if options.analyze:
        print("the bindings can't tell why a job does not start", file=sys.stderr)
        return 1
    try:
        return _TOOLS[tool](_schedd(options), options)
    except Exception as error:  # noqa: BLE001 -- whatever the bindings raise is what a tool would say
        print(f"{tool}: {error}", file=sys.stderr)
        return 1


def _submit(schedd: Any, options: argparse.Namespace) -> int:
    import htcondor2

    with open(options.words[0], encoding="utf-8") as file:
        description = htcondor2.Submit(file.read())
    result = schedd.submit(description, spool=options.spool)
    if options.spool:
        schedd.spool(result)
    cluster, first = result.cluster(), result.first_proc()
    print(f"{cluster}.{first} - {cluster}.{first + result.num_procs() - 1}")
    return 0


def _queue(schedd: Any, options: argparse.Namespace) -> int:
    print(_rendered(schedd.query(_constraint(options.words), options.attributes)))
    return 0


def _history(schedd: Any, options: argparse.Namespace) -> int:
    print(_rendered(schedd.history(_constraint(options.words), options.attributes, options.limit)))
    return 0


def _remove(schedd: Any, options: argparse.Namespace) -> int:
    import htcondor2

    # A reason that is no pair of text and code gets lost in some versions.
    done = schedd.act(htcondor2.JobAction.Remove, options.words, ("via condor_rm", 0))
    if done["TotalSuccess"] < len(options.words):
        print(f"not all jobs could be removed: {done}", file=sys.stderr)
        return 1
    return 0


def _transfer(schedd: Any, options: argparse.Namespace) -> int:
    schedd.retrieve(options.words)
    return 0


_TOOLS: dict[str, Callable[[Any, argparse.Namespace], int]] = {
    "condor_submit": _submit,
    "condor_q": _queue,
    "condor_history": _history,
    "condor_rm": _remove,
    "condor_transfer_data": _transfer,
}


def _schedd(options: argparse.Namespace) -> Any:
    import htcondor2

    if not options.name and not options.pool:
        return htcondor2.Schedd()
    collector = htcondor2.Collector(options.pool)
    return htcondor2.Schedd(collector.locate(htcondor2.DaemonType.Schedd, options.name))


def _constraint(jobs: Sequence[str]) -> str:
    pairs = (job.partition(".") for job in jobs)
    return " || ".join(f"(ClusterId == {cluster} && ProcId == {proc})" for cluster, _, proc in pairs)


def _rendered(ads: Sequence[Any]) -> str:
    """As JSON, without what is no plain value: expressions, and Undefined, which is a kind of int."""
    plain = (str, int, float, bool)
    return json.dumps([{name: value for name, value in ad.items() if type(value) in plain} for ad in ads])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="htcondor_bindings", allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-name")
    parser.add_argument("-pool")
    parser.add_argument("-limit", type=int, default=-1)
    parser.add_argument("-attributes", type=lambda text: text.split(","), default=[])
    parser.add_argument("-better-analyze", dest="analyze", action="store_true")
    for switch in ("-terse", "-spool", "-json"):
        parser.add_argument(switch, action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs as the user who may submit: calls of a batch system, one JSON line each on standard input.

``[system, method, arguments]``: ``system`` names one that ``make`` made. Answers with one line: the result,
or what was raised."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from graphvine.deploy.errors import DeployError
from graphvine.deploy.htcondor import HTCondor
from graphvine.deploy.spec import make_spec

systems: dict[str, HTCondor] = {}


def call(name: str, method: str, arguments: dict[str, Any]) -> Any:
    if method == "make":
        systems[name] = HTCondor(**arguments)
        return None
    if method == "submit":
        directory = Path(arguments.pop("directory"))
        directory.mkdir(parents=True)
        count = arguments.pop("count")
        return systems[name].submit(make_spec(**arguments), count, directory)
    return getattr(systems[name], method)(**arguments)


for line in sys.stdin:
    try:
        answer: Any = {"result": call(*json.loads(line))}
    except DeployError as error:
        answer = {"error": str(error)}
    print(msgspec.json.encode(answer).decode(), flush=True)

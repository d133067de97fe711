"""What a factory is told: its command line and its configuration file, checked, as plain data.

Names are those of clusters and of ``graphvine submit``; those that TaskVine's ``vine_factory`` has for the
same things are known, too. A configuration file is a JSON object of the same names ("max-workers",
"max_workers"), and counts for more than the command line.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec

from graphvine.deploy.errors import DeployError
from graphvine.deploy.fleet import Limits
from graphvine.deploy.options import OF_SPEC
from graphvine.deploy.scaling import Policy
from graphvine.deploy.spec import WorkerSpec, make_spec, parse_s

#: What TaskVine's files say that there is nothing to do for.
ACCEPTED = frozenset(
    {
        "foremen_name",
        "capacity",
        "catalog",
        "debug",
        "debug_file",
        "debug_file_size",
        "parent_death",
        "run_os",
        "runos",
        "worker_binary",
        "ssl",
    }
)
_ALIASES = {
    "task_per_worker": "tasks_per_worker",
    "worker_extra_options": "worker_options",
    "extra_options": "worker_options",
    "python_env": "environment",
    "poncho_env": "environment",
    "python_package": "environment",
    "env": "variables",
    "timeout": "idle",
    "batch_options": "directives",
    "directive": "directives",
    "feature": "features",
    "min": "min_workers",
    "max": "max_workers",
    "manager": "manager_name",
    "partition": "queue",
}


class FactoryOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that can be said. What is a size, a time or a number may be text ("8GB", "2h")."""

    manager_name: str = ""
    """Of one manager, or a regular expression."""
    connection_file: str = ""
    batch_type: str = "local"
    min_workers: int = 0
    max_workers: int = 100
    workers_per_cycle: int = 0
    tasks_per_worker: int = 0
    factory_timeout: float | str | None = None
    scratch_dir: str = ""
    target_duration: float | str = 60.0
    hold: float | str = 60.0
    lull: float | str = 600.0
    cores: float | str = 1
    memory: float | str | None = None
    disk: float | str | None = None
    gpus: int = 0
    wall_time: float | str | None = None
    idle: float | str | None = None
    grace: float | str | None = None
    variables: dict[str, str] = {}
    worker_options: str = ""
    environment: str = ""
    python: str = ""
    name: str = "graphvine"
    container: str = ""
    condor_requirements: str | list[str] = ""
    requirements: str = ""
    account: str = ""
    queue: str = ""
    proxy: str = ""
    token: str = ""
    directives: str | list[str] = ""
    prologue: str | list[str] = ""
    node_cache: bool = True
    features: list[str] = []
    option: list[str] = []
    """Of the batch system itself, "name=value"."""
    not_shared: bool = False
    """Nodes see nothing of the directories of submissions (Slurm)."""

    def policy(self) -> Policy:
        """How many workers there should be. Raises DeployError."""
        if not 0 <= self.min_workers <= self.max_workers or not self.max_workers:
            raise DeployError(f"{self.min_workers} to {self.max_workers} workers make no sense")
        return Policy(
            minimum=self.min_workers,
            maximum=self.max_workers,
            finish_s=parse_s(self.target_duration),
            hold_s=parse_s(self.hold),
            lull_s=parse_s(self.lull),
        )

    def limits(self, base: Limits) -> Limits:
        """How patient to be."""
        return msgspec.structs.replace(base, per_cycle=self.workers_per_cycle)

    def spec(self) -> WorkerSpec:
        """What each worker is, but for where its manager and its environment are. Raises DeployError."""
        said = {name: getattr(self, name) for name in self.__struct_fields__ if name in OF_SPEC}
        condor = self.condor_requirements
        asked = [
            part for part in (self.requirements, *([condor] if isinstance(condor, str) else condor)) if part
        ]
        said["requirements"] = asked[0] if len(asked) == 1 else " && ".join(f"({part})" for part in asked)
        try:
            said["worker_options"] = shlex.split(self.worker_options)
        except ValueError as error:
            raise DeployError(f"worker-options: {self.worker_options!r}: {error}") from None
        return make_spec(**said)

    def matches(self, name: str) -> bool:
        """Whether a manager of this name is meant. Raises DeployError."""
        try:
            return name == self.manager_name or re.fullmatch(self.manager_name, name) is not None
        except re.error as error:
            raise DeployError(
                f"{self.manager_name!r} is no name, and no regular expression: {error}"
            ) from None

    def whose(self) -> str:
        """In words: whose workers these are."""
        if self.connection_file:
            return f"the manager of {self.connection_file}"
        return f"a manager named {self.manager_name}"

    def check(self) -> FactoryOptions:
        """Itself, when it makes sense. Raises DeployError."""
        if not self.manager_name and not self.connection_file:
            raise DeployError("say whose workers these are: --manager NAME, or --connection-file FILE")
        for name in ("workers_per_cycle", "tasks_per_worker"):
            if getattr(self, name) < 0:
                raise DeployError(f"{name}: {getattr(self, name)} is no count")
        self.policy()
        self.spec()
        self.matches("")
        if self.factory_timeout is not None:
            parse_s(self.factory_timeout)
        return self


def make_options(said: Mapping[str, Any]) -> FactoryOptions:
    """The options of what was said, by name; what is None was not said. Raises DeployError."""
    named = {option_name(key): value for key, value in said.items() if value is not None}
    wanted = {key: value for key, value in named.items() if key not in ACCEPTED}
    try:
        options = msgspec.convert(wanted, FactoryOptions, strict=False)
    except msgspec.ValidationError as error:
        raise DeployError(f"the factory's options: {error}") from None
    return options.check()


def parse_config(text: str, origin: str) -> dict[str, Any]:
    """What a configuration file says. Raises DeployError."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeployError(f"{origin} is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise DeployError(f"{origin} holds no JSON object")
    return {option_name(key): value for key, value in said.items()}


def option_name(key: str) -> str:
    """What an option is called here, of all the ways in which it is written."""
    key = key.replace("-", "_")
    return _ALIASES.get(key, key)

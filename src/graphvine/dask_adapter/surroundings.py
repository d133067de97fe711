"""What the tasks of a run find around them: a packed environment, and environment variables.

An environment is packed (where it is not yet), named by content, and handed over once per engine: its archive
is a given file that stays with the engine for as long as that lives, and workers ask for it when they need
it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from graphvine.dask_adapter.kept import KeptResult, keep
from graphvine.envs.line import Line
from graphvine.manager.engine import Engine, Run
from graphvine.manager.plan import GivenFile, Plan
from graphvine.protocol.errors import EnvironmentUnusableError
from graphvine.protocol.given_files import stamp_of


class Surroundings(msgspec.Struct, frozen=True):
    """What is stated for a run. ``archive``: None for the workers' own environment."""

    archive: KeptResult | None = None
    name: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    def around(self, plan: Plan) -> Plan:
        """The plan, its tasks in these surroundings. (The same object: a plan is made for one run.) Raises
        what became of an archive that is not there any more."""
        if self.archive is None and not self.variables:
            return plan
        code = plan.code
        if self.archive is not None:
            self.archive.check()
            plan.externals = [*plan.externals, self.archive.file]
            position = -len(plan.externals)
            code = msgspec.structs.replace(code, environment=position, environment_name=self.name)
        plan.code = msgspec.structs.replace(code, variables=self.variables)
        return plan

    def engine(self, engine: Engine) -> Engine:
        """An engine all of whose plans run in these surroundings."""
        if self.archive is None and not self.variables:
            return engine
        return cast(Engine, _Surrounded(engine, self))


class Archives:
    """The archives that were handed to one engine, by name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: dict[str, KeptResult] = {}

    def surroundings(
        self,
        environment: Any = None,
        env_vars: Mapping[str, object] | None = None,
        progress: bool | None = None,
    ) -> Surroundings:
        """``environment``: whatever ``graphvine.envs.pack`` takes, or what it gave; None for none. Packs in
        this thread. Raises PackedEnvironmentError, EnvironmentUnusableError, OSError, TypeError."""
        variables = variables_of(env_vars)
        if environment is None:
            return Surroundings(variables=variables)
        from graphvine.envs.packing import PackedEnvironment, pack

        packed = environment
        if not isinstance(environment, PackedEnvironment):
            if not isinstance(environment, (str, os.PathLike)):
                raise TypeError(
                    'environment should be "current", a path, or what graphvine.envs.pack gave, not '
                    f"{environment!r}"
                )
            with Line(os.fspath(environment), progress) as line:
                packed = pack(environment, progress=line)
        check_python(packed)
        kept = self._kept.get(packed.name)
        if kept is None or kept.is_lost():
            kept = self._kept[packed.name] = self._hand_over(packed)
        return Surroundings(kept, packed.name, variables)

    def _hand_over(self, packed: Any) -> KeptResult:
        path = os.path.abspath(packed.path)
        plan = Plan(
            keys=[f"environment {packed.name}"],
            inputs=[()],
            blobs=[],
            blob_of=[-1],
            blob_index=[-1],
            categories=["environment"],
            category_of=[0],
            wanted=[0],
            label=f"environment {packed.name}",
            given={0: GivenFile(path, os.path.getsize(path), stamp=stamp_of(path))},
        )
        (kept,) = keep(self._engine, self._engine.run(plan, keep=True))
        return kept


class _Surrounded:
    """An engine that does one thing to each plan, and else is the one it stands for."""

    def __init__(self, engine: Engine, surroundings: Surroundings) -> None:
        self._engine = engine
        self._surroundings = surroundings

    def run(self, plan: Plan, *, keep: bool = False) -> Run:
        return self._engine.run(self._surroundings.around(plan), keep=keep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def variables_of(stated: Mapping[str, object] | None) -> tuple[tuple[str, str], ...]:
    """Environment variables as they travel, sorted. Raises TypeError, ValueError."""
    if stated is None:
        return ()
    if not isinstance(stated, Mapping):
        raise TypeError(f'env_vars should be like {{"NAME": "value"}}, not {stated!r}')
    for name, value in stated.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot be the name of an environment variable")
        if "\0" in str(value):
            raise ValueError(f"the value of the environment variable {name} holds a null character")
    return tuple(sorted((name, str(value)) for name, value in stated.items()))


def check_python(packed: Any) -> None:
    """Before any task is sent. Raises EnvironmentUnusableError."""
    mine = "{}.{}".format(*sys.version_info[:2])
    theirs = ".".join(packed.python.split(".")[:2])
    if theirs and theirs != mine:
        raise EnvironmentUnusableError(
            f"the environment {packed.path} has Python {packed.python}, but this script runs on Python "
            f"{mine}: what it sends could not be read there. Pack an environment with Python {mine}"
        )

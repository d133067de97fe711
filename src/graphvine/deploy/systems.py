"""Batch systems by name: those that come with graphvine, and any other by a template file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from graphvine.deploy import template
from graphvine.deploy.batch import BatchSystem
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec

BUILT_IN = ("htcondor", "slurm", "local")
#: How jobs are looked at and removed by hand, given all of them, or the numbers of their arrays.
_BY_HAND = {
    "htcondor": ("condor_q {arrays}", "condor_rm {arrays}"),
    "slurm": ("squeue --jobs={commas}", "scancel {arrays}"),
    "local": ("ps {jobs}", "kill {jobs}"),
}


class System(BatchSystem, Protocol):
    """A batch system that can also say what it would do."""

    def preview(self, spec: WorkerSpec, count: int, directory: Path) -> str:
        """What ``submit`` would do, to be read; nothing is done. Raises DeployError."""
        ...


def names() -> list[str]:
    return [*BUILT_IN, *template.shipped()]


def make_system(name: str, options: Sequence[str] = (), *, shared: bool = True) -> System:
    """The system of that name, or that a template file describes. ``options``: "name=value", for a template
    or HTCondor; ``shared``: nodes see the directories of submissions (Slurm). Raises DeployError."""
    if name == "htcondor":
        from graphvine.deploy.htcondor import make_htcondor

        return make_htcondor(_pairs(options))
    if name in BUILT_IN:
        if options:
            raise DeployError(f"{name} has no options; more lines for its jobs are directives")
        return _built_in(name, shared)
    if name not in template.shipped() and not name.endswith((".toml", ".json")):
        raise DeployError(
            f"no batch system {name!r}: there are {', '.join(names())}, or name a .toml or .json file"
        )
    from graphvine.deploy.templated import Templated

    return Templated(name, _pairs(options))


def _pairs(options: Sequence[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    wrong = [option for option, (_, equals, _) in zip(options, pairs, strict=True) if not equals]
    if wrong:
        raise DeployError(f"an option is written as name=value, not {wrong[0]!r}")
    return {key: value for key, _, value in pairs}


def by_hand(system: BatchSystem, jobs: Sequence[str]) -> tuple[str, str]:
    """The commands with which a user looks at these jobs, and removes them; "" where there is none."""
    if system.name in _BY_HAND:
        arrays = list(dict.fromkeys(job.replace("_", ".").partition(".")[0] for job in jobs))
        words = {"jobs": " ".join(jobs), "arrays": " ".join(arrays), "commas": ",".join(arrays)}
        look, remove = _BY_HAND[system.name]
        return look.format(**words), remove.format(**words)
    commands = getattr(system, "by_hand", None)
    return commands(jobs) if commands is not None else ("", "")


def _built_in(name: str, shared: bool) -> System:
    if name == "slurm":
        from graphvine.deploy.slurm import Slurm

        return Slurm(shared=shared)
    from graphvine.deploy.local import Local

    return Local()

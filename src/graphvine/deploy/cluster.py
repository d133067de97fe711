"""Clusters: workers from a batch system, for a manager in this process.

A cluster is told how many workers there should be (``scale``, ``adapt``), before it has a manager or after.
While it has one, a supervisor keeps that many; when the manager closes, or the cluster does, no job of it is
left. What its submissions need lies in a directory of its own, which goes when they have gone.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from graphvine.deploy.batch import BatchSystem
from graphvine.deploy.errors import DeployError
from graphvine.deploy.fleet import Limits
from graphvine.deploy.options import OF_SPEC
from graphvine.deploy.scaling import Policy
from graphvine.deploy.spec import WorkerSpec, make_spec, parse_s
from graphvine.deploy.supervisor import ClusterStatus, Supervisor
from graphvine.protocol.connection import state_directory
from graphvine.protocol.directories import OwnedDirectory, sweep
from graphvine.protocol.errors import ManagerClosedError
from graphvine.protocol.messages import Demand
from graphvine.protocol.usage import meant

#: Workers on this machine start at once, and their end is soon known.
LOCAL_LIMITS = Limits(ask_s=0.5, ask_most_s=5.0, ask_calm_s=5.0, first_wait_s=1.0)


class Manager(Protocol):
    """What a cluster needs of a manager (`graphvine.Manager`)."""

    @property
    def connection_file(self) -> Path: ...

    def watch_demand(self, listener: Callable[[Demand], None]) -> None: ...

    def retire(self, *workers: str, reason: str) -> int: ...

    def at_close(self, callback: Callable[[], None]) -> None: ...


class Cluster:
    """Workers from any batch system; the ones below know how to make theirs."""

    remote = True
    """Its workers may be on other machines."""

    def __init__(
        self,
        system: BatchSystem,
        spec: WorkerSpec,
        *,
        scratch_dir: str | os.PathLike[str] | None = None,
        keep: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """``scratch_dir``: where what submissions leave lies (scripts, the jobs' output), instead of this
        user's state directory; the batch system must see it. ``keep``: jobs are left where they are at the
        end. ``limits``: how patient to be with the batch system."""
        self._system = system
        self._spec = spec
        self._scratch_dir = scratch_dir
        self._keep = keep
        self._limits = limits
        self._wish: Callable[[Supervisor], None] | None = None
        self._running: _Running | None = None

    # -- how many --------------------------------------------------------------------------------------

    def scale(self, workers: int) -> None:
        """Have so many workers. Raises ValueError."""
        count = _count(workers)
        if count is None:
            raise ValueError(f"scale({workers!r}): give a whole number from 0 upward")
        self._want(lambda supervisor: supervisor.scale(count))

    def adapt(
        self,
        minimum: int = 0,
        maximum: int = 1,
        *,
        target_duration: float | str = 60.0,
        hold: float | str = 60.0,
        lull: float | str = 600.0,
    ) -> None:
        """Have as many workers as the work asks for, within these bounds.

        ``target_duration``: as many as finish all known work in so long ("10m", or seconds). ``hold``: a
        worker is let go when it was not needed for so long; ``lull``: or for so long, if much work waits that
        can't begin yet. Raises ValueError, DeployError."""
        least, most = _count(minimum), _count(maximum)
        if least is None or not most or least > most:
            raise ValueError(
                f"adapt({minimum!r}, {maximum!r}): give two whole numbers from 0 upward, the smaller first"
            )
        policy = Policy(
            minimum=least,
            maximum=most,
            finish_s=parse_s(target_duration),
            hold_s=parse_s(hold),
            lull_s=parse_s(lull),
        )
        self._want(lambda supervisor: supervisor.adapt(policy))

    def _want(self, wish: Callable[[Supervisor], None]) -> None:
        self._wish = wish
        if self._running is not None:
            wish(self._running.supervisor)

    # -- life ------------------------------------------------------------------------------------------

    def attach(self, manager: Manager) -> None:
        """Work for this manager from now on; ``Manager(cluster=...)`` calls it. Raises DeployError."""
        if self._running is not None and not self._running.closed:
            raise DeployError(
                "this cluster works for a manager already; close that one, or make another cluster"
            )
        spec = msgspec.structs.replace(self._prepared(), connection_file=str(manager.connection_file))
        self._running = _Running(self._system, spec, self._scratch_dir, manager, self._limits, self._keep)
        if self._wish is not None:
            self._wish(self._running.supervisor)

    def status(self) -> ClusterStatus:
        """What there is: jobs, their states, hosts and workers, and what the batch system says of them."""
        return ClusterStatus(0, 0, {}, []) if self._running is None else self._running.supervisor.status

    def close(self) -> None:
        """Cancel all jobs. Safe to call twice."""
        if self._running is not None:
            self._running.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {state}" for state, n in sorted(self.status().counts.items())) or "no jobs"
        return f"<graphvine.{type(self).__name__} {self._system.name}: {counts}>"

    def _prepared(self) -> WorkerSpec:
        """The spec with all that a job needs to start. Raises DeployError."""
        from graphvine.deploy.environments import prepared

        return prepared(self._spec)


def _count(number: object) -> int | None:
    """A whole number from 0 upward, of whatever type; None if it is none."""
    try:
        count = operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return None
    return count if count >= 0 else None


class LocalCluster(Cluster):
    """Workers as processes of this machine."""

    remote = False

    def __init__(
        self,
        *,
        cores: float = 1,
        memory: float | str | None = None,
        disk: float | str | None = None,
        python: str = sys.executable,
        scratch_dir: str | os.PathLike[str] | None = None,
        limits: Limits | None = None,
        **more: Any,
    ) -> None:
        """What each worker offers, and which Python runs it. They end with this process. ``more``: see
        ``deploy.spec.make_spec``. Raises DeployError."""
        from graphvine.deploy.local import Local

        spec = _spec_of(type(self), more, cores=cores, memory=memory, disk=disk, python=python)
        super().__init__(Local(bound=True), spec, scratch_dir=scratch_dir, limits=limits or LOCAL_LIMITS)


class HTCondorCluster(Cluster):
    """Workers as HTCondor jobs: one cluster of jobs for each submission."""

    def __init__(
        self,
        *,
        cores: float = 1,
        memory: float | str | None = None,
        disk: float | str | None = None,
        environment: str | os.PathLike[str] = "current",
        tools: str | os.PathLike[str] = "",
        config: str | os.PathLike[str] = "",
        schedd: str = "",
        pool: str = "",
        spool: bool = False,
        stream: bool = True,
        containers: bool = True,
        scratch_dir: str | os.PathLike[str] | None = None,
        keep: bool = False,
        limits: Limits | None = None,
        **more: Any,
    ) -> None:
        """``environment``: what jobs bring: "current", an archive, a conda or virtual environment; or say
        ``python=``, an interpreter with graphvine that nodes have. ``tools`` to ``containers``: see
        ``deploy.htcondor.HTCondor``. Others: see ``Cluster`` and ``deploy.spec.make_spec`` (``wall_time``,
        ``gpus``, ``account``, ``requirements``, ``prologue``, ``directives``, ...). Raises DeployError."""
        from graphvine.deploy.htcondor import HTCondor

        if not more.get("python"):
            more["environment"] = environment
        spec = _spec_of(type(self), more, cores=cores, memory=memory, disk=disk)
        system = HTCondor(
            tools=tools,
            config=config,
            schedd=schedd,
            pool=pool,
            spool=spool,
            stream=stream,
            containers=containers,
        )
        super().__init__(system, spec, scratch_dir=scratch_dir, keep=keep, limits=limits)


class SlurmCluster(Cluster):
    """Workers as Slurm jobs: one job array for each submission."""

    def __init__(
        self,
        *,
        cores: float = 1,
        memory: float | str | None = None,
        disk: float | str | None = None,
        partition: str = "",
        cluster: str = "",
        shared: bool = True,
        scratch_dir: str | os.PathLike[str] | None = None,
        keep: bool = False,
        limits: Limits | None = None,
        **more: Any,
    ) -> None:
        """``partition``: Slurm's word for a queue. ``cluster``: another one than Slurm's default. ``shared``:
        nodes see ``scratch_dir``. Others: see ``Cluster`` and ``deploy.spec.make_spec`` (``wall_time``,
        ``gpus``, ``account``, ``requirements``, ``prologue``, ``directives``, ...). Raises DeployError."""
        from graphvine.deploy.slurm import Slurm

        if partition and more.get("queue", partition) != partition:
            raise DeployError("partition and queue are two words for the same: give one of them")
        more.setdefault("queue", partition)
        spec = _spec_of(type(self), more, cores=cores, memory=memory, disk=disk)
        system = Slurm(shared=shared, cluster=cluster)
        super().__init__(system, spec, scratch_dir=scratch_dir, keep=keep, limits=limits)


class TemplateCluster(Cluster):
    """Workers from any batch system that a template describes: "pbs", "lsf", "sge", "dirac", or a file."""

    def __init__(
        self,
        template: str,
        *,
        options: Mapping[str, str] | None = None,
        cores: float = 1,
        memory: float | str | None = None,
        disk: float | str | None = None,
        scratch_dir: str | os.PathLike[str] | None = None,
        keep: bool = False,
        limits: Limits | None = None,
        **more: Any,
    ) -> None:
        """``options``: other values than the template's for what it calls so. Others: see ``Cluster`` and
        ``deploy.spec.make_spec``. Raises DeployError."""
        from graphvine.deploy.templated import Templated

        spec = _spec_of(type(self), more, cores=cores, memory=memory, disk=disk)
        super().__init__(
            Templated(template, options), spec, scratch_dir=scratch_dir, keep=keep, limits=limits
        )


def _spec_of(cluster: type[Cluster], more: Mapping[str, Any], **said: Any) -> WorkerSpec:
    """What each worker is. Raises DeployError, and TypeError for what none of them can be told."""
    unknown = next((name for name in more if name not in OF_SPEC), None)
    if unknown is not None:
        known = sorted(OF_SPEC | inspect.signature(cluster).parameters.keys() - {"more"})
        there_are = f"{meant(unknown, known) or '.'} There are: {', '.join(known)}"
        raise TypeError(f"{cluster.__name__} has no option {unknown}{there_are}")
    return make_spec(**said, **more)


class _Running:
    """A cluster that has a manager."""

    def __init__(
        self,
        system: BatchSystem,
        spec: WorkerSpec,
        scratch_dir: str | os.PathLike[str] | None,
        manager: Manager,
        limits: Limits | None,
        keep: bool,
    ) -> None:
        self._home = JobsDirectory(scratch_dir, keep)
        self.supervisor = Supervisor(system, spec, self._home.path, _Weak(manager), limits=limits)
        self._keep = keep
        self._pid = os.getpid()
        self.closed = False
        self.supervisor.start()
        # Not the manager: nobody but its user keeps it alive.
        manager.watch_demand(self.supervisor.on_demand)
        manager.at_close(self.close)

    def close(self) -> None:
        """Cancel all jobs; see ``Supervisor.close``."""
        if os.getpid() != self._pid:
            return  # a forked child: the jobs are its parent's
        self.closed = True
        self.supervisor.close(self._keep)
        self._home.remove()


class JobsDirectory:
    """Where one supervisor's submissions lie. Those that killed processes of this user left are removed, but
    for those of jobs that are to be kept (``keep``)."""

    def __init__(self, parent: str | os.PathLike[str] | None, keep: bool) -> None:
        """Raises DeployError."""
        self._parent = Path(os.path.abspath(parent)) if parent else state_directory() / "jobs"
        try:
            self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sweep(str(self._parent))
            self._owned = None if keep else OwnedDirectory(str(self._parent))
            self.path = Path(self._owned.path if self._owned else tempfile.mkdtemp("", "kept-", self._parent))
        except OSError as error:
            raise DeployError(f"there is no directory for jobs in {self._parent}: {error}") from error

    def remove(self) -> None:
        """Nobody needs it any more, unless jobs are kept."""
        if self._owned is not None:
            self._owned.remove()
            with contextlib.suppress(OSError):
                self._parent.rmdir()


class _Weak:
    """A manager that may be gone."""

    def __init__(self, manager: Manager) -> None:
        self._manager = weakref.ref(manager)

    def retire(self, *workers: str, reason: str) -> object:
        manager = self._manager()
        if manager is None:
            return 0
        with contextlib.suppress(ManagerClosedError):
            return manager.retire(*workers, reason=reason)
        return 0

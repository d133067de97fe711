"""The manager: the object a user holds.

Imports next to nothing: the first thing it does is to launch its embedded worker, and while that gets ready
it imports and puts together its own parts (``opening``).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from graphvine.dask_adapter.client import DaskClient
from graphvine.manager.local import LocalWish, LocalWorker
from graphvine.protocol.directories import OwnedDirectory, sweep
from graphvine.protocol.errors import NestedManagerError
from graphvine.protocol.node import runs_tasks
from graphvine.taskvine.client import TaskClient

if TYPE_CHECKING:
    from graphvine.manager.engine import Cluster, Stats, WorkerSize
    from graphvine.manager.gate import Port
    from graphvine.manager.plan import Plan
    from graphvine.manager.run import ManagedRun
    from graphvine.manager.settings import Settings
    from graphvine.protocol.messages import Demand

#: TaskVine's options that there is nothing to do for.
_ACCEPTED = frozenset({"shutdown", "run_info_path", "status_display_interval"})


class Manager(TaskClient, DaskClient):
    """Runs graphs on workers: ``result.compute(scheduler=manager.get)``.

    With nothing else said, a local worker with all cores starts by itself, and the manager is reachable from
    this machine only. With a ``port`` or a ``name`` workers of other machines can join (``graphvine worker
    HOST PORT``), and the local worker starts with the first work, only where none has joined yet.
    """

    def __init__(
        self,
        port: Port = None,
        name: str | None = None,
        *,
        host: str | None = None,
        local_workers: float | bool | None = None,
        show_output: bool = True,
        settings: Settings | None = None,
        staging_path: str | os.PathLike[str] | None = None,
        init_fn: Callable[[Manager], object] | None = None,
        cluster: Cluster | None = None,
        security: Literal["curve", "none"] = "curve",
        encrypt_transfers: bool = False,
        password_file: str | os.PathLike[str] | None = None,
        **taskvine: Any,
    ) -> None:
        """``port``: one to listen on; 0 or None for any free one; a pair for the first free one in a range.

        ``name``: what the connection file is called. ``host``: the address to listen on ("*": all).
        ``local_workers``: cores of the embedded worker; 0 or False for none, True for all. ``show_output``:
        what tasks print appears here, on standard output and error. ``staging_path``: where to keep what is
        on its way to and from workers, instead of the system's directory for temporary files. ``init_fn`` is
        called with the manager. ``cluster``: where its workers come from (``HTCondorCluster`` and others);
        with one the manager can be reached from other machines if the cluster's workers are there, and has no
        local worker unless one is asked for.

        ``security``: "curve" (only holders of the connection file can join, and all that is said to them is
        encrypted) or "none" (anybody can, from any machine). ``encrypt_transfers``: files that go from worker
        to worker, and from there to the manager, are encrypted, too. ``password_file``: workers that have the
        same password need no connection file (``graphvine worker HOST PORT --password-file FILE``). See
        ``docs/security.md``.

        Of TaskVine's other options ``ssl`` means ``encrypt_transfers``, and these are accepted, with nothing
        to do for them: ``shutdown`` (workers leave with their manager), ``run_info_path``,
        ``status_display_interval``.

        Raises PortInUseError, ValueError, TypeError, ConnectionFileError for a password file that can't be
        used, NestedManagerError in a worker that imports the module which makes a manager, and what the
        cluster raises.
        """
        refuse_nesting()
        _send_script_by_value()
        encrypted = bool(taskvine.pop("ssl", False)) or encrypt_transfers
        _check(taskvine, name, security, encrypted, password_file is not None, cluster)
        password = "" if password_file is None else _password_in(password_file)
        keyless = security == "none"
        public = keyless or port is not None or name is not None or (cluster is not None and cluster.remote)
        wish = LocalWish.stated(0 if cluster is not None and local_workers is None else local_workers, public)
        scratch = _scratch_below(tempfile.gettempdir() if staging_path is None else staging_path)
        worker = LocalWorker(wish.cores, Path(scratch.path) / "worker")
        try:
            if wish.when == "always":
                worker.launch()
            from graphvine.manager.opening import Opening

            self._opening = Opening(
                port,
                name,
                host,
                public,
                wish,
                worker,
                scratch,
                settings,
                show_output,
                secure=not keyless,
                encrypted=encrypted,
                password=password,
                clustered=cluster is not None,
            )
        except BaseException:
            worker.stop(0.0)
            scratch.remove()
            raise
        self._loop = self._opening.loop
        super().__init__()
        self._staging = os.path.join(scratch.path, "staging")
        self._encrypted = encrypted
        self._begin(cluster, init_fn)

    def _begin(self, cluster: Cluster | None, init_fn: Callable[[Manager], object] | None) -> None:
        try:
            if cluster is not None:
                cluster.attach(self)
            if init_fn is not None:
                init_fn(self)
        except BaseException:
            self.close()
            raise

    def set_password(self, password: str) -> None:
        """Workers that have the same password need no connection file. To be called before any joins; takes
        a moment, as trying passwords would. Raises ValueError, ManagerClosedError."""
        self._opening.set_password(password)

    def set_password_file(self, file: str | os.PathLike[str]) -> None:
        """As ``set_password``, with the text of a file that only you can read. Raises ConnectionFileError,
        too."""
        self.set_password(_password_in(file))

    def set_name(self, name: str) -> None:
        """Have another connection file, of that name. Raises ValueError."""
        _check_name(name)
        self._opening.rename(name)

    # -- Engine ----------------------------------------------------------------------------------------

    def expect_work(self) -> None:
        """Start the embedded worker, if one is wanted and not there. Waits until its process is started, so
        that what the caller does next does not delay it. Raises ManagerClosedError."""
        self._loop.ask(self._opening.embedded.on_work)

    def run(self, plan: Plan, *, keep: bool = False) -> ManagedRun:
        """Take a plan over and start it; returns at once. See ``engine.Engine.run``."""
        run = self._loop.run_plan(plan, keep)
        self._loop.call(self._opening.embedded.on_work)
        return run

    def fetch(self, files: Sequence[int]) -> list[Any]:
        """The values of kept files. Waits; recomputes what was lost."""
        return self.gather(files).result()

    def gather(self, files: Sequence[int]) -> ManagedRun:
        """Begin to fetch kept files; returns at once."""
        run = self._loop.fetch(files)
        self._loop.call(self._opening.embedded.on_work)
        return run

    def release(self, files: Sequence[int]) -> None:
        """Kept files are no longer needed."""
        loop, numbers = self._loop, list(files)
        loop.call(lambda: loop.release(numbers))

    def cancel_tasks(self, files: Sequence[int]) -> None:
        """Tasks of separate plans are not wanted any more. See ``engine.Engine.cancel_tasks``."""
        loop, numbers = self._loop, list(files)
        loop.call(lambda: loop.cancel_tasks(numbers))

    def prune(self, files: Sequence[int]) -> None:
        """Drop all copies of kept files that no task waits for; each is made again when it is needed."""
        loop, numbers = self._loop, list(files)
        loop.call(lambda: loop.prune(numbers))

    def limit(self, name: str, count: int | None) -> None:
        """At most ``count`` tasks whose ``TaskOptions.limit`` is ``name`` run at once (None: any number).
        Raises ValueError."""
        if count is not None and count < 1:
            raise ValueError(f"limit {name!r}: give a number from 1 upward, or None, not {count!r}")
        loop = self._loop
        loop.call(lambda: loop.limit(name, count))

    def peer_transfers(self, allowed: bool) -> None:
        """Whether workers fetch files from each other, from now on; else these go through the manager."""
        loop = self._loop
        loop.call(lambda: loop.peer_transfers(allowed))

    def block_host(self, host: str, seconds: float | None = None) -> None:
        """Give no more tasks to workers of this host (or name), for so many seconds (None: until
        ``unblock_host``)."""
        loop = self._loop
        loop.call(lambda: loop.block_host(host, seconds))

    def unblock_host(self, host: str | None = None) -> None:
        """Its workers get tasks again (None: those of every host)."""
        loop = self._loop
        loop.call(lambda: loop.unblock_host(host))

    def await_workers(self, count: int) -> None:
        """Give no tasks to anybody before so many workers are there; from then on they may come and go."""
        loop = self._loop
        loop.call(lambda: loop.await_workers(count))

    def retire(self, *workers: str, reason: str = "it is not needed any more") -> int:
        """Have workers leave, named by their names or batch jobs; returns how many of them are there.

        Each is given nothing more, ends what it has begun, hands over what only it holds, and then leaves.
        Returns at once. Raises ManagerClosedError."""
        return self._loop.ask(lambda: self._loop.retire(workers, reason))

    def retire_some(self, count: int, reason: str = "it is not needed any more") -> int:
        """Have so many workers leave (see ``retire``), idle ones first; returns how many do. Raises
        ManagerClosedError."""
        return self._loop.ask(lambda: self._loop.retire_some(count, reason))

    def replicas(self, file: int) -> int:
        """How many workers hold a file now. Raises ManagerClosedError."""
        return self._loop.ask(lambda: self._loop.replicas(file))

    def counts(self) -> Stats:
        """What there is now. Raises ManagerClosedError."""
        return self._loop.ask(self._loop.stats)

    def watch_demand(self, listener: Callable[[Demand], None]) -> None:
        """Have ``listener`` called with what the work asks for: first with all there is, then whenever that
        changes, with the workers that are new, gone, idle or busy since. It is called in the manager's
        thread, twice a second at most, and must not wait. Raises ManagerClosedError."""
        self._loop.ask(lambda: self._loop.watch_demand(listener))

    def unwatch_demand(self, listener: Callable[[Demand], None]) -> None:
        """Have it called no more."""
        loop = self._loop
        loop.call(lambda: loop.unwatch_demand(listener))

    def worker_names(self) -> list[str]:
        """Names and hosts of the workers that are connected now."""
        peers = self._loop.ask(self._loop.workers)
        return sorted({name for peer in peers for name in (peer.hello.name, peer.hello.host)})

    def worker_sizes(self) -> list[WorkerSize]:
        """The workers that are connected now. Raises ManagerClosedError."""
        from graphvine.manager.engine import WorkerSize

        hellos = [peer.hello for peer in self._loop.ask(self._loop.workers)]
        return [WorkerSize(hello.name, hello.host, hello.capacity) for hello in hellos]

    # -- life ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What its connection file is called."""
        return self._opening.connection.name

    @property
    def connection_file(self) -> Path:
        """All that a worker needs to join; only its owner may read it."""
        return self._opening.connection_files[-1]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._opening.connection.port

    @property
    def address(self) -> str:
        """``host:port`` for a worker on this network."""
        return f"{self._opening.connection.hosts[0]}:{self.port}"

    @property
    def closed(self) -> bool:
        """Whether it was closed, and takes no more work."""
        return self._opening.closed

    def at_close(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the manager closes, or is no longer used, or the interpreter ends:
        once its workers were told to leave. It must not refer to the manager."""
        self._opening.at_close.append(callback)

    def close(self) -> None:
        """Stop everything: what runs is cancelled, workers leave. Safe to call twice."""
        super().close()
        self._opening.close()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a manager can't be sent to another process, nor can a function that uses it: hand over what it "
            "computed, or make one there"
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"on port {self.port}"
        return f"<graphvine.Manager {self.name}, {state}>"


def _check(
    taskvine: Mapping[str, Any], name: Any, security: Any, encrypted: bool, has_password: bool, cluster: Any
) -> None:
    _check_known(taskvine)
    if name is not None:
        _check_name(name)
    _check_security(security, encrypted, has_password)
    _check_cluster(cluster)


def _check_known(taskvine: Mapping[str, Any]) -> None:
    unknown = sorted(set(taskvine) - _ACCEPTED)
    if unknown:
        raise TypeError(f"Manager has no option {', '.join(unknown)}; there are: {', '.join(_options())}")


def _check_security(security: Any, encrypted: bool, has_password: bool) -> None:
    if security not in ("curve", "none"):
        raise ValueError(
            f'security={security!r}: give "curve" (the default), or "none" for no security at all'
        )
    if has_password and security == "none":
        raise ValueError('a password needs security="curve": without it nobody has to prove anything')
    if encrypted and security == "none":
        raise ValueError('encrypt_transfers needs security="curve": without it everybody is told the secret')


def _check_cluster(cluster: Any) -> None:
    if isinstance(cluster, type) or not (cluster is None or hasattr(cluster, "attach")):
        said = cluster.__name__ if isinstance(cluster, type) else repr(cluster)
        raise TypeError(f"cluster={said}: make one first, such as graphvine.SlurmCluster(cores=4)")


def _password_in(file: str | os.PathLike[str]) -> str:
    from graphvine.protocol.passwords import read_password

    return read_password(Path(file))


def _scratch_below(parent: str | os.PathLike[str]) -> OwnedDirectory:
    """A directory of this manager's own; what killed managers of this user left there goes."""
    path = os.path.abspath(parent)
    os.makedirs(path, exist_ok=True)
    sweep(path)
    return OwnedDirectory(path)


def _send_script_by_value() -> None:
    """A child that multiprocessing has spawned has the user's script as a module that no worker knows."""
    script = sys.modules.get("__mp_main__")
    # In every other process that is but another name of ``__main__``, which cloudpickle knows how to send.
    if script is not None and script.__name__ == "__mp_main__":
        import cloudpickle

        cloudpickle.register_pickle_by_value(script)


def _options() -> list[str]:
    named = (name for name in Manager.__init__.__annotations__ if name not in ("return", "taskvine"))
    return [*named, "ssl", *sorted(_ACCEPTED)]


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or os.path.basename(name) != name:
        raise ValueError(f"name={name!r}: give a string without slashes, a file name")


def refuse_nesting() -> None:
    """Raises NestedManagerError in a worker whose imports have led here. In a task's own call a manager may
    be made: that is what somebody has asked for."""
    frame = sys._getframe() if runs_tasks() else None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and module != "__main__":
            raise NestedManagerError(
                f"module {module!r} makes a graphvine manager when it is imported, and a worker has to "
                "import it for its tasks: make the manager in a function, or under "
                '`if __name__ == "__main__":`'
            )
        frame = frame.f_back

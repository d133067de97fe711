"""What users of TaskVine see of a manager: ``declare_*``, ``submit``, ``wait`` and all that goes with them.

``TaskClient`` is a base of the manager's class, beside ``DaskClient``: the methods of ``engine.Engine`` are
on the same object. It only takes orders; ``desk`` carries them out. docs/taskvine.md has a row for every
name.
"""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from graphvine.manager.engine import TaskEngine
from graphvine.taskvine.files import (
    Buffer,
    Environment,
    File,
    Level,
    LocalFile,
    MiniTask,
    Temp,
    Unpacked,
    Url,
    check_acyclic,
    level_of,
)
from graphvine.taskvine.maps import MapClient
from graphvine.taskvine.results import Summary
from graphvine.taskvine.tuning import Tuning, hungry

if TYPE_CHECKING:
    from graphvine.taskvine import counts
    from graphvine.taskvine.desk import Desk
    from graphvine.taskvine.functions import Functions
    from graphvine.taskvine.held import HeldFiles
    from graphvine.taskvine.libraries import Installed, LibraryTask
    from graphvine.taskvine.task import Task

Timeout = float | str | None
_RESOURCES = frozenset({"cores", "memory", "disk", "gpus", "wall_time", "end"})


class TaskClient(MapClient):
    """Declares files and runs tasks on the engine that it is."""

    def __init__(self) -> None:
        super().__init__()
        self._desk_made: Desk | None = None
        self._staging = ""
        self._tuning = Tuning()
        self._tasks_left = 0
        self._declared: weakref.WeakValueDictionary[tuple[Any, ...], File] = weakref.WeakValueDictionary()
        self._began_us = time.time_ns() // 1000
        self._properties: dict[str, Any] = {}
        self._functions_made: Functions | None = None
        self._libraries: dict[str, Installed] = {}
        """Those that are installed, by name."""

    @property
    def _functions(self) -> Functions:
        """How the functions of Python tasks travel."""
        if self._functions_made is None:
            from graphvine.taskvine.functions import Functions

            self._functions_made = Functions()
        return self._functions_made

    @property
    def _desk(self) -> Desk:
        if self._desk_made is None:
            from graphvine.taskvine.desk import Desk

            os.makedirs(self.staging_directory, exist_ok=True)
            self._desk_made = Desk(self._engine, self.staging_directory)
        return self._desk_made

    @property
    def staging_directory(self) -> str:
        """Where the manager keeps what it needs while it lives."""
        return self._staging

    # -- files -----------------------------------------------------------------------------------------

    def declare_file(
        self,
        path: str | os.PathLike[str],
        cache: bool | str = False,
        peer_transfer: bool = True,
        unlink_when_done: bool = False,
    ) -> LocalFile:
        """A file or directory of this machine, for inputs and outputs.

        ``cache``: how long workers keep it: "task" (False), "workflow" (True), "worker" or "forever".
        ``unlink_when_done``: once it is undeclared and no task needs it, it is removed from this machine."""
        path, level = os.fspath(path), level_of(cache)
        key = ("file", os.path.abspath(path), level, bool(peer_transfer), bool(unlink_when_done))
        found = self._known(key)
        if isinstance(found, LocalFile):
            return found
        file = LocalFile(self, path, level, peer_transfer=peer_transfer, unlink_when_done=unlink_when_done)
        self._declared[key] = file
        return file

    def declare_url(self, url: str, cache: bool | str = False, peer_transfer: bool = True) -> Url:
        """What a worker reads from a URL: http, https, and all that fsspec opens. Raises TypeError."""
        return self._declare_url(url, level_of(cache), peer_transfer)

    def declare_xrootd(
        self,
        source: str,
        proxy: File | None = None,
        env: Mapping[str, str] | None = None,
        cache: bool | str = False,
        peer_transfer: bool = True,
    ) -> Url:
        """A file of an xrootd server: ``root://host//path``. ``proxy``: an X.509 proxy certificate. ``env``:
        variables for the transfer; an environment cannot be given (the worker's own needs fsspec-xrootd)."""
        if isinstance(env, File):
            raise TypeError(
                "env: the worker's own environment must have fsspec-xrootd; give variables, or None"
            )
        return self._declare_url(source, level_of(cache), peer_transfer, proxy, dict(env or {}))

    def _declare_url(
        self,
        url: str,
        level: Level,
        peer_transfer: bool,
        proxy: File | None = None,
        variables: dict[str, str] | None = None,
    ) -> Url:
        if not isinstance(url, str):
            raise TypeError(f"url {url!r} is not a str")
        if "://" not in url:
            raise ValueError(f"{url!r} is no URL: it has no scheme, as in https://host/path")
        key = ("url", url, level, bool(peer_transfer), id(proxy), tuple(sorted((variables or {}).items())))
        found = self._known(key)
        if isinstance(found, Url):
            # It may have changed at its source since.
            found.unsure = found.number is not None
            return found
        file = Url(self, url, level, proxy, peer_transfer=peer_transfer)
        file.environment = variables or {}
        self._declared[key] = file
        return file

    def _known(self, key: tuple[Any, ...]) -> File | None:
        found = self._declared.get(key)
        return None if found is None or found.undeclared else found

    def declare_buffer(
        self, buffer: bytes | str | None = None, cache: bool | str = False, peer_transfer: bool = True
    ) -> Buffer:
        """Bytes as a file; None for an output, whose ``contents()`` are then here."""
        data = buffer.encode() if isinstance(buffer, str) else None if buffer is None else bytes(buffer)
        return Buffer(self, data, level_of(cache), peer_transfer=peer_transfer)

    def declare_temp(self) -> Temp:
        """What one task makes and others need; it stays on the workers."""
        return Temp(self, "workflow")

    def declare_minitask(
        self,
        minitask: Task,
        source: str,
        cache: bool | str = False,
        peer_transfer: bool = True,
    ) -> MiniTask:
        """What the task leaves in its sandbox as ``source``; it is run where and when the file is needed."""
        from graphvine.taskvine.task import Task, _checked_name

        if not isinstance(minitask, Task):
            raise TypeError(f"{minitask!r} is no task")
        if type(minitask)._enter is not Task._enter:
            raise TypeError(f"{minitask!r} is no command: only commands can be mini-tasks")
        minitask.manager = self
        minitask.submit_finalize()
        file = MiniTask(self, minitask, _checked_name(source), level_of(cache), peer_transfer=peer_transfer)
        check_acyclic([file])
        return file

    declare_mini_task = declare_minitask

    def declare_untar(self, tarball: File, cache: bool | str = False, peer_transfer: bool = True) -> Unpacked:
        """The directory that an archive unpacks to (tar, plain or compressed with gzip, bzip2, xz or zstd;
        zip)."""
        _check_file(tarball)
        return Unpacked(self, tarball, level_of(cache), peer_transfer=peer_transfer)

    def declare_poncho(
        self, package: File | str, cache: bool | str = False, peer_transfer: bool = True
    ) -> Environment:
        """An environment, for ``add_environment``: a packed one (a path or a file), or what is packed now: a
        conda prefix, a virtual environment, "current". Raises PackingError, OSError."""
        archive = self._packed(package) if isinstance(package, (str, os.PathLike)) else package
        _check_file(archive)
        return Environment(self, archive, level_of(cache), peer_transfer=peer_transfer)

    declare_environment = declare_poncho

    def _packed(self, source: str | os.PathLike[str]) -> LocalFile:
        if source == "current" or os.path.isdir(source):
            from graphvine.envs.packing import pack

            source = pack(source).path
        return self.declare_file(source, cache=True)

    def declare_starch(
        self, starch: File | str, cache: bool | str = False, peer_transfer: bool = True
    ) -> MiniTask:
        """The directory that a Starch package (.sfx) extracts to."""
        from graphvine.taskvine.task import Task

        package = self.declare_file(starch, cache=True) if isinstance(starch, (str, os.PathLike)) else starch
        task = Task("SFX_DIR=unpacked SFX_EXTRACT_ONLY=1 SFX_EXTRACT_FORCE=1 ./package.sfx")
        task.add_input(package, "package.sfx")
        return self.declare_minitask(task, "unpacked", cache, peer_transfer)

    def declare_chirp(self, *_: Any, **__: Any) -> File:
        """Not here. Raises NotImplementedError."""
        raise NotImplementedError("files of Chirp servers cannot be read here: serve them over http, say")

    def fetch_file(self, file: File) -> bytes:
        """The content of a file, wherever it lies. Waits for it. Raises OSError when it cannot be had."""
        _check_file(file)
        here = file.read_here()
        if here is not None:
            return here
        from graphvine.taskvine.plans import MissingInputError
        from graphvine.taskvine.retrieval import read_bytes

        try:
            return read_bytes(self._desk.content(file))
        except MissingInputError as error:
            raise FileNotFoundError(str(error)) from None

    def hold_files(self, files: Sequence[Any]) -> HeldFiles:
        """Declared files for the tasks of a graph. Raises TypeError, FileNotFoundError."""
        from graphvine.taskvine.held import HeldFiles

        for file in files:
            _check_file(file)
        return HeldFiles(self._desk, files)

    def archive_of(self, environment: Any) -> Any:
        """The path of what was declared as an environment; anything else as it is. Raises TypeError."""
        if not isinstance(environment, File):
            return environment
        archive = environment.archive if isinstance(environment, Environment) else environment
        if not isinstance(archive, LocalFile):
            raise TypeError(f"environment: {archive.label} is no file of this machine")
        return archive.resolved()

    def undeclare_file(self, file: File) -> None:
        """No task uses it any more: workers drop it once the submitted ones are over."""
        _check_file(file)
        self._desk.undeclare(file)

    def remove_file(self, file: File) -> None:
        """See ``undeclare_file``."""
        self.undeclare_file(file)

    def prune_file(self, file: File) -> None:
        """Workers drop it; it is made, sent or read again when a task needs it."""
        _check_file(file)
        if file.number is not None:
            self._engine.prune([file.number])

    def get_file_replica_count(self, file: File) -> int:
        """How many workers hold it now."""
        _check_file(file)
        return 0 if file.number is None else self._engine.replicas(file.number)

    @property
    def _engine(self) -> TaskEngine:
        return cast(TaskEngine, self)

    # -- tasks -----------------------------------------------------------------------------------------

    def submit(self, task: Task) -> int:
        """Have a task run; its number. Raises TypeError, ValueError, ManagerClosedError."""
        from graphvine.taskvine.task import Task

        if not isinstance(task, Task):
            raise TypeError(f"{task!r} is no task")
        other = task.manager
        if other is not None and other is not self and other._has(task):
            raise ValueError(f"task {task.id} was submitted to another manager, and is not over: clone() it")
        if self.empty():
            # It waits for the manager's thread: not for each of thousands.
            self._engine.expect_work()
        task.manager = self
        task.submit_finalize()
        return self._desk.submit(task)

    def _has(self, task: Task) -> bool:
        """Whether a task was submitted here, and will be returned by ``wait``."""
        return self._desk_made is not None and self._desk_made.has(task)

    def wait(self, timeout: Timeout = "wait_forever") -> Task | None:
        """The next task that is over, or None when none is after ``timeout`` seconds (a fraction, too; 0:
        what is there), or when there are no tasks. Raises ManagerClosedError."""
        return self._desk.wait(_seconds(timeout), None, None)

    def wait_for_tag(self, tag: str | None, timeout: Timeout = "wait_forever") -> Task | None:
        """... with this tag (None: any)."""
        return self._desk.wait(_seconds(timeout), tag, None)

    def wait_for_task_id(self, task_id: int, timeout: Timeout = "wait_forever") -> Task | None:
        """... of this number (-1: any)."""
        return self._desk.wait(_seconds(timeout), None, None if task_id == -1 else task_id)

    def empty(self) -> bool:
        """Whether every submitted task was returned."""
        with self._desk.lock:
            return self._desk.ledger.empty()

    def hungry(self) -> int:
        """How many more tasks it would like to have; 0 when it has enough."""
        stats = self.stats
        return hungry(stats.tasks_waiting, stats.workers_connected, stats.total_cores, self._tuning)

    def cancel_by_task_id(self, id: int) -> int:
        """Stop a task; ``wait`` returns it with the result "cancelled". 1 if it was there and not over."""
        with self._desk.lock:
            task = self._desk.ledger.get(id)
        return self._desk.cancel([task] if task is not None else [])

    def cancel_by_task_tag(self, tag: str) -> int:
        """... one task of this tag."""
        return self._desk.cancel([task for task in self._unfinished() if task.tag == tag][:1])

    def cancel_by_category(self, category: str) -> int:
        """... all tasks of this category; how many."""
        return self._desk.cancel([task for task in self._unfinished() if task.category == category])

    def cancel_all(self) -> int:
        """... all tasks; how many."""
        return self._desk.cancel(self._unfinished())

    cancel_by_taskid = cancel_by_task_id
    cancel_by_tag = cancel_by_tasktag = cancel_by_task_tag

    def _unfinished(self) -> list[Task]:
        with self._desk.lock:
            return self._desk.ledger.unfinished()

    def task_state(self, task_id: int) -> str:
        """ "ready", "running", "retrieved", or "unknown" for one that is not here."""
        with self._desk.lock:
            task = self._desk.ledger.get(task_id)
        return "unknown" if task is None else task.state

    def tasks_left_count(self, ntasks: int) -> None:
        """How many tasks will be submitted still, for whoever starts workers."""
        self._tasks_left = max(0, int(ntasks))

    def set_min_task_id(self, minid: int) -> int:
        """Numbers of further tasks are at least this."""
        with self._desk.lock:
            return self._desk.ledger.set_next_id(minid)

    # -- libraries -------------------------------------------------------------------------------------

    def create_library_from_functions(
        self,
        library_name: str,
        *function_list: Callable[..., Any],
        poncho_env: File | str | None = None,
        init_command: str | None = None,
        add_env: bool = True,
        library_context_info: Sequence[Any] | None = None,
        hoisting_modules: Sequence[Any] | None = None,
        exec_mode: str = "direct",
        function_infile_load_mode: str = "cloudpickle",
    ) -> LibraryTask:
        """Functions that workers have at hand, for ``install_library`` and ``FunctionCall``.

        ``library_context_info``: ``[function, args, kwargs]``, called once per worker; the dict that it
        returns is what ``load_variable_from_library`` reads. ``hoisting_modules``: globals of all functions.
        ``poncho_env``: an environment as for ``declare_poncho``; without one, calls run in the worker's own
        (``add_env`` changes nothing). ``init_command``: a command line that runs before the set-up.
        ``exec_mode``: see ``LibraryTask.set_function_exec_mode``. ``function_infile_load_mode``: accepted;
        arguments travel by themselves. Raises TypeError, ValueError."""
        from graphvine.taskvine import libraries

        task = libraries.make(
            library_name, function_list, library_context_info, hoisting_modules, init_command
        )
        task.set_function_exec_mode(exec_mode)
        if poncho_env is not None:
            task.add_environment(
                poncho_env if isinstance(poncho_env, File) else self.declare_poncho(poncho_env, cache=True)
            )
        return task

    def create_library_from_serverized_files(self, *_: Any, **__: Any) -> LibraryTask:
        """Not here. Raises NotImplementedError."""
        raise NotImplementedError("use create_library_from_functions: it takes the functions themselves")

    def install_library(self, task: LibraryTask) -> None:
        """Calls that are submitted from now on find this library under its name. Raises TypeError,
        NotPicklableError."""
        from graphvine.taskvine import libraries

        if not isinstance(task, libraries.LibraryTask):
            raise TypeError(f"{task!r} is no library: make one with create_library_from_functions")
        task.manager = self
        self._libraries[task.name] = libraries.install(task)

    install = install_library

    def remove_library(self, name: str) -> None:
        """Calls that are submitted from now on do not find it. Raises KeyError."""
        if name not in self._libraries:
            raise KeyError(f"no library {name!r} is installed")
        del self._libraries[name]

    # -- numbers ---------------------------------------------------------------------------------------

    @property
    def stats(self) -> counts.Stats:
        """Counts of workers and tasks; a snapshot."""
        from graphvine.taskvine import counts

        with self._desk.lock:
            stats = counts.of_tasks(self._desk.ledger)
        stats.time_when_started = self._began_us
        return counts.of_engine(stats, self._engine.counts())

    def stats_category(self, category: str) -> counts.Stats:
        """Counts of the tasks of a category."""
        from graphvine.taskvine import counts

        with self._desk.lock:
            return counts.of_tasks(self._desk.ledger, category)

    def status(self, request: str) -> list[dict[str, Any]]:
        """``request``: "manager" (or "queue"), "tasks", "workers", "categories". Raises ValueError."""
        from graphvine.taskvine import counts

        if request in ("manager", "queue"):
            stats = self.stats
            return [{name: getattr(stats, name) for name in stats.__struct_fields__}]
        with self._desk.lock:
            ledger = self._desk.ledger
            if request == "tasks":
                return [counts.describe_task(task) for task in ledger.all()]
            if request == "categories":
                return [counts.describe_category(ledger, name) for name in ledger.categories()]
        if request == "workers":
            return [{"hostname": name} for name in self._engine.worker_names()]
        raise ValueError(f"status({request!r}): ask for manager, tasks, workers or categories")

    def summarize_workers(self) -> list[dict[str, int]]:
        """Workers by size. (All as one here: their number and the cores of all together.)"""
        stats = self._engine.counts()
        if not stats.workers:
            return []
        return [
            {
                "workers": stats.workers,
                "cores": round(stats.cores / stats.workers),
                "gpus": 0,
                "memory": 0,
                "disk": 0,
            }
        ]

    def application_info(self) -> None:
        """For subclasses that show something of their own."""

    # -- settings --------------------------------------------------------------------------------------

    def tune(self, name: str, value: float) -> int:
        """Set a parameter (see docs/taskvine.md for those that mean something here). 0, or -1 for a name that
        there is not."""
        if not self._tuning.set(name, value):
            return -1
        if name == "file-source-max-transfers":
            self._desk.set_source_transfers(max(1, int(value)))
        return 0

    def block_host_with_timeout(self, host: str, timeout: float) -> None:
        """Workers of this host get no tasks for so many seconds (less than 1: until ``unblock_host``)."""
        self._whole.block_host(host, timeout if timeout >= 1 else None)

    def blacklist(self, host: str) -> None:
        """See ``block_host``."""
        self._whole.block_host(host)

    def blacklist_with_timeout(self, host: str, timeout: float) -> None:
        """See ``block_host_with_timeout``."""
        self.block_host_with_timeout(host, timeout)

    def blacklist_clear(self, host: str | None = None) -> None:
        """See ``unblock_host``."""
        self._whole.unblock_host(host)

    def set_draining_by_hostname(self, hostname: str, drain_mode: bool = True) -> None:
        """As ``block_host`` and ``unblock_host``; its workers stay."""
        if drain_mode:
            self._whole.block_host(hostname)
        else:
            self._whole.unblock_host(hostname)

    def set_resources_max(self, rmd: Mapping[str, float]) -> None:
        """What tasks of the category "default" ask for that do not say."""
        self.set_category_resources_max("default", rmd)

    def set_category_resources_max(self, category: str, rmd: Mapping[str, float]) -> None:
        """What tasks of this category ask for that do not say: cores, memory and disk (MB), gpus."""
        unknown = sorted(set(rmd or ()) - _RESOURCES)
        if unknown:
            raise ValueError(f"no resource: {', '.join(unknown)}; there are cores, memory, disk and gpus")
        stated: dict[str, Any] = {
            name: value for name, value in (rmd or {}).items() if name in Summary.__struct_fields__
        }
        self._desk.defaults[category] = Summary(category=category, **stated)

    def set_resources_min(self, rmd: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def set_category_resources_min(self, category: str, rmd: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def set_category_first_allocation_guess(self, category: str, rmd: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def set_category_max_concurrent(self, category: str, max_concurrent: int) -> None:
        """At most so many tasks of a category at once (less than 0: any number)."""
        self._desk.limit_category(category, None if max_concurrent < 0 else max_concurrent)

    def set_category_mode(self, category: str | None, mode: str) -> None:
        """``mode``: "fixed". Raises NotImplementedError for the others: nothing is allocated automatically
        yet."""
        if mode != "fixed":
            raise NotImplementedError(
                f"set_category_mode(..., {mode!r}): only 'fixed' is there yet; state what tasks need"
            )

    def set_category_autolabel_resource(self, category: str, resource: str, autolabel: bool) -> int:
        """Accepted: nothing is allocated automatically yet."""
        return int(resource in _RESOURCES)

    def initialize_categories(self, filename: str, rm: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def enable_monitoring(self, watchdog: bool = True, time_series: bool = False) -> int:
        """Nothing to do: every task is measured. 1."""
        return 1

    def enable_peer_transfers(self) -> int:
        """Nothing to do: workers pass files to each other."""
        return 1

    def disable_peer_transfers(self) -> int:
        """Not yet: a warning, and workers still pass files to each other."""
        warnings.warn("peer transfers cannot be disabled here: files go between workers", stacklevel=2)
        return 0

    def enable_disconnect_slow_workers(self, multiplier: float) -> None:
        """Accepted: workers are not told from each other by their speed yet."""

    def enable_disconnect_slow_workers_category(self, name: str, multiplier: float) -> None:
        """Accepted: workers are not told from each other by their speed yet."""

    def set_scheduler(self, scheduler: Any) -> None:
        """Nothing to do: tasks go where their data is, or where there is room."""

    def set_priority(self, priority: float) -> None:
        """Nothing to do: it is for a catalog."""

    def set_property(self, name: str, value: Any) -> None:
        """A word about this run, for reports."""
        self._properties[name] = value

    def set_password(self, password: str) -> None:
        """Nothing to do: workers prove a key of this run's own, and all is encrypted."""

    def set_password_file(self, file: str) -> None:
        """Nothing to do (see ``set_password``)."""

    def set_catalog_servers(self, catalogs: str) -> None:
        """Nothing to do: workers find a manager by its connection file."""

    def update_catalog(self) -> None:
        """Nothing to do."""

    def set_manager_preferred_connection(self, mode: str) -> None:
        """Nothing to do: workers try all addresses of the manager."""

    def set_runtime_info_path(self, dirname: str) -> None:
        """Accepted: no logs are written yet."""

    def set_keepalive_interval(self, interval: float) -> None:
        """Nothing to do: workers are heard every few seconds."""

    def set_keepalive_timeout(self, timeout: float) -> None:
        """Nothing to do (see ``set_keepalive_interval``)."""

    def log_debug_app(self, message: str) -> None:
        """A message of the application's, to the log ``graphvine.app``."""
        import logging

        logging.getLogger("graphvine.app").debug("%s", message)

    def log_txn_app(self, message: str) -> None:
        """As ``log_debug_app``."""
        self.log_debug_app(message)

    @property
    def using_ssl(self) -> bool:
        """Every connection is encrypted."""
        return True

    def close(self) -> None:
        """Take no more tasks. Safe to call twice."""
        if self._desk_made is not None:
            self._desk_made.close()
        super_close = getattr(super(), "close", None)
        if super_close is not None:
            super_close()


def _check_file(file: Any) -> None:
    if not isinstance(file, File):
        raise TypeError(f"{file!r} is no file: declare it first, as with manager.declare_file(path)")


def _seconds(timeout: Timeout) -> float | None:
    if timeout is None or timeout == "wait_forever":
        return None
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        raise TypeError(f"timeout={timeout!r}: give seconds, or 'wait_forever'") from None
    return None if seconds < 0 else seconds

"""Tasks in packed environments: real archives, workers, zygotes; the manager is a test, or real."""

from __future__ import annotations

import importlib.metadata
import io
import os
import pickle
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import psutil
import pytest
from tests.integration.conftest import StartWorker, family
from tests.integration.fake_manager import TIMEOUT_S, FakeManager

from graphvine.manager.manager import Manager
from graphvine.protocol import tree_files
from graphvine.protocol.errors import EnvironmentUnusableError, GraphvineError
from graphvine.protocol.libraries import Setup, dump_setup
from graphvine.protocol.messages import (
    Assign,
    BlobData,
    Context,
    Missing,
    Piece,
    Pull,
    Report,
    Source,
    Sources,
    TaskFailed,
    TaskOrder,
)
from graphvine.protocol.pieces import piece_of
from graphvine.protocol.trees import NewTree
from graphvine.worker.installation import PACKAGES
from graphvine.worker.library import load_variable

ARCHIVE = 5000
BLOB = 1000
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of all workers of this test."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(directory))
    return directory


pytestmark = pytest.mark.usefixtures("by_value")


def base_python() -> str:
    """The interpreter under the one that runs the tests: without its packages."""
    return os.path.realpath(os.path.join(sys.base_prefix, "bin", f"python{sys.version_info.major}"))


def make_archive(path: Path, files: dict[str, str] | None = None, python: str | None = None) -> Path:
    """An environment of its own, with ``files`` among its packages, and with no other package at all."""
    python = base_python() if python is None else python
    contents: dict[str, str] = {
        "pyvenv.cfg": f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n",
        f"{SITE}/gvt_inside.py": "where = __file__\n",
        **{
            (name if name.startswith("etc/") else f"{SITE}/{name}"): text
            for name, text in (files or {}).items()
        },
    }
    with tarfile.open(path, "w:gz") as tar:
        if python:
            link = tarfile.TarInfo("bin/python")
            link.type, link.linkname = tarfile.SYMTYPE, python
            tar.addfile(link)
        for name, text in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


class Sender(FakeManager):
    """Hands out tasks of a context in an environment, and the archive when it is asked for."""

    def __init__(self, archive: Path, name: str = "env-1", **more: Any) -> None:
        super().__init__()
        tree_files.take_in(NewTree(str(archive)), f"{archive}.tree", lambda _: "copy")
        self.tree = tree_files.Reader(f"{archive}.tree")
        self.wanted = Context(1, "code", b"", [], environment=ARCHIVE, environment_name=name, **more)
        self.asked = 0

    def order(
        self, worker: bytes, *calls: tuple[Callable[..., Any], tuple[Any, ...]], first: int = 1
    ) -> None:
        entries = [(function, arguments, ()) for function, arguments in calls]
        blob = BlobData(BLOB + first, 1, cloudpickle.dumps(entries))
        orders = [TaskOrder(first + i, BLOB + first, i, []) for i in range(len(calls))]
        self.say(worker, Assign(orders, [blob], [self.wanted]))

    def take(self, count: int, workers: Sequence[bytes]) -> tuple[dict[int, Any], list[TaskFailed]]:
        """Answer what is asked until so many tasks are done or failed."""
        done: dict[int, Any] = {}
        failed: list[TaskFailed] = []
        deadline = time.monotonic() + TIMEOUT_S
        while len(done) + len(failed) < count:
            self.receive(deadline)
            for identity, message in self.inbox:
                if isinstance(message, Report):
                    done.update({one.task: pickle.loads(one.value or b"") for one in message.done})
                    failed += message.failed
                    for missing in message.missing:
                        self._on_missing(identity, missing)
                elif isinstance(message, Pull):
                    self.say(identity, self.piece(message))
            self.inbox.clear()
        return done, failed

    def piece(self, pull: Pull) -> Piece:
        return piece_of(pull, self.tree.read(pull.offset, pull.length), self.tree.size, tree=True)

    def close(self) -> None:
        super().close()
        self.tree.close()

    def _on_missing(self, identity: bytes, missing: Missing) -> None:
        assert missing.file == ARCHIVE
        self.asked += 1
        self.say(identity, Sources([Source(ARCHIVE, self.tree.size, [])]))


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Callable[..., Sender]]:
    made: list[Sender] = []

    def make(archive: Path, *args: Any, **more: Any) -> Sender:
        made.append(Sender(archive, *args, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def log_of(directory: Path) -> str:
    return (directory / "worker.log").read_text()


def where() -> tuple[str, str, bool]:
    import gvt_inside  # type: ignore[import-not-found]

    return sys.executable, gvt_inside.where, "numpy" in sys.modules


def test_tasks_run_in_the_environment_which_is_unpacked_once(
    tmp_path: Path, cache: Path, sender: Callable[..., Sender]
) -> None:
    manager = sender(make_archive(tmp_path / "env.tar.gz"))
    manager.start_worker(tmp_path / "one", "--cores", "2")
    worker = manager.welcome()
    manager.order(worker, *[(where, ())] * 50)
    done, failed = manager.take(50, [worker])
    assert not failed
    assert set(done.values()) == {(f"{cache}/env-1/bin/python", f"{cache}/env-1/{SITE}/gvt_inside.py", False)}
    assert log_of(tmp_path / "one").count("unpacked environment env-1 in ") == 1
    assert manager.asked == 1


def test_what_zygotes_and_executors_import_is_in_the_environment_or_laid_beside_it(
    tmp_path: Path, sender: Callable[..., Sender]
) -> None:
    def of_other_projects() -> set[str]:
        standard = sys.stdlib_module_names
        tops = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
        return {
            top for top in tops if top not in standard and not top.startswith("_") and top != "gvt_inside"
        }

    manager = sender(make_archive(tmp_path / "env.tar.gz"))
    manager.start_worker(tmp_path / "one", "--cores", "1")
    worker = manager.welcome()
    manager.order(worker, (of_other_projects, ()))
    (names,) = manager.take(1, [worker])[0].values()
    assert names - {"sitecustomize", "usercustomize", "mmap"} <= set(PACKAGES)


def test_graphvine_is_the_workers_and_the_rest_the_environments_own(
    tmp_path: Path, cache: Path, sender: Callable[..., Sender]
) -> None:
    """Where the environment has other versions."""
    pickler = Path(cloudpickle.__file__).parent
    files = {f"cloudpickle/{path.name}": path.read_text() for path in pickler.glob("*.py")}
    files["graphvine/__init__.py"] = "raise RuntimeError('of another version')"

    def homes() -> tuple[str, str]:
        return sys.modules["graphvine"].__file__ or "", sys.modules["cloudpickle"].__file__ or ""

    manager = sender(make_archive(tmp_path / "env.tar.gz", files))
    manager.start_worker(tmp_path / "one", "--cores", "1")
    worker = manager.welcome()
    manager.order(worker, (homes, ()))
    ((ours, theirs),) = manager.take(1, [worker])[0].values()
    assert not ours.startswith(str(cache))
    assert theirs == f"{cache}/env-1/{SITE}/cloudpickle/__init__.py"
    assert importlib.metadata.version("cloudpickle")


def test_workers_of_one_node_unpack_once_together(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    manager = sender(make_archive(tmp_path / "env.tar.gz"))
    workers = []
    for number in (1, 2, 3):
        manager.start_worker(tmp_path / str(number), "--cores", "1", "--name", str(number))
        workers.append(manager.welcome(number))
    for position, worker in enumerate(workers):
        manager.order(worker, (where, ()), first=1 + position)
    done, failed = manager.take(3, workers)
    assert len(set(done.values())) == 1
    assert not failed
    logs = "".join(log_of(tmp_path / str(number)) for number in (1, 2, 3))
    assert logs.count("unpacked environment env-1 in ") == 1
    assert logs.count("is unpacked on this node already") == 2


def test_one_that_is_unpacked_already_is_not_asked_for(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    manager = sender(make_archive(tmp_path / "env.tar.gz"))
    for number in (1, 2):
        manager.start_worker(tmp_path / str(number), "--cores", "1")
        worker = manager.welcome(number)
        manager.order(worker, (where, ()), first=number)
        manager.take(1, [worker])
    assert manager.asked == 1


def test_other_tasks_run_while_an_environment_is_on_its_way(
    tmp_path: Path, sender: Callable[..., Sender]
) -> None:
    manager = sender(make_archive(tmp_path / "env.tar.gz"))
    manager.start_worker(tmp_path / "one", "--cores", "1")
    worker = manager.welcome()
    manager.order(worker, (where, ()))
    manager.expect(Report, lambda report: bool(report.missing))
    manager.say(
        worker, Assign([TaskOrder(100, 99, 0, [])], [BlobData(99, 0, pickle.dumps([(abs, (-3,), ())]))])
    )
    assert list(manager.collect(1)) == [100]
    manager.say(worker, Sources([Source(ARCHIVE, manager.tree.size, [])]))
    done, _ = manager.take(1, [worker])
    assert list(done) == [1]


def test_a_library_and_variables_in_an_environment(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    def set_up() -> dict[str, Any]:
        import gvt_inside

        return {"where": gvt_inside.where, "pid": os.getpid()}

    def ask() -> tuple[str, int, str | None]:
        return load_variable("where"), load_variable("pid"), os.environ.get("GVT_MODE")

    manager = sender(
        make_archive(tmp_path / "env.tar.gz"),
        variables=[("GVT_MODE", "fast")],
        setup=dump_setup(Setup(set_up)),
        setup_name="fits",
    )
    manager.start_worker(tmp_path / "one", "--cores", "2")
    worker = manager.welcome()
    manager.order(worker, *[(ask, ())] * 10)
    done, failed = manager.take(10, [worker])
    assert not failed
    ((place, _, mode),) = set(done.values())
    assert place.endswith("gvt_inside.py")
    assert mode == "fast"


def test_what_activation_scripts_set_is_there(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    script = 'export GVT_DATA="$CONDA_PREFIX/share"\n'
    manager = sender(make_archive(tmp_path / "env.tar.gz", {"etc/conda/activate.d/data.sh": script}))
    manager.start_worker(tmp_path / "one", "--cores", "1")
    worker = manager.welcome()
    manager.order(worker, (os.getenv, ("GVT_DATA",)), (os.getenv, ("PATH",)))
    done, _ = manager.take(2, [worker])
    assert done[1].endswith("/env-1/share")
    assert done[2].split(":")[0].endswith("/env-1/bin")


# -- what may be wrong ------------------------------------------------------------------------------------


def first_failure(manager: Sender, directory: Path) -> TaskFailed:
    """Two tasks of the environment fail, and say the same; one of another context does not."""
    manager.start_worker(directory, "--cores", "1")
    worker = manager.welcome()
    manager.order(worker, (where, ()), (where, ()))
    manager.say(
        worker, Assign([TaskOrder(100, 99, 0, [])], [BlobData(99, 0, pickle.dumps([(abs, (-3,), ())]))])
    )
    done, failed = manager.take(3, [worker])
    assert done == {100: 3}
    assert [one.task for one in failed] == [1, 2]
    assert failed[0].text == failed[1].text
    assert {one.kind for one in failed} == {"environment"}
    return failed[0]


def test_a_damaged_archive(tmp_path: Path, cache: Path, sender: Callable[..., Sender]) -> None:
    archive = make_archive(tmp_path / "env.tar.gz")
    os.truncate(archive, archive.stat().st_size // 2)
    failed = first_failure(sender(archive), tmp_path / "one")
    assert "environment env-1 cannot be used: " in failed.text
    assert "damaged" in failed.text
    assert not list(cache.glob("env-1*"))


def test_an_archive_without_python(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    failed = first_failure(sender(make_archive(tmp_path / "env.tar.gz", python="")), tmp_path / "one")
    assert "no bin/python" in failed.text


def test_an_environment_of_another_minor_version(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    mine = sys.version_info[:2]
    others = sorted(Path(os.path.expanduser("~/.pyenv/versions")).glob("3.1*/bin/python3"))
    other = next((p for p in others if f"{mine[0]}.{mine[1]}." not in str(p)), None)
    if other is None:
        pytest.skip("needs a Python of another minor version")
    failed = first_failure(
        sender(make_archive(tmp_path / "env.tar.gz", python=os.path.realpath(other))), tmp_path / "one"
    )
    assert f"but Python {mine[0]}.{mine[1]} is needed" in failed.text


def test_an_environment_that_spoils_what_zygotes_need(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    archive = make_archive(
        tmp_path / "env.tar.gz", {"cloudpickle.py": "raise ImportError('a broken package')"}
    )
    failed = first_failure(sender(archive), tmp_path / "one")
    assert "environment env-1 could not be started" in failed.text
    assert "a broken package" in failed.text


def test_a_worker_that_is_killed_while_it_unpacks_leaves_the_next_one_undisturbed(
    tmp_path: Path, cache: Path, sender: Callable[..., Sender]
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    os.mkfifo(begun)
    os.mkfifo(go_on)
    # The environment's Python is started once before it counts as whole. There it stops, the first time.
    stop = f"if mkdir {tmp_path}/stopped 2>/dev/null; then echo > {begun}; cat {go_on}; fi"
    archive = tmp_path / "env.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        text = f'#!/bin/sh\n{stop}\nexec {base_python()} "$@"\n'.encode()
        info = tarfile.TarInfo("bin/python")
        info.mode, info.size = 0o755, len(text)
        tar.addfile(info, io.BytesIO(text))
    manager = sender(archive)
    process = manager.start_worker(tmp_path / "one", "--cores", "1")
    worker = manager.welcome()
    manager.order(worker, (abs, (-1,)))
    manager.expect(Report, lambda report: bool(report.missing))
    manager.say(worker, Sources([Source(ARCHIVE, manager.tree.size, [])]))
    _, pull = manager.expect(Pull)
    manager.say(worker, manager.piece(pull))
    begun.read_text()
    assert (cache / "env-1").is_dir()
    children = family(process.pid)
    process.kill()
    process.wait()
    with open(go_on, "w"):
        pass
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    manager.start_worker(tmp_path / "two", "--cores", "1")
    worker = manager.welcome(2)
    manager.order(worker, (abs, (-2,)), first=2)
    assert manager.take(1, [worker]) == ({2: 2}, [])
    assert "unpacked environment env-1 in " in log_of(tmp_path / "two")


# -- a real manager ---------------------------------------------------------------------------------------


def make_inside() -> Callable[[], tuple[str, str | None]]:
    """A function of the user's script, as it were: this module would travel, and needs other packages."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "def inside():\n    import os, gvt_inside\n    return gvt_inside.where, os.environ.get('GVT_MODE')\n",
        namespace,
    )
    return namespace["inside"]  # type: ignore[no-any-return]


inside = make_inside()


def test_calls_run_in_the_environment_that_is_named(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, cache: Path
) -> None:
    archive = make_archive(tmp_path / "env.tar.gz")
    for _ in range(2):
        start_worker(bare_manager, 2)
    with bare_manager.executor(environment=archive, env_vars={"GVT_MODE": "fast"}) as executor:
        futures = [executor.submit(inside) for _ in range(40)]
        ((place, mode),) = {future.result() for future in futures}
    assert place.startswith(f"{cache}/")
    assert mode == "fast"
    logs = "".join(path.read_text() for path in tmp_path.glob("worker-*.log"))
    assert logs.count("unpacked environment ") == 1
    with bare_manager.executor(environment=archive) as executor:
        assert executor.submit(inside).result() == (place, None)


def test_an_environment_that_is_gone_before_a_worker_has_it_is_told(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path
) -> None:
    archive = make_archive(tmp_path / "env.tar.gz")
    executor = bare_manager.executor(environment=archive)
    archive.unlink()
    future = executor.submit(inside)
    start_worker(bare_manager, 1)
    with pytest.raises(GraphvineError, match=r"env\.tar\.gz"):
        future.result(timeout=60)
    executor.shutdown()


def test_a_damaged_environment_fails_what_needs_it_and_nothing_else(manager: Manager, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "env.tar.gz", python="")
    with manager.executor(environment=archive) as executor, manager.executor() as plain:
        bad, good = executor.submit(inside), plain.submit(abs, -4)
        with pytest.raises(EnvironmentUnusableError, match=r"no bin/python"):
            bad.result(timeout=60)
        assert good.result(timeout=60) == 4


def test_graphs_run_in_an_environment_that_has_dask(manager: Manager, tmp_path: Path, cache: Path) -> None:
    # What it has is this interpreter's own, by a line in a file that Python reads when it starts.
    site = os.path.dirname(os.path.dirname(dask.__file__))
    archive = make_archive(tmp_path / "env.tar.gz", {"all.pth": f"{site}\n"})
    inner = dask.delayed(inside, pure=False)()
    options: dict[str, Any] = {"environment": archive, "env_vars": {"GVT_MODE": "slow"}}
    (value,) = dask.compute(inner, scheduler=manager.get, **options)
    assert value[0].startswith(f"{cache}/")
    assert value[1] == "slow"
    assert manager.compute(inner, **options).result(timeout=60) == value
    kept = manager.persist(inner, **options)
    (again,) = dask.compute(dask.delayed(tuple)([kept, 1]), scheduler=manager.get)
    assert again == (value, 1)

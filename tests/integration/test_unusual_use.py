"""Things that users do, and that are nobody's idea of how it is meant to be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import zipapp
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import pytest
from tests.integration.conftest import describe, family

from graphvine.manager.manager import Manager
from graphvine.protocol.errors import NotPicklableError, PortInUseError


def run_script(directory: Path, body: str, seconds: float = 60) -> str:
    """The output of a user's script in ``directory``, which must end well, and in time."""
    path = directory / "script.py"
    path.write_text(textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=directory,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_exception_of_a_module_that_is_just_being_imported(tmp_path: Path) -> None:
    module = """
        import os, sys
        class Mine(Exception):
            pass
        def fail(x):
            raise Mine(x)
        if "script.py" in sys.argv[0]:
            from graphvine import Manager
            with Manager(local_workers=1) as manager:
                try:
                    manager.get({"a": (fail, 1)}, "a")
                except Mine as error:
                    print("mine", error)
        """
    (tmp_path / "neighbour.py").write_text(textwrap.dedent(module))
    assert run_script(tmp_path, "import neighbour") == "mine 1\n"


def fork_and_exit(number: int) -> int:
    if os.fork() == 0:
        sys.exit(0)
    return number


def fork_and_return(number: int) -> tuple[int, bool]:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return number, child == 0


def test_a_child_that_a_task_forked_is_no_executor(manager: Manager) -> None:
    graph = {("n", i): (fork_and_exit, i) for i in range(20)}
    assert manager.get(graph, list(graph)) == tuple(range(20))
    graph = {("n", i): (fork_and_return, i) for i in range(20)}
    assert manager.get(graph, list(graph)) == tuple((i, False) for i in range(20))


def test_a_forked_child_is_told_that_the_manager_is_not_its_own(tmp_path: Path) -> None:
    body = """
        import os, signal
        from graphvine import Manager
        from graphvine.protocol.errors import ManagerClosedError
        with Manager(local_workers=1) as manager:
            assert manager.get({"a": (abs, -1)}, "a") == 1
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    manager.get({"a": (abs, -2)}, "a")
                except ManagerClosedError as error:
                    print(error, flush=True)
                manager.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert manager.get({"a": (abs, -3)}, "a") == 3
        """
    assert "make a manager of its own here" in run_script(tmp_path, body)


def test_a_forked_child_is_told_so_whatever_it_does(tmp_path: Path) -> None:
    body = """
        import os, signal, sys, traceback
        from graphvine import Manager, PythonTask
        from graphvine.protocol.errors import ManagerClosedError
        def wait():
            import threading
            threading.Event().wait()
        def uses(manager, executor, done, open_one):
            yield "submit", lambda: executor.submit(abs, 1)
            yield "map", lambda: executor.map(abs, [1])
            yield "shutdown", lambda: executor.shutdown()
            yield "executor", lambda: manager.executor()
            yield "compute", lambda: manager.compute({"a": 1})
            yield "persist", lambda: manager.persist({"a": 1})
            yield "result", lambda: open_one.result()
            yield "exception", lambda: open_one.exception()
            yield "cancel", lambda: open_one.cancel()
            yield "wait", lambda: manager.wait(20)
            yield "task", lambda: manager.submit(PythonTask(abs, 1))
            yield "empty", lambda: manager.empty()
            yield "cancel_all", lambda: manager.cancel_all()
            yield "stats", lambda: manager.stats
            yield "map", lambda: manager.map(abs, [1])
        def in_child(manager, *held):
            signal.alarm(30)
            for name, use in uses(manager, *held):
                try:
                    use()
                except ManagerClosedError as error:
                    assert "forked" in str(error)
                    print(name, flush=True)
            assert held[1].result() == 4
        with Manager(local_workers=1) as manager, manager.executor() as executor:
            done = executor.submit(abs, -4)
            assert done.result() == 4
            open_one = executor.submit(wait)
            task = PythonTask(abs, -6)
            manager.submit(task)
            child = os.fork()
            if child == 0:
                try:
                    in_child(manager, executor, done, open_one)
                    with executor, manager:
                        pass
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert open_one.cancel()
            assert manager.wait(20) is task
            assert executor.submit(abs, -5).result() == 5
        """
    names = "submit map shutdown executor compute persist result exception cancel wait task empty"
    names += " cancel_all stats map"
    assert run_script(tmp_path, body).split() == names.split()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_of_multiprocessing_has_a_manager_of_its_own(tmp_path: Path, method: str) -> None:
    body = f"""
    import multiprocessing
    from graphvine import Manager, PythonTask

    class Pair(tuple):
        pass

    def pair(x):
        return Pair((x, x))

    def child(said):
        with Manager(local_workers=1) as manager, manager.executor() as executor:
            of_get = manager.get({{"a": (pair, 1), "b": (pair, "a")}}, "b", progress=False)
            task = PythonTask(pair, Pair([2]))
            manager.submit(task)
            manager.wait()
            said.put([of_get, executor.submit(pair, Pair([3])).result(), task.output])

    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        said = context.SimpleQueue()
        process = context.Process(target=child, args=(said,))
        process.start()
        results = said.get()
        process.join()
        print([type(result).__name__ for result in results], results)
    """
    assert (
        run_script(tmp_path, body)
        == "['Pair', 'Pair', 'Pair'] [((1, 1), (1, 1)), ((3,), (3,)), ((2,), (2,))]\n"
    )


def test_only_such_a_child_tells_cloudpickle_of_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    # As wherever multiprocessing was imported.
    monkeypatch.setitem(sys.modules, "__mp_main__", sys.modules["__main__"])
    with Manager(local_workers=0):
        assert "__main__" not in cloudpickle.list_registry_pickle_by_value()


def test_what_belongs_to_one_process_says_so_when_it_is_sent(manager: Manager, bare_manager: Manager) -> None:
    with pytest.raises(NotPicklableError, match="a manager can't be sent to another process"):
        manager.get({"a": (repr, manager)}, "a", progress=False)
    with manager.executor() as executor, bare_manager.executor() as other:
        future = executor.submit(abs, -1)
        with pytest.raises(NotPicklableError, match="a future can't be sent to another process"):
            other.submit(abs, future).result()


def test_a_worker_that_ends_again_is_not_told_of_with_old_words(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.get({"a": (abs, -1)}, "a")
    worker: Any = manager._opening.embedded._worker
    said = []
    for _ in range(2):
        caplog.clear()
        run = manager.compute(dask.delayed(wait_for_another_parent)(worker.pid))
        os.kill(worker.pid, signal.SIGKILL)
        assert run.result(60) != 0
        said.append(
            "".join(record.message for record in caplog.records if "starting it again" in record.message)
        )
    assert all(text.count("joined manager") <= 1 for text in said)


def test_the_embedded_worker_gets_ready_with_its_manager() -> None:
    with Manager(local_workers=1):
        assert any("--embedded" in describe(process) for process in family(os.getpid()))
    with Manager(port=0):  # others may join: it starts with the first work, where none has
        assert family(os.getpid()) == []


def test_a_manager_that_cannot_be_leaves_no_worker(bare_manager: Manager) -> None:
    for arguments in ({"port": bare_manager.port}, {"name": bare_manager.name}):
        with pytest.raises((PortInUseError, ValueError)):
            Manager(**arguments, local_workers=1)
        assert family(os.getpid()) == []


def wait_for_another_parent(pid: int) -> int:
    """Runs until the worker of that process is gone."""
    while Path(f"/proc/{pid}").exists():
        os.sched_yield()
    return os.getpid()


def never_end(directory: str, number: int) -> None:
    Path(directory, str(number)).touch()
    threading.Event().wait()


def test_cancelled_calls_free_their_executors(manager: Manager, tmp_path: Path) -> None:
    with manager.executor() as executor:
        futures = [executor.submit(never_end, str(tmp_path), number) for number in range(2)]
        while len(list(tmp_path.glob("[01]"))) < 2:
            os.sched_yield()
        assert all(future.cancel() for future in futures)
        assert executor.submit(abs, -1).result(30) == 1


def mark_and_wait(directory: str, number: int) -> int:
    Path(directory, f"begun-{number}").touch()
    while not Path(directory, "go").exists():
        os.sched_yield()
    return number


def hear_from_worker(manager: Manager) -> None:
    """Whatever was said to the worker before has arrived there. It must have a core to spare."""
    assert manager.get({"a": (abs, -2)}, "a") == 2


def begun(directory: Path) -> set[int]:
    return {int(path.name.partition("-")[2]) for path in directory.glob("begun-*")}


@pytest.fixture
def two_and_one() -> Iterator[Manager]:
    """A manager whose worker runs two calls of ``TWO_CORES`` at once, and has a core to spare."""
    with Manager(local_workers=5) as made:
        yield made


TWO_CORES = {"cores": 2}


def test_a_cancelled_call_of_a_batch_is_not_begun(two_and_one: Manager, tmp_path: Path) -> None:
    with two_and_one.executor(resources=TWO_CORES) as executor:
        executor.submit(abs, 1).result()
        futures = [executor.submit(mark_and_wait, str(tmp_path), number) for number in range(40)]
        while len(begun(tmp_path)) < 2:
            os.sched_yield()
        wanted = sorted(begun(tmp_path))
        assert all(future.cancel() for number, future in enumerate(futures) if number not in wanted)
        hear_from_worker(two_and_one)
        Path(tmp_path, "go").touch()
        assert [futures[number].result(60) for number in wanted] == wanted
    assert begun(tmp_path) == set(wanted)


def test_a_cancelled_call_that_another_builds_on_is_made_for_it(manager: Manager) -> None:
    with manager.executor() as executor:
        first = executor.submit(abs, -3)
        second = executor.submit(abs, first)
        cancelled = first.cancel()
        if cancelled:
            assert second.exception(30) is None or isinstance(second.exception(), CancelledError)
        else:
            assert second.result(30) == 3


def test_shutdown_with_cancelling_leaves_nothing_that_has_not_begun(
    two_and_one: Manager, tmp_path: Path
) -> None:
    executor = two_and_one.executor(resources=TWO_CORES)
    for number in range(40):
        executor.submit(mark_and_wait, str(tmp_path), number)
    while len(begun(tmp_path)) < 2:
        os.sched_yield()
    executor.shutdown(cancel_futures=True)
    hear_from_worker(two_and_one)
    before = begun(tmp_path)
    Path(tmp_path, "go").touch()
    hear_from_worker(two_and_one)
    assert begun(tmp_path) == before


def test_a_module_that_makes_a_manager_at_import_is_told_what_to_do(tmp_path: Path) -> None:
    module = """
        import graphvine
        manager = graphvine.Manager(local_workers=1)
        def add(x):
            return x + 1
        def compute():
            return manager.get({"a": (add, 1)}, "a")
        """
    (tmp_path / "careless.py").write_text(textwrap.dedent(module))
    body = """
        import careless, graphvine
        try:
            careless.compute()
        except graphvine.UndecodableError as error:
            print(error)
        print(careless.manager.get({"a": (abs, -1)}, "a"))
        """
    said, one = run_script(tmp_path, body).splitlines()
    assert "module 'careless' makes a graphvine manager when it is imported" in said
    assert said.endswith('or under `if __name__ == "__main__":`')
    assert one == "1"


def nest(number: int) -> int:
    with Manager(local_workers=1) as inner:
        return int(inner.get({"a": (abs, number)}, "a"))


def test_a_task_may_make_a_manager_of_its_own(manager: Manager) -> None:
    assert manager.get({"a": (nest, -5)}, "a") == 5


@pytest.mark.parametrize("name", ["../above", "a/b", 5])
def test_a_name_that_is_no_file_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="without slashes"):
        Manager(name=name)


def test_less_than_one_local_core_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="a task asks for one core"):
        Manager(local_workers=0.5)


@pytest.mark.parametrize("cores", [float("nan"), float("inf"), -1])
def test_local_workers_that_are_no_number_of_cores_are_refused(cores: float) -> None:
    with pytest.raises(ValueError, match="number of cores"):
        Manager(local_workers=cores)


def test_an_application_in_a_zip_file_whose_user_trusts_no_directory(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/inside.py").write_text("def twice(x): return 2 * x\n")
    script = """
        import graphvine, inside
        with graphvine.Manager(local_workers=1) as manager, manager.executor() as executor:
            print(list(executor.map(inside.twice, [1, 2])), executor.submit(lambda: inside.twice(3)).result())
        """
    (tmp_path / "app/__main__.py").write_text(textwrap.dedent(script))
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    done = subprocess.run(
        [sys.executable, "-W", "error", "app.pyz"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[2, 4] 6\n", "")

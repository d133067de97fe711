"""Commands within environments: packed ones, unpacked once per node, and directories with a runner."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

import graphvine as vine
from graphvine.envs.packing import pack
from graphvine.manager.manager import Manager

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def m(cache: Path) -> Iterator[Manager]:
    with vine.Manager(local_workers=2) as manager:
        yield manager


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A packed virtual environment with a module that is nowhere else."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "venv")], check=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (root / "venv" / "lib" / version / "site-packages" / "inside.py").write_text("VALUE = 42\n")
    packed = pack(root / "venv", root / "packed.tar.gz")
    (root / "venv").rename(root / "gone")
    return packed.path


def test_commands_in_a_packed_environment(m, archive, cache):
    environment = m.declare_poncho(m.declare_url(f"file://{archive}", cache=True), cache=True)
    for _ in range(6):
        task = vine.Task("python -c 'import sys, inside; print(inside.VALUE, sys.prefix)'", cores=1)
        task.add_poncho_package(environment)
        m.submit(task)
    outputs = set()
    while not m.empty():
        task = m.wait(120)
        assert task.successful(), (task.reason, task.output)
        outputs.add(task.output)
    (output,) = outputs
    value, prefix = output.split()
    assert value == "42"
    assert prefix.startswith(str(cache))


def test_an_archive_is_unpacked_once_whoever_needs_it(m, archive, cache):
    command = vine.Task("python -c 'import sys; print(sys.prefix)'", cores=1)
    command.add_environment(m.declare_poncho(archive))
    function = vine.PythonTask(getattr, sys, "prefix")
    function.set_environment(archive)
    for task in (command, function):
        m.submit(task)
        assert m.wait(120) is task
        assert task.successful(), (task.reason, task.output)
    of_graph = m.get({"x": (getattr, sys, "prefix")}, "x", environment=archive)
    assert command.output.strip() == function.output == of_graph
    assert len(list(cache.glob("*.json"))) == 1


def test_the_same_bytes_are_unpacked_once_wherever_they_come_from(m, archive, cache):
    """By a URL, by its path, for commands and functions."""
    by_url, by_path = m.declare_url(f"file://{archive}", cache=True), m.declare_file(archive, cache=True)
    prefixes = set()
    for file in (by_url, by_path):
        command = vine.Task("python -c 'import sys; print(sys.prefix)'", cores=1)
        command.add_environment(m.declare_poncho(file))
        function = vine.PythonTask(getattr, sys, "prefix")
        function.add_environment(m.declare_poncho(file))
        for task in (command, function):
            m.submit(task)
            assert m.wait(120) is task
            assert task.successful(), task.reason
            prefixes.add(task.output.strip())
    assert len(prefixes) == 1
    assert len(list(cache.glob("*.use"))) == 1


def test_a_damaged_archive(m, archive, tmp_path):
    damaged = tmp_path / "damaged.tar.gz"
    data = Path(archive).read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    task = vine.Task("python -c pass", cores=1)
    task.add_environment(m.declare_environment(m.declare_url(f"file://{damaged}")))
    m.submit(task)
    assert m.wait(120) is task
    assert task.result == "input missing"
    assert "its environment" in task.reason


def test_an_execution_context_of_a_mini_task(m):
    runner = '#!/bin/sh\necho within; WITHIN=yes exec "$@"\n'
    task = vine.Task("chmod 755 context/bin/run_in_env")
    task.add_input(m.declare_buffer(runner), "context/bin/run_in_env")
    context = m.declare_mini_task(task, "context", cache=True)
    task = vine.Task('echo $WITHIN | sed "s/y/Y/"; exit 4', cores=1)
    task.add_execution_context(context)
    m.submit(task)
    assert m.wait(60) is task
    assert (task.output, task.exit_code) == ("within\nYes\n", 4)


def test_what_is_no_execution_context_is_said(m, tmp_path):
    (tmp_path / "empty").mkdir()
    runner = tmp_path / "forgotten" / "bin" / "run_in_env"
    runner.parent.mkdir(parents=True)
    runner.write_text('#!/bin/sh\nexec "$@"\n')
    for name, why in (("empty", "it has no bin"), ("forgotten", "run_in_env is not executable")):
        task = vine.Task("echo ran", cores=1)
        task.add_execution_context(m.declare_file(tmp_path / name))
        m.submit(task)
        assert m.wait(60) is task
        assert (task.result, task.output, task.exit_code) == ("input missing", "", -1)
        assert why in task.reason


def test_a_starch_package(m, tmp_path):
    package = tmp_path / "package.sfx"
    package.write_text(
        """#!/bin/sh
        [ "$SFX_EXTRACT_ONLY" = 1 ] || exit 9
        mkdir -p $SFX_DIR/bin $SFX_DIR/lib $SFX_DIR/env
        printf '#!/bin/sh\\necho tool with $SETTING, $LD_LIBRARY_PATH\\n' > $SFX_DIR/bin/tool
        printf 'export SETTING=set\\n' > $SFX_DIR/env/settings
        printf '#!/bin/sh\\n' > $SFX_DIR/run.sh
        chmod 755 $SFX_DIR/bin/tool $SFX_DIR/run.sh
        """
    )
    package.chmod(0o755)
    task = vine.Task("tool | sed s,/.*/,,; exit 3", cores=1)
    task.add_starch_package(m.declare_starch(str(package)))
    m.submit(task)
    assert m.wait(60) is task
    assert (task.output, task.exit_code) == ("tool with set, lib\n", 3), task.reason


def inside() -> tuple[int, str]:
    import inside  # type: ignore[import-not-found]

    return inside.VALUE, sys.prefix


def test_python_tasks_and_libraries_in_a_packed_environment(m, archive, cache):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with_path = vine.PythonTask(inside)
        with_path.set_environment(archive)
        with_file = vine.PythonTask(inside)
        with_file.add_environment(m.declare_poncho(m.declare_url(f"file://{archive}", cache=True)))
        m.install_library(m.create_library_from_functions("lib", inside, poncho_env=archive))
        for task in (with_path, with_file, vine.FunctionCall("lib", "inside")):
            m.submit(task)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    m.submit(vine.PythonTask(sys.intern, "outside"))
    outputs = set()
    while not m.empty():
        task = m.wait(120)
        assert task.successful(), (task.reason, task.output)
        outputs.add(task.output)
    outputs.remove("outside")
    assert {value for value, _ in outputs} == {42}
    assert all(prefix.startswith(str(cache)) for _, prefix in outputs)


def test_a_python_task_in_what_is_no_environment(m, tmp_path):
    (tmp_path / "wrong.tar.gz").write_bytes(b"no archive" * 1000)
    task = vine.PythonTask(len, "three")
    task.set_environment(str(tmp_path / "wrong.tar.gz"))
    m.submit(task)
    assert m.wait(120) is task
    assert task.result == "input missing"
    assert isinstance(task.output, vine.EnvironmentUnusableError)
    assert isinstance(task.output, vine.PythonTaskNoResult)

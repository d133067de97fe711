"""The public names: one list, lazily resolved, the same for people, type checkers and ``import *``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import graphvine

SOURCE = Path(graphvine.__file__)

PUBLIC = {
    "DaskVine",
    "DaskVineDag",
    "DeployError",
    "EnvironmentUnusableError",
    "Factory",
    "File",
    "FutureFunctionCall",
    "FuturePythonTask",
    "FuturesExecutor",
    "Function",
    "FunctionCall",
    "FunctionCallNoResult",
    "GivenFileError",
    "GraphError",
    "GraphvineError",
    "HTCondorCluster",
    "LibraryError",
    "LibraryTask",
    "LocalCluster",
    "Manager",
    "ManagerClosedError",
    "MissingKeyError",
    "NestedManagerError",
    "NoWorkerError",
    "NotPicklableError",
    "ResultNotPicklableError",
    "PortInUseError",
    "PythonTask",
    "PythonTaskNoResult",
    "RemoteTraceback",
    "SlurmCluster",
    "StorageError",
    "Task",
    "TaskError",
    "TaskKilledError",
    "TaskTimeoutError",
    "TemplateCluster",
    "UndecodableError",
    "VineFuture",
    "futures",
    "load_variable_from_library",
    "__version__",
}


def names_for_type_checkers() -> set[str]:
    tree = ast.parse(SOURCE.read_text())
    blocks = [n for n in tree.body if isinstance(n, ast.If)]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_the_list_is_the_list():
    # Adding or removing a public name is a decision: it is made here too.
    assert set(graphvine.__all__) == PUBLIC
    assert len(graphvine.__all__) == len(PUBLIC)


def test_type_checkers_see_the_same_names():
    assert names_for_type_checkers() == PUBLIC - {"__version__"}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_name_resolves_and_is_listed(name):
    assert getattr(graphvine, name) is not None
    assert name in dir(graphvine)


def test_dask_vine_is_the_manager():
    assert graphvine.DaskVine is graphvine.Manager


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Mangler'"):
        _ = graphvine.Mangler


def test_errors_are_all_public():
    from graphvine.protocol import errors

    ours = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    assert ours <= PUBLIC


def test_importing_it_loads_nothing_heavy():
    script = (
        "import sys, graphvine\n"
        "print([m for m in ('dask', 'zmq', 'msgspec', 'asyncio', 'graphvine.manager') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_manager_is_there_before_what_only_its_work_needs():
    script = (
        "import sys, graphvine\n"
        "graphvine.Manager\n"
        "print([m for m in ('dask', 'cloudpickle', 'psutil', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

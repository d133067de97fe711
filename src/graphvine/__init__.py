"""graphvine runs dask graphs on clusters: one manager, many workers, data that stays where it was made.

The public names are those of ``_HOME``; each is imported when it is first used, so that ``import graphvine``
costs next to nothing on a worker or a command line. TaskVine's modules and constants are there as well, under
their names (``vine.utils``, ``vine.VINE_RESULT_SUCCESS``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors: the names of _HOME, no others (a test compares them)
    from graphvine import futures as futures
    from graphvine.dask_adapter.reshape import DaskVineDag as DaskVineDag
    from graphvine.deploy.cluster import HTCondorCluster as HTCondorCluster
    from graphvine.deploy.cluster import LocalCluster as LocalCluster
    from graphvine.deploy.cluster import SlurmCluster as SlurmCluster
    from graphvine.deploy.cluster import TemplateCluster as TemplateCluster
    from graphvine.deploy.errors import DeployError as DeployError
    from graphvine.deploy.vine import Factory as Factory
    from graphvine.manager.manager import Manager as DaskVine  # noqa: F401 -- a second public name
    from graphvine.manager.manager import Manager as Manager
    from graphvine.protocol.errors import EnvironmentUnusableError as EnvironmentUnusableError
    from graphvine.protocol.errors import GivenFileError as GivenFileError
    from graphvine.protocol.errors import GraphError as GraphError
    from graphvine.protocol.errors import GraphvineError as GraphvineError
    from graphvine.protocol.errors import LibraryError as LibraryError
    from graphvine.protocol.errors import ManagerClosedError as ManagerClosedError
    from graphvine.protocol.errors import MissingKeyError as MissingKeyError
    from graphvine.protocol.errors import NestedManagerError as NestedManagerError
    from graphvine.protocol.errors import NotPicklableError as NotPicklableError
    from graphvine.protocol.errors import NoWorkerError as NoWorkerError
    from graphvine.protocol.errors import PortInUseError as PortInUseError
    from graphvine.protocol.errors import RemoteTraceback as RemoteTraceback
    from graphvine.protocol.errors import ResultNotPicklableError as ResultNotPicklableError
    from graphvine.protocol.errors import StorageError as StorageError
    from graphvine.protocol.errors import TaskError as TaskError
    from graphvine.protocol.errors import TaskKilledError as TaskKilledError
    from graphvine.protocol.errors import TaskTimeoutError as TaskTimeoutError
    from graphvine.protocol.errors import UndecodableError as UndecodableError
    from graphvine.taskvine.files import File as File
    from graphvine.taskvine.futures import FutureFunctionCall as FutureFunctionCall
    from graphvine.taskvine.futures import FuturePythonTask as FuturePythonTask
    from graphvine.taskvine.futures import FuturesExecutor as FuturesExecutor
    from graphvine.taskvine.futures import VineFuture as VineFuture
    from graphvine.taskvine.libraries import Function as Function
    from graphvine.taskvine.libraries import FunctionCall as FunctionCall
    from graphvine.taskvine.libraries import LibraryTask as LibraryTask
    from graphvine.taskvine.python import FunctionCallNoResult as FunctionCallNoResult
    from graphvine.taskvine.python import PythonTask as PythonTask
    from graphvine.taskvine.python import PythonTaskNoResult as PythonTaskNoResult
    from graphvine.taskvine.task import Task as Task
    from graphvine.worker.library import load_variable as load_variable_from_library  # noqa: F401 -- TaskVine's

__version__ = "0.1.0.dev0"

_MANAGER = "graphvine.manager.manager:Manager"
_CLUSTER = "graphvine.deploy.cluster:"
_ERRORS = "graphvine.protocol.errors:"

#: Every public name, and where it lives.
_HOME = {
    "DaskVine": _MANAGER,
    "DaskVineDag": "graphvine.dask_adapter.reshape:DaskVineDag",
    "DeployError": "graphvine.deploy.errors:DeployError",
    "EnvironmentUnusableError": _ERRORS + "EnvironmentUnusableError",
    "Factory": "graphvine.deploy.vine:Factory",
    "File": "graphvine.taskvine.files:File",
    "Function": "graphvine.taskvine.libraries:Function",
    "FunctionCall": "graphvine.taskvine.libraries:FunctionCall",
    "FunctionCallNoResult": "graphvine.taskvine.python:FunctionCallNoResult",
    "FutureFunctionCall": "graphvine.taskvine.futures:FutureFunctionCall",
    "FuturePythonTask": "graphvine.taskvine.futures:FuturePythonTask",
    "FuturesExecutor": "graphvine.taskvine.futures:FuturesExecutor",
    "GivenFileError": _ERRORS + "GivenFileError",
    "GraphError": _ERRORS + "GraphError",
    "GraphvineError": _ERRORS + "GraphvineError",
    "HTCondorCluster": _CLUSTER + "HTCondorCluster",
    "LibraryError": _ERRORS + "LibraryError",
    "LibraryTask": "graphvine.taskvine.libraries:LibraryTask",
    "LocalCluster": _CLUSTER + "LocalCluster",
    "Manager": _MANAGER,
    "ManagerClosedError": _ERRORS + "ManagerClosedError",
    "MissingKeyError": _ERRORS + "MissingKeyError",
    "NestedManagerError": _ERRORS + "NestedManagerError",
    "NoWorkerError": _ERRORS + "NoWorkerError",
    "NotPicklableError": _ERRORS + "NotPicklableError",
    "ResultNotPicklableError": _ERRORS + "ResultNotPicklableError",
    "PortInUseError": _ERRORS + "PortInUseError",
    "PythonTask": "graphvine.taskvine.python:PythonTask",
    "PythonTaskNoResult": "graphvine.taskvine.python:PythonTaskNoResult",
    "RemoteTraceback": _ERRORS + "RemoteTraceback",
    "SlurmCluster": _CLUSTER + "SlurmCluster",
    "StorageError": _ERRORS + "StorageError",
    "Task": "graphvine.taskvine.task:Task",
    "TaskError": _ERRORS + "TaskError",
    "TaskKilledError": _ERRORS + "TaskKilledError",
    "TaskTimeoutError": _ERRORS + "TaskTimeoutError",
    "TemplateCluster": _CLUSTER + "TemplateCluster",
    "UndecodableError": _ERRORS + "UndecodableError",
    "VineFuture": "graphvine.taskvine.futures:VineFuture",
    "futures": "graphvine.futures:",
    "load_variable_from_library": "graphvine.worker.library:load_variable",
}

#: TaskVine's other modules.
_MODULES = frozenset({"cvine", "dask_dag", "dask_executor", "file", "manager", "task", "utils"})

__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if name in _MODULES:
        return importlib.import_module(f"graphvine.{name}")
    if name.startswith("VINE_"):
        return getattr(importlib.import_module("graphvine.cvine"), name)
    if home is None:
        raise AttributeError(f"module 'graphvine' has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

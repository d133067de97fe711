"""TaskVine's modules and constants, as scripts spell them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import graphvine as vine

NAMES = {
    "manager": ["Manager", "Factory"],
    "task": [
        "Task",
        "PythonTask",
        "PythonTaskNoResult",
        "FunctionCall",
        "FunctionCallNoResult",
        "LibraryTask",
        "Function",
    ],
    "file": ["File"],
    "futures": [
        "FuturesExecutor",
        "FuturePythonTask",
        "FutureFunctionCall",
        "VineFuture",
        "wait",
        "as_completed",
    ],
    "dask_executor": ["DaskVine", "DaskVineDag"],
    "dask_dag": ["DaskVineDag"],
    "utils": ["get_c_constant", "load_variable_from_library"],
    "cvine": ["VINE_RESULT_SUCCESS", "VINE_SCHEDULE_FILES", "VINE_DEFAULT_PORT"],
}


@pytest.mark.parametrize("module", NAMES)
def test_each_module_has_what_scripts_import_from_it(module):
    found = importlib.import_module(f"graphvine.{module}")
    for name in NAMES[module]:
        same = getattr(vine, name, None)
        assert getattr(found, name) is not None
        assert same is None or same is getattr(found, name)


@pytest.mark.parametrize("module", NAMES)
def test_they_are_there_without_an_import_of_their_own(module):
    script = f"import graphvine as vine; print(vine.{module}.{NAMES[module][0]} is not None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_constants_are_what_is_given_and_taken():
    assert vine.VINE_RESULT_SUCCESS == vine.cvine.VINE_RESULT_SUCCESS == "success"
    assert vine.utils.get_c_constant("result_max_wall_time") == "max wall time"
    assert vine.VINE_WAIT_FOREVER == "wait_forever"
    from graphvine.taskvine import results

    words = {value for name, value in vars(results).items() if name.isupper() and isinstance(value, str)}
    assert words <= {getattr(vine.cvine, name) for name in dir(vine.cvine) if name.startswith("VINE_RESULT_")}
    for missing in (
        lambda: vine.VINE_NO_SUCH,
        lambda: vine.manager.Mangler,
        lambda: vine.utils.get_c_constant("no"),
    ):
        with pytest.raises(AttributeError):
            missing()


def test_a_function_has_its_name_and_the_library_s_context():
    def context(x):
        return {"x": x}

    from graphvine.taskvine import libraries

    named = vine.Function("other", len, context, [1])
    library = libraries.make("name", [abs, named], None, None, None)
    assert library._setup.functions == {"abs": abs, "other": len}
    assert (library._setup.function, tuple(library._setup.args)) == (context, (1,))
    assert vine.Function(None, abs).name == "abs"
    with pytest.raises(ValueError, match="several contexts"):
        libraries.make("name", [named, vine.Function("third", len, context)], None, None, None)
    with pytest.raises(TypeError, match="cannot be called"):
        vine.Function("x", 3)  # type: ignore[arg-type]


def test_a_mini_task_s_only_output_is_what_it_is():
    from graphvine.taskvine.declaring import _only_output
    from graphvine.taskvine.files import Temp

    task = vine.Task("true")
    with pytest.raises(ValueError, match="has 0 outputs"):
        _only_output(task)
    task.add_output(Temp(None, "workflow"), "made")
    assert _only_output(task) == "made"

"""TaskVine's module of this name."""

from graphvine import Function as Function
from graphvine import FunctionCall as FunctionCall
from graphvine import FunctionCallNoResult as FunctionCallNoResult
from graphvine import LibraryTask as LibraryTask
from graphvine import PythonTask as PythonTask
from graphvine import PythonTaskNoResult as PythonTaskNoResult
from graphvine import Task as Task

"""The options that TaskVine's DaskVine takes beside ours: checked, and what becomes of each.

Many of them turn a knob that there is not here. These are looked at all the same (a wrong value is an error
that names the option), and then nothing is done. docs/dask.md has a row for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from inspect import isfunction
from math import inf
from types import ModuleType
from typing import Any

import msgspec

from graphvine.dask_adapter.options import as_resources
from graphvine.protocol.usage import meant

#: Ways to find out what tasks need, which come with allocation.
_ALLOCATING = ("max", "max throughput", "min waste", "greedy bucketing", "exhaustive bucketing")
_TASK_MODES = ("tasks", "function-calls")
_PRIORITY_MODES = (
    "random",
    "depth-first",
    "breadth-first",
    "longest-first",
    "shortest-first",
    "FIFO",
    "LIFO",
    "largest-input-first",
    "largest-storage-footprint-first",
)
_WORKER_SCHEDULERS = ("fcfs", "files", "time", "random", "rand", "worst", "disk", "max-available-disk")
#: Either of the two, as releases have it.
_SCHEDULING_MODES = (*_WORKER_SCHEDULERS, *_PRIORITY_MODES)
#: Only ``get`` knows how to.
_OF_GET = ("checkpoint_fn", "wrapper", "wrapper_proc", "progress_disable")
#: What dask, or users of its other schedulers, pass to any scheduler; it means nothing here.
_IGNORED = frozenset(
    {
        "num_workers",
        "pool",
        "chunksize",
        "callbacks",
        "cache",
        "rerun_exceptions_locally",
        "raise_exception",
        "optimize_graph",
        "optimize_function",
        "func_dumps",
        "func_loads",
        "initializer",
        "dumps",
        "loads",
        "sync",
        "asynchronous",
        "direct",
        "traverse",
    }
)
#: Those that all ways to run a graph have.
_OURS = ("resources", "retries", "priority", "environment", "env_vars", "progress")


class VineOptions(msgspec.Struct, frozen=True):
    """What is to be done about them. ``imports``: modules that executors import ahead. ``quiet``: whether no
    progress is shown; ``label``: what it is called. ``files``: what tasks find in their working directory,
    with its names there."""

    imports: tuple[str, ...] = ()
    quiet: bool = False
    label: str = ""
    verbose: bool = False
    files: tuple[tuple[Any, str], ...] = ()
    checkpoint: Callable[[Any, Any], object] | None = None
    wrapper: Callable[..., tuple[Any, Any]] | None = None
    wrapper_proc: Callable[[Any], object] = print


def read_options(options: Mapping[str, Any], of_get: bool = True) -> VineOptions:
    """What ``get`` (or ``persist`` and ``compute``) was given beyond our own. Raises TypeError for options
    that nobody knows, TypeError or ValueError for values that make no sense, and NotImplementedError."""
    _check_known(options)
    if not of_get:
        wrong = [name for name in _OF_GET if options.get(name) is not None]
        if wrong:
            raise TypeError(f"{wrong[0]} is an option of get only")
    for name, value in options.items():
        if value is not None and name in _CHECKS:
            _CHECKS[name](name, value)
    imports = [_module_name(one) for name in _MODULES for one in options.get(name) or ()]
    return VineOptions(
        imports=tuple(dict.fromkeys(imports)),
        quiet=bool(options.get("progress_disable")),
        # DaskVine's labels may begin with a colour, as in "[green]tasks".
        label=re.sub(r"\[[^]]*\]", "", options.get("progress_label") or "").strip(),
        verbose=bool(options.get("verbose")),
        files=tuple((options.get("extra_files") or {}).items()),
        checkpoint=options.get("checkpoint_fn"),
        wrapper=options.get("wrapper"),
        wrapper_proc=options.get("wrapper_proc") or print,
    )


def _check_known(options: Mapping[str, Any]) -> None:
    wrong = sorted(set(options) - _IGNORED - set(_CHECKS))
    if wrong:
        known = (*_OURS, *vine_names())
        told = f"unknown option{'s' * (len(wrong) > 1)} {', '.join(wrong)}{meant(wrong[0], known) or ';'}"
        raise TypeError(f"{told} known are {', '.join(known)}")


def vine_names() -> tuple[str, ...]:
    """The names of all of them."""
    return tuple(_CHECKS)


# -- checks: each raises TypeError, ValueError or NotImplementedError ------------------------------------


def _is_flag(name: str, value: Any) -> None:
    if not isinstance(value, (bool, int)):
        raise TypeError(f"{name} should be True or False, not {value!r}")


def _is_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value == inf or value % 1 == 0):
        raise TypeError(f"{name} should be a whole number, or None, not {value!r}")


def _is_callable(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name} should be a function, not {value!r}")


def _is_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} should be a string, not {value!r}")


def _is_one_of(*known: str) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if value not in known:
            raise ValueError(f"{name}={value!r}: there are {', '.join(map(repr, known))}")

    return check


def _is_resources_mode(name: str, value: Any) -> None:
    if value in _ALLOCATING:
        raise NotImplementedError(
            f"{name}={value!r}: resources are not allocated automatically yet, that comes later; give "
            '"fixed" or None, and state what tasks need with resources='
        )
    if value not in ("fixed", ""):
        raise ValueError(f'{name}={value!r}: there are "fixed" and None')


def _are_library_resources(name: str, value: Any) -> None:
    """With them goes how many calls a library takes at a time."""
    if isinstance(value, Mapping):
        _is_count("slots", value.get("slots", 1))
        value = {resource: amount for resource, amount in value.items() if resource != "slots"}
    _is_resources(name, value)


def _is_resources(name: str, value: Any) -> None:
    try:
        as_resources(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _are_modules(name: str, value: Any) -> None:
    if isinstance(value, (str, ModuleType)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} should be a list of modules, not {value!r}")
    for one in value:
        if not isinstance(one, (str, ModuleType)):
            raise TypeError(f"{name} should be a list of modules, but has {one!r}")


def _are_functions(name: str, value: Any) -> None:
    if not isinstance(value, Iterable) or not all(isfunction(one) or callable(one) for one in value):
        raise TypeError(f"{name} should be a list of functions, not {value!r}")


def _are_files(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f'{name} should be like {{file: "name"}}, not {value!r}')
    for remote in value.values():
        if not isinstance(remote, str) or not remote or remote.startswith("/"):
            raise ValueError(f"{name}: {remote!r} is no name in a working directory")
        if ".." in remote.split("/"):
            raise ValueError(f"{name}: {remote!r} leads out of the working directory")
    if len(set(value.values())) < len(value):
        raise ValueError(f"{name}: two files have the same name")


def _module_name(module: str | ModuleType) -> str:
    return module if isinstance(module, str) else module.__name__


_MODULES = ("lib_modules", "hoisting_modules", "import_modules")
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "extra_files": _are_files,
    "worker_transfers": _is_flag,
    "lazy_transfers": _is_flag,
    "lazy_transfer": _is_flag,
    "checkpoint_fn": _is_callable,
    "resources_mode": _is_resources_mode,
    "task_mode": _is_one_of(*_TASK_MODES),
    "submit_per_cycle": _is_count,
    "max_pending": _is_count,
    "lib_resources": _are_library_resources,
    "lib_command": _is_text,
    "lib_modules": _are_modules,
    "lib_extra_functions": _are_functions,
    "hoisting_modules": _are_modules,
    "import_modules": _are_modules,
    "progress_disable": _is_flag,
    "progress_label": _is_text,
    "task_priority_mode": _is_one_of(*_PRIORITY_MODES),
    "scheduling_mode": _is_one_of(*_SCHEDULING_MODES),
    "worker_scheduler": _is_one_of(*_WORKER_SCHEDULERS),
    "init_command": _is_text,
    "prune_depth": _is_count,
    "prune_files": _is_flag,
    "env_per_task": _is_flag,
    "low_memory_mode": _is_flag,
    "wrapper": _is_callable,
    "wrapper_proc": _is_callable,
    "verbose": _is_flag,
}

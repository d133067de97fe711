"""The parts of ``get``: waiting, and results in the shape of the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from graphvine.dask_adapter.lower import Lowered
from graphvine.manager.engine import Engine, Run


def values_of(engine: Engine, lowered: Lowered, results: list[Any]) -> dict[Any, Any]:
    """The value of every wanted key, given the plan's results; fetches what was kept before."""
    kept = list({id(one): one for one in lowered.external.values()}.values())
    fetched: dict[int, Any] = {}
    if kept:
        for one in kept:
            one.check()
        values = engine.fetch([one.file for one in kept])
        fetched = {id(one): value for one, value in zip(kept, values, strict=True)}
    return {key: lowered.value_of(key, results, fetched) for key in lowered.keys}


def start(engine: Engine, lowered: Lowered, keep: bool = False) -> Run:
    """Start a lowered plan. Raises what became of the kept results that it builds on."""
    for one in lowered.externals:
        one.check()
    return engine.run(lowered.plan, keep=keep)


def wait_for(run: Run, meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
    """The results of a run; whatever interrupts the waiting, or ``meanwhile``, cancels it."""
    try:
        meanwhile()
        return run.result()
    except (KeyboardInterrupt, SystemExit):
        with suppress(KeyboardInterrupt):
            run.cancel()
        raise


def flatten(keys: Any) -> Iterator[Any]:
    """The keys in nested lists."""
    if isinstance(keys, list):
        for key in keys:
            yield from flatten(key)
    else:
        yield keys


def nested(keys: Any, values: Mapping[Any, Any]) -> Any:
    """``values`` in the shape of ``keys``."""
    if isinstance(keys, list):
        return tuple(nested(key, values) for key in keys)
    return values[keys]

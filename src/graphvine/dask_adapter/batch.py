"""Plain calls as one plan."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dask.utils import funcname

from graphvine.dask_adapter import calls
from graphvine.dask_adapter.code import make_code
from graphvine.dask_adapter.payloads import Packer
from graphvine.envs import modules
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.protocol.futures import RunFuture
from graphvine.protocol.payload import Entry

_numbers = itertools.count()


class CallFuture(RunFuture):
    """One call, and the future of its result."""

    def __init__(
        self,
        owner: object,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        on_cancel: Callable[[RunFuture], None],
    ) -> None:
        super().__init__(on_cancel)
        self.owner = owner
        self.category = funcname(function)
        self.name = f"{self.category}-{next(_numbers)}"
        self.payload: tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]] | None = (
            function,
            args,
            kwargs,
        )
        """Function and arguments, as long as they may be needed."""
        self.file: int | None = None
        """Where its result lies on the workers, when it does."""
        self.batch: Any = None

    def failure(self) -> BaseException | None:
        """Its exception, if it is done and has one. Raises CancelledError."""
        return self.exception() if self.done() else None


class Batch:
    """What a plan is made of: calls, and the results of earlier ones that they need."""

    def __init__(self, futures: Sequence[CallFuture]) -> None:
        """``futures`` in the order of their submission."""
        self.futures = futures
        self._task_of = {id(future): task for task, future in enumerate(futures)}
        self.built_on: list[tuple[CallFuture, int]] = []
        """Results of earlier plans, with the files they were when the plan was made."""
        self._external_of: dict[int, int] = {}

    def plan(self, options: TaskOptions) -> Plan:
        """Raises NotPicklableError."""
        read = [self._read(future, options.retries) for future in self.futures]
        names = dict.fromkeys(future.category for future in self.futures)
        number = {name: index for index, name in enumerate(names)}
        category_of = array("l", [number[future.category] for future in self.futures])
        keys = [future.name for future in self.futures]
        found = modules.find()
        packer = Packer([entry for entry, _ in read], keys, found.by_value)
        blobs = packer.pack(category_of)
        return Plan(
            keys=keys,
            inputs=[inputs for _, inputs in read],
            blobs=blobs.data,
            blob_of=blobs.blob_of,
            blob_index=blobs.index,
            categories=list(names),
            category_of=category_of,
            wanted=list(range(len(keys))),
            externals=[file for _, file in self.built_on],
            default_options=options,
            code=make_code(found, packer.sample),
            label=next(iter(names)),
            separate=True,
            outcomes=False,
        )

    def _read(self, future: CallFuture, retries: int) -> tuple[Entry, tuple[int, ...]]:
        assert future.payload is not None, "a call that is not done has its arguments"
        function, args, kwargs = future.payload
        slots: dict[int, int] = {}
        args, kwargs = self._slotted(args, future, slots), self._slotted(kwargs, future, slots)
        return (calls.call, (future.name, function, args, kwargs, retries), None), tuple(slots)

    def _slotted(self, value: Any, future: CallFuture, slots: dict[int, int]) -> Any:
        """``value`` with slots in place of futures, at any depth."""
        kind = type(value)
        if kind is CallFuture and value.owner is future.owner:
            return self._slot(value, slots)
        if kind in (list, tuple, set, frozenset):
            return kind(self._slotted(part, future, slots) for part in value)
        if kind is dict:
            return {
                self._slotted(key, future, slots): self._slotted(part, future, slots)
                for key, part in value.items()
            }
        return value

    def _slot(self, needed: CallFuture, slots: dict[int, int]) -> Any:
        task = self._task_of.get(id(needed))
        if task is None:
            if needed.file is None:
                # Its plan could not be made, so it is nowhere, and has failed.
                return needed.result()
            task = self._external(needed, needed.file)
        return calls.Slot(slots.setdefault(task, len(slots)))

    def _external(self, needed: CallFuture, file: int) -> int:
        number = self._external_of.get(id(needed))
        if number is None:
            self.built_on.append((needed, file))
            number = self._external_of[id(needed)] = -len(self.built_on)
        return number


def dependencies(value: Any) -> list[CallFuture]:
    """The futures in ``value``, at any depth."""
    if isinstance(value, CallFuture):
        return [value]
    if type(value) in (list, tuple, set, frozenset):
        return [future for part in value for future in dependencies(part)]
    if type(value) is dict:
        return [future for item in value.items() for part in item for future in dependencies(part)]
    return []

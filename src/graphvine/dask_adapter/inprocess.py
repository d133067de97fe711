"""An engine that runs plans in this process, through the same bytes a cluster would see."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

from graphvine.dask_adapter.client import DaskClient
from graphvine.manager.engine import Outcome, Progress, Run
from graphvine.manager.plan import GivenValue, Plan
from graphvine.protocol import payload, values
from graphvine.protocol.errors import NoWorkerError
from graphvine.protocol.outcomes import Failed


def round_trip(value: Any) -> Any:
    """``value`` as it looks after a journey."""
    data, buffers = values.dumps(value)
    if not buffers:
        return values.loads_inline(data)
    view = memoryview(bytearray(b"".join(bytes(piece) for piece in values.layout(data, buffers))))
    return values.loads(view)


class InProcessEngine(DaskClient):
    """Implements ``engine.Engine`` and has its dask face. Everything is done by the time ``run`` returns."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[Plan] = []
        self.files: dict[int, Any] = {}
        self.released: list[int] = []
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    def run(self, plan: Plan, *, keep: bool = False) -> InProcessRun:
        check(plan)
        with self._lock:
            self.plans.append(plan)
            numbers = [next(self._numbers) for _ in plan.inputs]
        run = InProcessRun(plan, [numbers[task] for task in plan.wanted], keep)
        try:
            results = self._execute(plan)
        except Exception as error:  # noqa: BLE001 -- it is the user's, and kept for them
            run.error = error
            return run
        run.values = [results[task] for task in plan.wanted]
        if keep:
            self.files.update(zip(run.files(), run.values, strict=True))
        return run

    def _execute(self, plan: Plan) -> list[Any]:
        blobs: dict[int, Any] = {}
        results: list[Any] = []
        for task, needs in enumerate(plan.inputs):
            given = plan.given.get(task)
            if given is not None:
                assert isinstance(given, GivenValue), "files need a worker that fetches them"
                results.append(values.loads_inline(given.data))
                continue
            blob = plan.blob_of[task]
            if blob not in blobs:
                blobs[blob] = pickle.loads(plan.blobs[blob])
            inputs = [
                results[need] if need >= 0 else self._value(plan.externals[-1 - need]) for need in needs
            ]
            results.append(self._result(plan, blobs[blob][plan.blob_index[task]], inputs))
        return results

    def _result(self, plan: Plan, entry: payload.Entry, inputs: list[Any]) -> Any:
        if not plan.separate:
            return round_trip(payload.run(entry, inputs))
        try:
            value = payload.run(entry, inputs)
        except Exception as error:  # noqa: BLE001 -- it is the user's, and kept for them
            return Failed("raised", f"{type(error).__name__}: {error}", pickle.dumps(error))
        try:
            return round_trip(value)
        except Exception as error:  # noqa: BLE001 -- pickling runs user code
            return Failed("unpicklable", str(error))

    def _value(self, file: int) -> Any:
        if file not in self.files:
            raise NoWorkerError(f"file {file} is not there: it was released, or lost for good")
        return self.files[file]

    def fetch(self, files: Sequence[int]) -> list[Any]:
        return [round_trip(self._value(file)) for file in files]

    def gather(self, files: Sequence[int]) -> InProcessRun:
        run = InProcessRun(Plan([], [], [], [], [], [], [], []), list(files), keep=False)
        try:
            run.values = [self._value(file) for file in files]
        except NoWorkerError as error:
            run.error = error
        return run

    def release(self, files: Sequence[int]) -> None:
        self.released += files
        for file in files:
            self.files.pop(file, None)

    def cancel_tasks(self, files: Sequence[int]) -> None:
        """Everything is done already."""

    def worker_names(self) -> list[str]:
        return ["here"]


class InProcessRun:
    """Implements ``engine.Run``."""

    def __init__(self, plan: Plan, files: list[int], keep: bool) -> None:
        self._plan = plan
        self._files = files
        self._keep = keep
        self.values: list[Any] = []
        self.error: BaseException | None = None
        self.cancelled = False

    def result(self, timeout: float | None = None) -> list[Any]:
        if self.error is not None:
            raise self.error
        return [None] * len(self._files) if self._keep else [round_trip(value) for value in self.values]

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def forget(self, positions: Sequence[int]) -> None:
        """All of them are kept."""

    def files(self) -> list[int]:
        return self._files

    def done(self) -> bool:
        return True

    def cancel(self) -> bool:
        self.cancelled = True
        return False

    def progress(self) -> Progress:
        total = len(self._plan)
        return Progress(self._plan.label, total, total, 0, 0, 0, 1, 1.0, 0.0, True, [])

    def add_done_callback(self, callback: Callable[[Run], None]) -> None:
        callback(self)

    def add_result_callback(self, callback: Callable[[int], None]) -> None:
        for position in range(len(self.values)):
            callback(position)

    def add_outcome_callback(self, callback: Callable[[Outcome], None]) -> None:
        for position, value in enumerate(self.values if self._plan.separate else ()):
            file = self._files[position]
            outcome = Outcome(position, file, True, "", "", b"", 0, None, "here", "here", 0.0, 0.0, 0.0, 1)
            if isinstance(value, Failed):
                outcome.ok = False
                outcome.kind, outcome.text, outcome.error = value.kind, value.text, value.error
            callback(outcome)

    def add_told_callback(self, callback: Callable[[int, bytes], None]) -> None:
        """All is over: nothing runs that could say something."""

    def value(self, position: int) -> Any:
        return round_trip(self.values[position])


def check(plan: Plan) -> None:
    """What every plan must be."""
    count = len(plan)
    assert len(plan.keys) == len(plan.blob_of) == len(plan.blob_index) == len(plan.category_of) == count
    assert len(set(plan.wanted)) == len(plan.wanted)
    assert all(0 <= task < count for task in plan.wanted)
    for task, needs in enumerate(plan.inputs):
        assert type(needs) is tuple
        assert len(set(needs)) == len(needs), "each input once"
        assert all(-len(plan.externals) <= need < task for need in needs), "inputs come before their tasks"
    for category in plan.category_of:
        assert 0 <= category < len(plan.categories)
    assert all(0 <= task < count for task in plan.options)
    needed = {need for needs in plan.inputs for need in needs} | set(plan.wanted)
    assert needed >= set(range(count)), "nothing that nobody needs"

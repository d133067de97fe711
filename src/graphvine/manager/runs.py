"""The runs of a manager, as its loop sees them: plans, and fetches of kept files, that somebody waits for.

A run is *unfinished* from the moment somebody's thread asks for it; it has a plan as soon as the loop's
thread has given it to the core. Whatever becomes of the loop, no unfinished run is left without an end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError

from graphvine.manager.core import Core
from graphvine.manager.failure import exception_from
from graphvine.manager.instructions import PlanFailed
from graphvine.manager.plan import Plan
from graphvine.manager.run import NOTHING_KNOWN, ManagedRun
from graphvine.protocol.errors import ManagerClosedError
from graphvine.protocol.messages import Told


class Runs:
    """``expect`` from any thread, one at a time; all else in the loop's."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.of_plan: dict[int, ManagedRun] = {}
        self._unfinished: set[ManagedRun] = set()

    def expect(self, run: ManagedRun) -> None:
        """It will be taken, unless the loop ends before."""
        self._unfinished.add(run)

    def take(self, plan: Plan, run: ManagedRun) -> None:
        """Give its plan to the core."""
        base = self._core.on_plan(plan, run.keep, time.monotonic())
        self.of_plan[base] = run
        run.on_taken(base, [base + task for task in plan.wanted])

    def take_wanted(self, files: list[int], run: ManagedRun) -> None:
        """Tell the core that it waits for kept files."""
        plan = self._core.on_wanted(files, time.monotonic())
        self.of_plan[plan] = run
        run.on_taken(plan, files)

    def on_told(self, worker: int, told: Told) -> None:
        """A running task says something on its way."""
        runner = self._core.runner(told.task)
        # Not what another one says that had the task before, and was given up.
        if runner is not None and runner[1] == worker and runner[0] in self.of_plan:
            self.of_plan[runner[0]].on_told(told.task, told.data)

    # -- ends ------------------------------------------------------------------------------------------

    def forget(self, run: ManagedRun, positions: list[int]) -> None:
        """These results are not wanted any more."""
        if run.plan in self.of_plan:
            for position in positions:
                self._core.on_unwanted(run.plan, position, time.monotonic())

    def cancel(self, run: ManagedRun) -> None:
        if run.plan in self.of_plan:
            self._core.on_cancel_plan(run.plan, time.monotonic())
            self.finish(run.plan, CancelledError())

    def fail_all(self, error: BaseException) -> None:
        """Nothing that goes on can be finished."""
        for plan in list(self.of_plan):
            self._core.on_cancel_plan(plan, time.monotonic())
            self.finish(plan, error)

    def on_plan_failed(self, failed: PlanFailed) -> None:
        key = self._core.task_key(failed.plan, failed.task)
        self.finish(failed.plan, lambda: exception_from(failed, key))

    def finish(self, plan: int, error: BaseException | Callable[[], BaseException] | None) -> None:
        """A plan is over; ``error``: or what makes it."""
        run = self.of_plan.pop(plan, None)
        if run is not None:
            self._unfinished.discard(run)
            run.on_finished(error, self._core.progress(plan, time.monotonic()) or NOTHING_KNOWN)

    def end(self, why: str, crash: BaseException | None) -> None:
        """The loop ends: nothing more becomes of those that go on."""
        for run in list(self._unfinished):
            error = ManagerClosedError(f"{why} while this ran; make a new manager")
            error.__cause__ = crash
            run.on_finished(error, run.last or NOTHING_KNOWN)
        self._unfinished.clear()
        self.of_plan.clear()

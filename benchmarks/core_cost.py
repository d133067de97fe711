"""What the manager's core costs per task, without codec, sockets and workers.

Workers are make-believe and immediate: every turn, each answers for all it was given, in one report. The time
measured is the processor's, of ``on_plan``, of all reports, and of all turns; the best of some tries that
take turns.

    python benchmarks/core_cost.py              # how cost scales with tasks and with workers
    python benchmarks/core_cost.py --memory     # bytes per task of the core's tables, for a million tasks
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc

from harness import QUICK, Row, emit, say

from graphvine.manager.core import Core
from graphvine.manager.instructions import PlanDone, Say
from graphvine.manager.plan import Plan
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Address, Assign, Hello, Report, Resources, TaskDone

#: Of a task that does nothing, and how many workers are many.
SHORT_S = 1e-6
MANY = 400 if QUICK else 4000


def reduction(leaves: int, width: int = 16) -> Plan:
    """``leaves`` increments, sums of ``width`` upward, depth first."""
    inputs: list[tuple[int, ...]] = []
    levels: list[list[int]] = [[]]
    for _ in range(leaves):
        inputs.append(())
        levels[0].append(len(inputs) - 1)
        climb(inputs, levels, 0, width)
    for level in range(1000):
        if level == len(levels) - 1 and len(levels[level]) == 1:
            break
        climb(inputs, levels, level, 1)
    return plan_of(inputs)


def climb(inputs: list[tuple[int, ...]], levels: list[list[int]], level: int, width: int) -> None:
    """Add the sums for which there are enough summands."""
    while len(levels[level]) >= width:
        inputs.append(tuple(levels[level]))
        levels[level] = []
        level += 1
        if level == len(levels):
            levels.append([])
        levels[level].append(len(inputs) - 1)
        if width == 1:
            return


def stencil(columns: int, rows: int) -> Plan:
    """Each task needs three of the row before."""
    inputs: list[tuple[int, ...]] = [()] * columns
    for row in range(1, rows):
        below = (row - 1) * columns
        inputs += [
            tuple(below + column for column in (i - 1, i, i + 1) if 0 <= column < columns)
            for i in range(columns)
        ]
    return plan_of(inputs)


def plan_of(inputs: list[tuple[int, ...]]) -> Plan:
    """A plan of no-op tasks that all share one blob."""
    size = len(inputs)
    return Plan(
        keys=range(size),
        inputs=inputs,
        blobs=[b"blob"],
        blob_of=[0] * size,
        blob_index=range(size),
        categories=["leaf", "inner"],
        category_of=[1 if names else 0 for names in inputs],
        wanted=[size - 1],
    )


def hello(number: int, cores: float) -> Hello:
    """How a make-believe worker introduces itself."""
    address = Address(f"10.0.{number >> 8}.{number & 255}", 9123)
    capacity = Resources(cores, 8000, 8000)
    return Hello(1, "0", "3.11", f"w{number}", f"h{number}", f"n{number}", "", number, capacity, [address])


def seconds(plan: Plan, workers: int, cores: float, duration_s: float) -> float:
    """Seconds that the core takes for a plan in all."""
    core = Core(Settings())
    for number in range(1, workers + 1):
        core.on_worker_joined(number, hello(number, cores), 0.0)
    core.turn(0.0)
    gc.collect()
    clock = time.process_time
    began = clock()
    base = core.on_plan(plan, False, 0.0)
    spent = clock() - began
    while base in core.state.plans:
        began = clock()
        instructions = core.turn(0.0)
        spent += clock() - began
        reports = [
            (
                said.worker,
                Report(done=[TaskDone(order.task, 5, b"value", 0.0, duration_s) for order in message.orders]),
            )
            for said in instructions
            if isinstance(said, Say)
            for message in said.messages
            if isinstance(message, Assign)
        ]
        assert reports or any(isinstance(said, PlanDone) for said in instructions), (
            "the core has come to a stop"
        )
        began = clock()
        for number, report in reports:
            core.on_message(number, report, 0.0)
        spent += clock() - began
    return spent


Case = tuple[Plan, int, float, float]
"""A plan, workers, cores of each, and seconds that each task is said to take."""


def costs(cases: dict[str, Case], tries: int) -> dict[str, float]:
    """Microseconds per task of each case: the best of ``tries``, which take turns so that whatever else the
    machine does falls on all of them."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(tries):
        for name, (plan, workers, cores, duration_s) in cases.items():
            found[name].append(seconds(plan, workers, cores, duration_s) / len(plan) * 1e6)
    for name, times in found.items():
        plan, workers, _, _ = cases[name]
        each = " ".join(f"{time:.2f}" for time in times)
        say(f"{name:34} {len(plan):>9,} tasks {workers:>5} workers: {each} us/task")
    return {name: min(times) for name, times in found.items()}


def memory(leaves: int) -> None:
    """Print the bytes per task of the core's own tables."""
    plan = reduction(leaves)
    core = Core(Settings())
    gc.collect()
    tracemalloc.start()
    core.on_plan(plan, False, 0.0)
    gc.collect()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"memory: {now / len(plan):.0f} bytes a task after on_plan, {peak / len(plan):.0f} at its peak")


def scaling(small: Plan, large: Plan, middle: Plan) -> list[Row]:
    """How the cost of a task grows with tasks and with workers."""
    found = costs(
        {
            "few tasks": (small, 4, 1, SHORT_S),
            "many tasks": (large, 4, 1, SHORT_S),
            "many tasks, many workers": (large, MANY, 1, SHORT_S),
            "tasks of 10 ms": (middle, 4, 1, 0.01),
            "tasks of 10 ms, many workers": (middle, MANY, 1, 0.01),
        },
        tries=1 if QUICK else 3,
    )
    rounded = {name: round(cost, 2) for name, cost in found.items()}

    def row(name: str, what: str, more: str, less: str, must: str = "1.5x") -> Row:
        ratio = found[more] / found[less]
        details = {"us/task": {less: rounded[less], more: rounded[more]}}
        return Row(name, what, ratio, must, "1x", details, smaller_is_better=True)

    tasks = f"cost per task of the core: {len(small):,} to {len(large):,} tasks"
    workers = f"cost per task of the core: 4 to {MANY:,} workers"
    ends = f"the same, {len(middle):,} tasks of 10 ms: most of it beginnings and ends, a few tasks a message"
    return [
        row("core_cost_tasks", tasks, "many tasks", "few tasks"),
        row("core_cost_workers", workers, "many tasks, many workers", "many tasks"),
        row("core_cost_ends", ends, "tasks of 10 ms, many workers", "tasks of 10 ms", must=""),
    ]


def main() -> None:
    """Measure, and hand over the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", action="store_true")
    if parser.parse_args().memory:
        memory(940_000)
        return
    small = reduction(10_000)
    costs(
        {
            "reduction, 1 worker of 4 cores": (small, 1, 4, SHORT_S),
            "stencil 32 x 200, 1 worker of 4": (stencil(32, 200), 1, 4, SHORT_S),
            "stencil 32 x 200, 4 workers": (stencil(32, 200), 4, 1, SHORT_S),
        },
        tries=1 if QUICK else 5,
    )
    large = reduction(94_000 if QUICK else 940_000)
    emit(*scaling(small, large, reduction(10_000 if QUICK else 100_000)))


if __name__ == "__main__":
    main()

"""What the manager's core costs per task, without codec, sockets and workers.

Workers are make-believe and immediate: every turn, each answers for all it was given, in one report. The time
measured is that of ``on_plan``, of all reports, and of all turns. Run it with nothing else on the machine:

    python benchmarks/core_cost.py              # the reduction of 10,669 no-op tasks, and how cost scales
    python benchmarks/core_cost.py --quick      # the first alone
    python benchmarks/core_cost.py --memory     # bytes per task of the core's tables, for a million tasks
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc

from graphvine.manager.core import Core
from graphvine.manager.instructions import PlanDone, Say
from graphvine.manager.plan import Plan
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Address, Assign, Hello, Report, Resources, TaskDone


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


def show(
    name: str, plan: Plan, workers: int, cores: float = 1, tries: int = 3, duration_s: float = 1e-6
) -> float:
    """Measure and print one row. Returns microseconds per task."""
    times = [seconds(plan, workers, cores, duration_s) / len(plan) * 1e6 for _ in range(tries)]
    cost = statistics.median(times)
    print(
        f"{name:34} {len(plan):>9,} tasks {workers:>5} workers  {cost:6.2f} us/task  (best {min(times):.2f})"
    )
    return cost


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        memory(940_000)
        return
    small = reduction(10_000)
    show("reduction, 1 worker of 4 cores", small, 1, 4, tries=7)
    base = show("reduction, 4 workers", small, 4, tries=7)
    show("stencil 32 x 200, 1 worker of 4", stencil(32, 200), 1, 4, tries=5)
    show("stencil 32 x 200, 4 workers", stencil(32, 200), 4, tries=5)
    if options.quick:
        return
    million = reduction(940_000)
    large = show("reduction", million, 4, tries=3)
    print(f"    a million tasks / ten thousand: {large / base:.2f}")
    many = show("reduction", million, 4000, tries=3)
    print(f"    4,000 workers / 4: {many / large:.2f}")
    # A tenth of the tasks, and so small batches: 5 tasks a report.
    few = show("reduction, tasks of 10 ms", reduction(100_000), 4, duration_s=0.01)
    many = show("reduction, tasks of 10 ms", reduction(100_000), 4000, duration_s=0.01)
    print(f"    4,000 workers / 4, batches of 5: {many / few:.2f}")


if __name__ == "__main__":
    main()

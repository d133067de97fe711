"""Large clusters and large graphs; where data lies, and who gets the work."""

from __future__ import annotations

import pytest
from simulation.cluster import Cluster, Weather
from simulation.graphs import Graph, grid
from simulation.invariants import check_empty
from simulation.managers import SimRun
from simulation.work import Work, plain_work

from graphvine.manager.core import Core
from graphvine.manager.instructions import PlanDone, Say
from graphvine.manager.plan import Plan
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Assign, Hello, Report, Resources, TaskDone, TaskOrder
from graphvine.worker.settings import Settings as WorkerSettings

#: Real numbers: seconds and bytes of a real cluster.
SETTINGS = Settings(heartbeat_s=5.0, silent_s=30.0, inline_bytes=8192)
WEATHER = Weather(latency_s=0.0003, jitter_s=0.0002, bandwidth=1e9)


def run(cluster: Cluster, work: Work) -> SimRun:
    """Run it to its end, and see that everything is right and nothing left."""
    done = cluster.manager.run(cluster.add(work), keep=False)
    cluster.run_until(lambda: done.over, within_s=3600.0, events=10_000_000)
    assert done.done
    assert work.begun == [1] * len(work.plan), "every task ran once"
    cluster.run_for(1.0)
    check_empty(cluster)
    return done


def make_cluster(workers: int, cores: float, warm: int = 1) -> Cluster:
    cluster = Cluster(1, WEATHER, SETTINGS, WorkerSettings(warm_executors=warm), checked=False)
    for _ in range(workers):
        cluster.join(cores)
    cluster.run_for(0.2)
    return cluster


def trees(count: int, arity: int) -> Graph:
    """Sums of ``arity`` leaves each, each sum right after its leaves."""
    graph: Graph = []
    for _ in range(count):
        base = len(graph)
        graph += [()] * arity
        graph.append(tuple(range(base, base + arity)))
    return graph


def test_a_thousand_workers_share_the_work() -> None:
    graph = trees(3_125, 15)
    graph.append(tuple(range(15, len(graph), 16)))
    cluster = make_cluster(1000, 1.0)
    begin = cluster.now
    run(cluster, plain_work(graph, [0.5] * len(graph)))
    assert all(agent.begun for agent in cluster.agents), "everybody got work"
    ideal = 0.5 * len(graph) / 1000
    assert cluster.now - 1.0 - begin < 1.5 * ideal + 2.0


def test_trees_are_summed_where_their_leaves_are() -> None:
    graph = trees(400, 8)
    cluster = make_cluster(8, 2.0)
    run(cluster, plain_work(graph, [0.01] * len(graph), size=100_000))
    made = 400 * 8 * 100_000
    wanted = 400 * 100_000
    moved = cluster.transfers.moved_bytes - wanted
    assert moved < 0.1 * made


def test_a_stencil_moves_borders_not_rows() -> None:
    width, rows = 64, 40
    graph = grid(width, rows)
    cluster = make_cluster(4, 2.0)
    run(cluster, plain_work(graph, [0.01] * len(graph), size=100_000))
    read = sum(map(len, graph)) * 100_000
    assert cluster.transfers.moved_bytes < 0.35 * read


def test_a_long_tail_is_taken_over() -> None:
    """The first quarter of the tasks is slow: whoever got it must not be left alone with it."""
    count, cores = 400, 8
    durations = [1.0] * (count // 4) + [0.01] * (count - count // 4)
    cluster = make_cluster(cores, 1.0)
    begin = cluster.now
    run(cluster, plain_work([()] * count, durations))
    assert cluster.now - 1.0 - begin < 1.5 * sum(durations) / cores + 2.0


class Instant:
    """A worker that has done everything as soon as it hears of it. For what only the manager's core costs."""

    def __init__(self, core: Core, number: int) -> None:
        self.core = core
        self.number = number
        self.ran = 0
        hello = Hello(1, "0", "3.11", f"w{number}", f"h{number}", "", "", 0, Resources(4.0), [])
        core.on_worker_joined(number, hello, 0.0)

    def hear(self, orders: list[TaskOrder], now: float) -> None:
        self.ran += len(orders)
        done = [TaskDone(order.task, 8, b"12345678", now, 0.001) for order in orders]
        self.core.on_message(self.number, Report(done), now)


def drive(core: Core, workers: dict[int, Instant], plan: Plan) -> None:
    """Run a plan to its end."""
    core.on_plan(plan, False, 0.0)
    now = 0.0
    while True:
        now += 0.001
        instructions = core.turn(now)
        assert instructions, "nothing is left to do and the plan is not done"
        for instruction in instructions:
            if isinstance(instruction, PlanDone):
                return
            if isinstance(instruction, Say):
                for message in instruction.messages:
                    if isinstance(message, Assign):
                        workers[instruction.worker].hear(message.orders, now)


@pytest.mark.slow
def test_a_million_tasks_on_a_thousand_workers() -> None:
    graph = trees(62_500, 15)
    core = Core(Settings())
    workers = {number: Instant(core, number) for number in range(1, 1001)}
    drive(core, workers, plain_work(graph, [0.0] * len(graph)).plan)
    assert sum(worker.ran for worker in workers.values()) == len(graph) == 1_000_000
    assert all(worker.ran for worker in workers.values())
    assert not core.state.plans

"""What must be true of agents, and of what the manager believes of them, after every step.

(What must be true within the manager's core is ``graphvine.manager.check``.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphvine.manager import files
from graphvine.manager.tasks import DONE, STATE_NAMES
from graphvine.worker.files import STORED
from graphvine.worker.tasks import QUEUED

if TYPE_CHECKING:
    from simulation.agents import SimAgent
    from simulation.cluster import Cluster


def check_agent(agent: SimAgent) -> None:
    """The core of one agent, against itself and against its executors. After a turn."""
    core = agent.core
    check_jobs(agent)
    busy = 0.0
    for executor in core._crew.executors.values():
        numbers = [bundle.number for bundle in executor.bundles]
        assert len(set(numbers)) == len(numbers)
        assert (executor.lane is not None) == bool(numbers), f"executor {executor.number} occupies the wrong"
        if executor.lane is not None and not executor.lane.light:
            busy += executor.lane.request.cores
        known = agent.pool.executors.get(executor.number)
        if known is not None:
            there = {packet.number for packet in known.inbox}
            assert there <= set(numbers), f"executor {executor.number} has packets nobody knows of"
    assert busy <= agent.capacity.cores + 1e-6
    assert abs(core._crew._cores + busy - agent.capacity.cores) < 1e-6
    for file, value in core._files.held.items():
        if value == STORED:
            assert file in agent.store or file in agent.vanished, f"{agent.name} does not have file {file}"


def check_jobs(agent: SimAgent) -> None:
    """Every job is in exactly one place."""
    core = agent.core
    waiting: dict[int, int] = {}
    for jobs in core._files.waiters.values():
        for job in jobs:
            if core._queue.jobs.get(job.order.task) is job:
                waiting[job.order.task] = waiting.get(job.order.task, 0) + 1
    packed = {}
    for executor in core._crew.executors.values():
        for bundle in executor.bundles:
            for job in bundle.jobs:
                if job.packet == bundle.number:
                    packed[job.order.task] = job
    for task, job in core._queue.jobs.items():
        what = f"task {task} on {agent.name}"
        if job.packet == QUEUED:
            assert waiting.get(task, 0) == job.missing, f"{what} waits {waiting.get(task)}, not {job.missing}"
            assert task not in packed
        else:
            assert packed.get(task) is job, f"{what} is said to be in packet {job.packet}"
    lanes = sum(lane.size for lane in core._queue._lanes.values())
    ready = sum(1 for job in core._queue.jobs.values() if job.packet == QUEUED and not job.missing)
    assert lanes == ready, f"{agent.name}: {lanes} jobs in lanes, {ready} are ready"


def check_whereabouts(world: Cluster) -> None:
    """What the manager believes of a worker to which nothing is under way is so."""
    core = world.manager.core
    for agent in world.agents:
        worker = core.state.workers.get(agent.number) if agent.joined and agent.alive else None
        peer = world.manager.peers.identity(agent.number)
        if worker is None or peer != agent.connection.identity or agent.suspended or not quiet(agent):
            continue
        for task in worker.queue:
            assert task in agent.core._queue.jobs, f"{agent.name} was given task {task} and does not have it"
        told = {zygote.context for zygote in agent.core._nursery._zygotes.values() if zygote.told}
        ready = {core.state.zygote_of[context] for context in told}
        assert worker.ready == ready, f"{agent.name} has {ready} ready, not {worker.ready}"
        for file in set(worker.log):
            table = core.state.table_of(file)
            if table is None or table.state[file - table.base] != DONE:
                continue
            if file in worker.outbox.also().values or (agent.number, file) in world.manager.dropped:
                # It goes with the next order; or the news that it came crossed the word to drop it: whoever
                # asks for it there then gets it elsewhere.
                continue
            if agent.number in files.holders(table, file - table.base):
                assert file in agent.core._files.held, f"{agent.name} does not hold file {file}"


def quiet(agent: SimAgent) -> bool:
    """Nothing is on its way between this agent and the manager, or waits to be told."""
    inbox = agent.world.manager._inbox
    if inbox or agent._waiting or agent.core._outbox.due is not None:
        return False
    return agent.connection.up.quiet and agent.connection.down.quiet


def check_empty(world: Cluster) -> None:
    """Nothing is left of plans that are over, anywhere."""
    state = world.manager.core.state
    assert not state.plans, f"plans are left: {list(state.plans)}"
    assert not state.recalled
    for worker in state.workers.values():
        assert not worker.queue, f"worker {worker.number} still has {worker.queue}"
        assert not worker.blobs
    for agent in world.living():
        core = agent.core
        assert not core._queue.jobs, f"{agent.name} still has tasks {list(core._queue.jobs)}"
        assert not core._files.waiters, f"{agent.name} still waits for {core._files.waiters}"
        assert not core._files.held, f"{agent.name} still holds {core._files.held}"
        assert not agent.store, f"{agent.name} still stores {list(agent.store)}"


def describe(world: Cluster) -> str:
    """Where everything stands, for whoever must find out why nothing happens any more."""
    lines = []
    state = world.manager.core.state
    for table in state.plans.values():
        lines.append(f"plan {table.base}: {table.left} results left, over: {table.over}")
        for index in range(table.size):
            if table.state[index] < DONE or index in table.wanted_by:
                lines.append(
                    f"  task {table.base + index}: {STATE_NAMES[table.state[index]]}, "
                    f"waits {table.waits[index]}, where {table.where[index]}, extra {table.extra.get(index)}"
                )
    for worker in state.workers.values():
        lines.append(
            f"worker {worker.number} ({worker.hello.name}): queue {list(worker.queue)}, heap {worker.heap}, "
            f"share {worker.share}, asked {worker.asked}, alone {worker.alone}"
        )
    for agent in world.living():
        jobs = {task: (job.packet, job.missing) for task, job in agent.core._queue.jobs.items()}
        crew = agent.core._crew.executors.values()
        lines.append(
            f"{agent.name} as {agent.number}: joined {agent.joined}, suspended {agent.suspended}, "
            f"jobs {jobs}, held {list(agent.core._files.held)}, fetches {agent.core._files._fetches}, "
            f"relays {agent.core._files._relays}, executors "
            f"{[(e.number, e.ready, [b.number for b in e.bundles]) for e in crew]}"
        )
    return "\n".join(lines[:300])

"""Workers that get no tasks: those of hosts that the user has no trust in, until they are unblocked. And all
workers, until as many are there as the user wants to begin with.

What such a worker holds counts, and what it runs goes on; what it was given and has not begun is called back.
"""

from __future__ import annotations

import heapq

from graphvine.manager import lifetimes, recovery
from graphvine.manager.state import State
from graphvine.manager.workers import Worker


def block(state: State, host: str, until: float | None) -> None:
    """No tasks for the workers of this host, or name, until then (None: for ever)."""
    state.blocked[host] = until
    for worker in state.named.get(host, {}).values():
        if not worker.blocked:
            shut(state, worker)


def shut(state: State, worker: Worker) -> None:
    """Take from a worker what it has not begun, and its place in every pool."""
    worker.blocked = True
    for pool in worker.pools:
        pool.part(worker)
    worker.pools = []
    if worker.draining:
        heapq.heappush(state.suspects, worker.draining)
        worker.draining = 0
        state.lonely.discard(worker.number)
    recovery.replace(state, worker.heap)
    recovery.replace(state, worker.share)
    worker.heap, worker.share = [], []
    for task, thief in state.recalled.items():
        if thief == worker.number:
            state.recalled[task] = 0
    worker.asked = 0
    recovery.call_back_queue(state, worker)
    state.mark(worker)


def unblock(state: State, host: str | None) -> None:
    """Tasks for the workers of this host, or name, again (None: of all)."""
    for name in [host] if host is not None else list(state.blocked):
        state.blocked.pop(name, None)
        for worker in state.named.get(name, {}).values():
            if worker.blocked and not is_blocked(state, worker):
                worker.blocked = False
                enter(state, worker)


def enter(state: State, worker: Worker) -> None:
    """A worker may be given tasks: it is in every pool that admits it."""
    for pool in state.pools.values():
        if pool.admits(worker):
            pool.join(worker)
    lifetimes.unpark(state, worker)
    state.mark(worker)


def is_blocked(state: State, worker: Worker) -> bool:
    """Whether its host or its name is blocked, or it is about to leave, or more workers are waited for."""
    nobody = worker.number in state.departures or state.awaited_workers > 0
    return nobody or worker.hello.host in state.blocked or worker.hello.name in state.blocked


def await_workers(state: State, count: int) -> None:
    """No tasks for anybody before so many workers are there; from then on they may come and go."""
    state.awaited_workers = count if len(state.workers) < count else 0
    for worker in state.workers.values():
        blocked = is_blocked(state, worker)
        if blocked and not worker.blocked:
            shut(state, worker)
        elif worker.blocked and not blocked:
            worker.blocked = False
            enter(state, worker)


def on_joined(state: State) -> None:
    """One more worker is there."""
    if state.awaited_workers:
        await_workers(state, state.awaited_workers)


def deadline(state: State) -> float | None:
    """When the next one is to be unblocked."""
    return min((until for until in state.blocked.values() if until is not None), default=None)


def on_time(state: State) -> None:
    """Unblock those whose time is over."""
    for host, until in list(state.blocked.items()):
        if until is not None and until <= state.now:
            unblock(state, host)

"""Wanted and kept results, and how a plan ends.

Rules:

- Each wanted result of a plan that is not kept holds its file until it was handed over: a small one at once,
  with its value; a large one when the loop has fetched it. Then the plan is done.
- A kept plan is done when all its wanted files exist at once. Their hold lasts until they are released by
  name.
- A plan that is over stays in the tables as long as something of it is kept, or a living plan names its
  files: so that what was lost can be made again. When it goes, so do its files and blobs, everywhere.
"""

from __future__ import annotations

from graphvine.manager import environments
from graphvine.manager.files import drop, drop_everywhere, holders, needless
from graphvine.manager.instructions import Available, Death, PlanDone, PlanFailed
from graphvine.manager.plan import GivenFile
from graphvine.manager.state import State
from graphvine.manager.tasks import DISPATCHED, DONE, PlanTable
from graphvine.manager.withdrawal import cancel_order
from graphvine.protocol.outcomes import OutcomeKind


def watch(table: PlanTable) -> None:
    """Note who waits for the wanted files of a new plan, and put a hold on each."""
    for position, (origin, index) in enumerate(wanted_of(table)):
        origin.wanted_by.setdefault(index, []).append((table, position))
        origin.need[index] += 1


def wanted_of(table: PlanTable) -> list[tuple[PlanTable, int]]:
    """Table and index of each wanted file: the plan's own, or its externals when it has no tasks."""
    if table.size:
        return [(table, number - table.base) for number in table.wanted_files]
    return list(table.origins)


def announce(state: State, table: PlanTable, index: int) -> None:
    """A wanted file exists (again)."""
    for plan, position in list(table.wanted_by.get(index, ())):
        if plan.keep:
            plan.left -= 1
        else:
            offer(state, plan, position, table, index)
        if not plan.left:
            finish(state, plan)


def announce_to(state: State, plan: PlanTable, table: PlanTable, index: int) -> None:
    """A plan without tasks wants a file that exists."""
    for position, wanted in enumerate(wanted_of(plan)):
        if wanted == (table, index) and (plan, position) in table.wanted_by.get(index, ()):
            offer(state, plan, position, table, index)


def offer(state: State, plan: PlanTable, position: int, table: PlanTable, index: int) -> None:
    """Hand over a small wanted result, or say where a large one is."""
    data = table.data[index]
    number = table.base + index
    size = table.size_of(index)
    given = table.staged.get(index) or table.plan.given.get(index)
    if isinstance(data, bytes):
        state.tell(Available(plan.base, position, number, size, data, []))
        handed_over(state, plan, position, table, index)
    else:
        said = Available(plan.base, position, number, size, None, holders(table, index))
        if isinstance(given, GivenFile):
            said.path, said.tree = given.path, given.tree
        state.tell(said)


def handed_over(state: State, plan: PlanTable, position: int, table: PlanTable, index: int) -> None:
    """A wanted result is in the user's hands."""
    watchers = table.wanted_by.get(index, [])
    if (plan, position) not in watchers:
        return
    unwatch(table, index, plan, position)
    plan.left -= 1
    release_hold(state, table, index)


def unwatch(table: PlanTable, index: int, plan: PlanTable, position: int) -> None:
    """Nobody waits any more for this result at this place."""
    watchers = table.wanted_by[index]
    watchers.remove((plan, position))
    if not watchers:
        del table.wanted_by[index]


def release_hold(state: State, table: PlanTable, index: int) -> None:
    """One hold on a file is gone."""
    table.need[index] -= 1
    if not table.need[index]:
        needless(state, table, index)


def release_kept(state: State, plan: PlanTable, index: int) -> None:
    """The user needs a kept file no longer. A plan that is going on need not make it any more."""
    plan.kept.remove(index)
    for watcher, position in list(plan.wanted_by.get(index, ())):
        if watcher is plan:
            unwatch(plan, index, plan, position)
            plan.left -= plan.state[index] != DONE
    release_hold(state, plan, index)
    if not plan.left:
        finish(state, plan)
    free_if_unused(state, plan)


def offer_again(state: State, table: PlanTable, index: int) -> None:
    """Say anew where a wanted file is, or that it is lost: the holders changed."""
    for plan, position in list(table.wanted_by.get(index, ())):
        if not plan.keep:
            offer(state, plan, position, table, index)
        if not plan.left:
            finish(state, plan)


def unavailable(table: PlanTable, index: int) -> None:
    """A wanted file that existed does not exist any more."""
    for plan, _ in table.wanted_by.get(index, ()):
        if plan.keep:
            plan.left += 1


# -- the end of a plan ----------------------------------------------------------------------------------


def finish(state: State, plan: PlanTable) -> None:
    """Every wanted result was handed over, or exists and is kept."""
    if plan.over:
        return
    state.tell(PlanDone(plan.base))
    close(state, plan)


def close(state: State, plan: PlanTable) -> None:
    """The plan is over: nothing of it is wanted any more but what is kept."""
    plan.over = True
    plan.ended = state.now
    for position, (origin, index) in enumerate(wanted_of(plan)):
        if (plan, position) in origin.wanted_by.get(index, ()):
            unwatch(origin, index, plan, position)
            if not plan.keep:
                release_hold(state, origin, index)
    free_if_unused(state, plan)


def free_if_unused(state: State, plan: PlanTable) -> None:
    """Free a plan that is over, of which nothing is kept and which no living plan names; then its origins."""
    if plan.over and not plan.kept and not plan.refs and plan.base in state.plans:
        free(state, plan)


def free(state: State, plan: PlanTable) -> None:
    """Stop what still runs of a plan, drop its files and blobs, forget its tables."""
    state.remove_table(plan)
    stop(state, plan)
    for index in plan.in_state(DONE):
        drop_everywhere(state, plan, index)
    for blob, at in enumerate(plan.blob_at):
        number = plan.blob_base + blob
        for worker in at:
            drop(state, worker, number)
            state.workers[worker].blobs.discard(number)
    leave_origins(state, plan)
    state.leave_pools(plan)


def stop(state: State, plan: PlanTable) -> None:
    """Cancel what was given to workers of a plan, and what would be done with it elsewhere."""
    for index in plan.in_state(DISPATCHED):
        cancel_order(state, plan, index)
        if index in plan.extra:
            drop_everywhere(state, plan, index)


def leave_origins(state: State, plan: PlanTable) -> None:
    """A plan names the files of others no longer."""
    environments.let_go(state, plan)
    origins = {origin.base: origin for origin, _ in plan.origins}
    for origin in origins.values():
        for index in {index for table, index in plan.origins if table is origin}:
            users = origin.foreign.get(index)
            if users is not None:
                _leave_file(state, plan, origin, index, users)
        origin.refs -= 1
        free_if_unused(state, origin)


def _leave_file(
    state: State, plan: PlanTable, origin: PlanTable, index: int, users: list[tuple[PlanTable, int]]
) -> None:
    unfinished = sum(1 for table, task in users if table is plan and plan.state[task] < DONE)
    users[:] = [(table, task) for table, task in users if table is not plan]
    if not users:
        del origin.foreign[index]
    if unfinished:
        origin.need[index] -= unfinished
        if not origin.need[index]:
            needless(state, origin, index)


# -- failing --------------------------------------------------------------------------------------------


def fail(
    state: State, table: PlanTable, index: int, kind: OutcomeKind, text: str, error: bytes = b""
) -> None:
    """A task that does not stand alone failed for good: its plan fails, and every plan that builds on that
    one and is not whole."""
    tries = table.tries.get(index, [])
    reported = fail_plan(state, table, index, kind, text, error, tries)
    doomed = [table]
    while doomed:
        origin = doomed.pop()
        if not origin.refs:
            continue
        for plan in list(state.plans.values()):
            names = [-1 - i for i, (source, _) in enumerate(plan.origins) if source is origin]
            if names and plan.base in state.plans and not is_whole(plan):
                fail_plan(state, plan, names[0], kind, text, error, tries)
                doomed.append(plan)
    if not reported:
        state.note(
            "warning", f"kept results are lost: task {table.base + index} failed when made again: {text}"
        )


def is_whole(plan: PlanTable) -> bool:
    """Whether nothing of a plan is still to be made (again), for itself or for others that build on it."""
    return plan.over and min(plan.state, default=DONE) >= DONE


def fail_plan(
    state: State, plan: PlanTable, index: int, kind: OutcomeKind, text: str, error: bytes, tries: list[Death]
) -> bool:
    """Say that a plan failed, unless it was over, and close it; what was kept of it is gone."""
    told = not plan.over
    if told:
        state.tell(PlanFailed(plan.base, index, kind, text, error, tries))
    abandon(state, plan)
    return told


def abandon(state: State, plan: PlanTable) -> None:
    """Close a plan of which nothing is to be kept."""
    for index in list(plan.kept):
        plan.kept.discard(index)
        release_hold(state, plan, index)
    if not plan.over:
        close(state, plan)
    else:
        free_if_unused(state, plan)

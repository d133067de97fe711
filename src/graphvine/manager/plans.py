"""Taking a plan over: numbering it, tying it to the files of earlier plans, making its leaves ready."""

from __future__ import annotations

from operator import not_

import msgspec

from graphvine.manager import environments, families, recovery, results, separate
from graphvine.manager.files import needless, restore
from graphvine.manager.instructions import PlanFailed
from graphvine.manager.placement import pool_of
from graphvine.manager.plan import GivenValue, Plan
from graphvine.manager.state import State
from graphvine.manager.tasks import DONE, READY, RELEASED, PlanTable, UnknownFileError
from graphvine.protocol.messages import Context
from graphvine.protocol.zygotes import zygote_key


def admit(state: State, plan: Plan, *, keep: bool, now: float) -> int:
    """Take a plan over. Returns its number. It fails at once when a file it names is not there."""
    origins, missing = find_origins(state, plan)
    if missing:
        return refuse(state, plan, missing[0], now)
    table = PlanTable(plan, state.next_number, keep=keep, now=now, checked=state.settings.checked)
    table.origins = origins
    if not table.size:
        table.wanted_files = list(plan.externals)
        table.left = len(origins)
    state.add_table(table)
    table.categories = [state.category(name) for name in plan.categories]
    table.context = context_of(state, table)
    table.zygote = state.zygote_of[table.context]
    take_pools(state, table)
    if not plan.separate:
        table.families = families.find(table.inputs, table.consumers, table.category_of, state.settings.wide)
        count_ahead(state, table)
    results.watch(table)
    take_given(table)
    revive = tie(table)
    environments.hold(table)
    for origin, index in revive:
        recovery.remake(state, origin, index)
    make_leaves_ready(state, table)
    for index in plan.given:
        settle_given(state, table, index)
    for origin, index in results.wanted_of(table) if not table.size else ():
        if origin.state[index] == DONE:
            results.announce_to(state, table, origin, index)
    if not table.left:
        results.finish(state, table)
    return table.base


def count_ahead(state: State, table: PlanTable) -> None:
    """Have workers given whole families ahead, where the measured means say that they are short."""
    if table.families is not None:
        count, mean = state.category_count, state.category_mean
        means = {local: mean[c] for local, c in enumerate(table.categories) if count[c]}
        longest_s = state.settings.join_s if table.families.joins else state.settings.family_s
        state.ahead = table.families.ahead(means, longest_s, state.cores)


def take_given(table: PlanTable) -> None:
    """Results that are there from the start exist, before anything is ready."""
    for index, given in table.plan.given.items():
        table.given[index] = data = given.data if isinstance(given, GivenValue) else given.size
        table.data[index] = data
        table.state[index] = DONE
        table.done_of[table.category_of[index]] += 1
        for consumer in table.consumers[index]:
            table.waits[consumer] -= 1


def settle_given(state: State, table: PlanTable, index: int) -> None:
    """Say that a given result exists, or let it go when nobody needs it."""
    if index in table.wanted_by:
        if index in table.untold:
            separate.tell_done(state, table, index, None, None)
        results.announce(state, table, index)
    if not table.need[index]:
        needless(state, table, index)


def find_origins(state: State, plan: Plan) -> tuple[list[tuple[PlanTable, int]], list[int]]:
    """Table and index of each external, and the positions of those that are not there."""
    origins: list[tuple[PlanTable, int]] = []
    missing: list[int] = []
    for position, number in enumerate(plan.externals):
        try:
            origins.append(state.file(number))
        except UnknownFileError:
            missing.append(position)
    return origins, missing


def refuse(state: State, plan: Plan, position: int, now: float) -> int:
    """Fail a plan that names a file which is not there."""
    empty = Plan([], [], [], [], [], [], [], [], label=plan.label)
    table = PlanTable(empty, state.next_number, keep=False, now=now, checked=False)
    table.over = True
    state.add_table(table)
    state.remove_table(table)
    text = f"file {plan.externals[position]} is not there: it was released, or lost for good"
    state.tell(PlanFailed(table.base, -1 - position, "unrunnable", text, b"", []))
    return table.base


def context_of(state: State, table: PlanTable) -> int:
    """The number of a plan's context, equal for equal code; 0 when it brings nothing."""
    code = table.plan.code
    found = environments.find(table)
    environment = found[0].base + found[1] if found is not None else 0
    if not (code.modules or code.imports or code.variables or code.setup or environment):
        return 0
    # Equal means: with the same files, however the plan names them.
    inputs = tuple(origin.base + index for origin, index in environments.find_inputs(table))
    code = msgspec.structs.replace(code, environment=environment, inputs=inputs)
    number = state.context_numbers.get(code)
    if number is None:
        number = state.context_numbers[code] = len(state.contexts) + 1
        state.contexts[number] = Context(
            number,
            code.name,
            code.modules,
            list(code.imports),
            environment=environment,
            environment_name=code.environment_name,
            variables=list(code.variables),
            setup=code.setup,
            setup_name=code.setup_name,
            inputs=list(inputs),
        )
        key = zygote_key(state.contexts[number])
        state.zygote_of[number] = state.zygote_numbers.setdefault(key, len(state.zygote_numbers))
        state.environments.update(inputs, filter(None, [environment]))
    return number


def take_pools(state: State, table: PlanTable) -> None:
    """Find the pool of every task."""
    plan = table.plan
    table.pool = state.pool_for(plan.default_options, table.zygote)
    default_soft = bool(plan.default_options.workers) and plan.default_options.allow_other_workers
    if default_soft:
        table.soft = set(range(table.size)) - plan.options.keys()
    for task, options in plan.options.items():
        pool = state.pool_for(options, table.zygote)
        if pool is not table.pool:
            table.pools[task] = pool
        if options.workers and options.allow_other_workers:
            table.soft.add(task)
    for pool in {id(pool): pool for pool in (table.pool, *table.pools.values())}.values():
        pool.users += 1
    table.plain = table.pool.plain and all(pool.plain for pool in table.pools.values())


def tie(table: PlanTable) -> list[tuple[PlanTable, int]]:
    """Note in earlier plans what this one needs of them. Returns what must be made again for it."""
    if not table.origins:
        return []
    for task, names in enumerate(table.inputs):
        for name in names:
            if name < 0:
                origin, index = table.origins[-1 - name]
                restore(origin, index)
                origin.foreign.setdefault(index, []).append((table, task))
                origin.need[index] += 1
                if origin.state[index] == DONE:
                    table.waits[task] -= 1
    for origin in {origin.base: origin for origin, _ in table.origins}.values():
        origin.refs += 1
    for origin, index in table.origins:
        restore(origin, index)
    return [(origin, index) for origin, index in table.origins if origin.state[index] == RELEASED]


def make_leaves_ready(state: State, table: PlanTable) -> None:
    """Put the tasks that wait for nothing into the pools, as segments where no worker can be preferred."""
    waits, states = table.waits, table.state
    if not (
        table.origins
        or table.pools
        or table.soft
        or table.priorities
        or state.settings.checked
        or table.given
        or table.limited
    ):
        # READY is 1 and WAITING 0: the common case at the speed of C.
        states[:] = bytes(map(not_, waits))
        key0 = table.key0
        leaves = [key0 + task for task, missing in enumerate(waits) if not missing]
        if leaves:
            leaves.reverse()
            table.pool.add_segment(leaves, table.key0 + table.size, table)
        return
    plain: list[int] = []
    special: dict[int, tuple[object, list[int]]] = {}
    for task, missing in enumerate(waits):
        if missing or states[task] == DONE:
            continue
        states[task] = READY
        if table.inputs[task] or task in table.soft or (table.limited and pool_of(table, task).limit):
            state.fresh.append(table.base + task)
        elif task in table.pools:
            pool = table.pools[task]
            special.setdefault(id(pool), (pool, []))[1].append(table.key(task))
        else:
            plain.append(table.key(task))
    limit = table.key0 + table.size
    if plain:
        plain.sort(reverse=True)
        table.pool.add_segment(plain, max(limit, plain[0] + 1), table)
    for task_pool, keys in special.values():
        keys.sort(reverse=True)
        task_pool.add_segment(keys, max(limit, keys[0] + 1), table)  # type: ignore[attr-defined]

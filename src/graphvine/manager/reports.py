"""What a worker's report does: tasks done, files fetched, missing and lost. The hot path of the whole
manager.

Late and duplicate words are harmless: a word about a task counts only while that worker has the order, and
about a file only while the file exists; a copy of anything else is dropped where it lies.
"""

from __future__ import annotations

from collections.abc import Sized

from graphvine.manager import departures, environments, readiness, recovery, results, separate
from graphvine.manager.files import (
    add_replica,
    hold_blob,
    needless,
    note_given_size,
    one_less,
    place,
    source_of,
    supply_blob_again,
)
from graphvine.manager.plans import count_ahead
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DONE, READY, RELEASED, WAITING, PlanTable
from graphvine.manager.withdrawal import forget_order
from graphvine.manager.workers import LOG_LIMIT, Worker
from graphvine.protocol.messages import LinkNews, Missing, Report, Source, TaskDone

#: So many words too many mean nothing.
_FEW = 1000


def on_report(state: State, worker: Worker, report: Report) -> None:
    """Everything that happened on a worker since its last report."""
    if is_too_much(state, worker, *map(len, _parts(report))):
        return
    for said in report.contexts:
        if not readiness.on_news(state, worker, said):
            note_strange(state, worker, f"of context {said.context}, which was never given out")
    if report.done:
        on_done(state, worker, report.done)
    for failure in report.failed:
        recovery.on_failed(state, worker, failure)
    for file, size in report.sizes.items():
        note_given_size(state, file, size)
    for news in report.links:
        on_link_news(state, worker, news)
    for file in report.fetched:
        on_fetched(state, worker, file)
    for file in report.lost:
        on_lost(state, worker, file)
    for missing in report.missing:
        on_missing(state, worker, missing)
    if report.returned:
        recovery.on_returned(state, worker, report.returned)
    if len(worker.log) > worker.log_limit and worker.number not in state.departures:
        compact_log(state, worker)
    state.mark(worker)


def _parts(report: Report) -> tuple[Sized, ...]:
    return (
        report.done,
        report.failed,
        report.sizes,
        report.links,
        report.fetched,
        report.lost,
        report.missing,
        report.returned,
        report.contexts,
    )


def is_too_much(state: State, worker: Worker, *counts: int) -> bool:
    """Whether a worker speaks of many more things than there ever were; a note when it does. Looking at each
    would keep everybody waiting."""
    if max(counts) <= 2 * state.next_number + _FEW + len(state.workers):
        return False
    note_strange(state, worker, f"of {max(counts)} things at once, more than there ever were")
    return True


def note_strange(state: State, worker: Worker, what: str) -> None:
    """Said once of each worker."""
    if not worker.strange:
        worker.strange = True
        state.note("warning", f"worker {worker.hello.name} speaks {what}")


def on_done(state: State, worker: Worker, rows: list[TaskDone]) -> None:
    """Tasks ran: their results exist. A row costs the same in a plan of any size."""
    me = worker.number
    answered, held = worker.queue.pop, worker.held
    log = worker.log.append
    fresh = state.fresh
    count, time = state.category_count, state.category_time
    base = end = last_category = category = -1
    gone = 0.0
    measured: set[int] = set()
    for row in rows:
        number = row.task
        expected = answered(number, None)
        if expected is None:
            on_late_done(state, worker, number)
            continue
        if held:
            worker.answered(number)
        if not base <= number < end:
            found = state.table_of(number)
            if found is None:
                continue
            table = found
            base, end = table.base, table.end
            states, waits, need, data = table.state, table.waits, table.need, table.data
            inputs, consumers, category_of = table.inputs, table.consumers, table.category_of
            categories, done_of, running_of = table.categories, table.done_of, table.running_of
            wanted_by, foreign = table.wanted_by, table.foreign
            state.touch(table)
        index = number - base
        gone += expected
        value = row.value
        data[index] = row.size if value is None else value
        states[index] = DONE
        log(number)
        local = category_of[index]
        done_of[local] += 1
        running_of[local] -= 1
        category = categories[local]
        count[category] += 1
        time[category] += row.duration_s
        if category != last_category:
            measured.add(category)
            last_category = category
        for name in inputs[index]:
            if name < 0:
                unneed_foreign(state, table, name)
                continue
            left = need[name] - 1
            need[name] = left
            if not left:
                if states[name] == DONE and table.where[name] == me and name not in table.extra:
                    states[name] = RELEASED
                    data[name] = None
                    table.where[name] = 0
                    worker.outbox.drops.append(base + name)
                else:
                    needless(state, table, name)
        for consumer in consumers[index]:
            left = waits[consumer] - 1
            waits[consumer] = left
            if not left:
                current = states[consumer]
                if current == WAITING:
                    states[consumer] = READY
                    fresh.append(base + consumer)
                elif current == AHEAD:
                    states[consumer] = READY
        if index in wanted_by or foreign or not need[index] or state.recalled or state.lonely:
            settle(state, table, index, number, row, worker)
    worker.load = worker.load - gone if worker.queue else 0.0
    for category in measured:
        state.category_mean[category] = max(time[category] / count[category], state.settings.floor_s)
    if measured and table.families is not None:
        count_ahead(state, table)


def settle(
    state: State, table: PlanTable, index: int, number: int, row: TaskDone | None, worker: Worker
) -> None:
    """What is seldom to be done when a task is done."""
    if table.foreign and index in table.foreign:
        for plan, task in table.foreign[index]:
            one_less(state, plan, task)
    if state.recalled or state.lonely:
        forget_order(state, table.where[index], number)
    if index in table.wanted_by:
        if index in table.untold:
            separate.tell_done(state, table, index, row, worker)
        results.announce(state, table, index)
    if not table.need[index]:
        needless(state, table, index)


def unneed_foreign(state: State, table: PlanTable, name: int) -> None:
    """A task that is done does not need this external any more."""
    origin, index = table.origins[-1 - name]
    origin.need[index] -= 1
    if not origin.need[index]:
        needless(state, origin, index)


def on_late_done(state: State, worker: Worker, number: int) -> None:
    """A result nobody waits for: of a cancelled plan, or told twice."""
    if not known(state, worker, number):
        return
    table = state.table_of(number)
    if table is None:
        worker.outbox.drops.append(number)
        return
    index = number - table.base
    holds = index < table.size and (
        table.where[index] == worker.number or worker.number in table.extra.get(index, ())
    )
    if not holds:
        worker.outbox.drops.append(number)


def known(state: State, worker: Worker, number: int) -> bool:
    """Whether a number was ever given out; a note when it was not."""
    if 0 < number < state.next_number:
        return True
    note_strange(state, worker, f"of number {number}, which was never given out")
    return False


def on_fetched(state: State, worker: Worker, number: int) -> None:
    """A worker holds a copy of a file."""
    if not known(state, worker, number):
        return
    table = state.table_of(number)
    not_relayed(state, number, worker.number)
    if table is None:
        worker.outbox.drops.append(number)
        return
    index = number - table.base
    if index >= table.size:
        if worker.number in table.blob_at[index - table.size]:
            hold_blob(table, index - table.size, worker.number)
    elif table.where[index] == worker.number:
        pass
    elif table.state[index] == DONE:
        add_replica(table, index, worker, held=True)
        if not table.where[index]:
            del table.extra[index][worker.number]
            table.where[index] = worker.number
    else:
        worker.outbox.drops.append(number)


def on_lost(state: State, worker: Worker, number: int) -> None:
    """A worker holds a file no longer that it should hold."""
    if not known(state, worker, number):
        return
    table = state.table_of(number)
    if table is None:
        return
    index = number - table.base
    if index >= table.size:
        table.blob_at[index - table.size].pop(worker.number, None)
        worker.blobs.discard(number)
        return
    if table.state[index] == RELEASED:
        # It was passed on to all that needed it, and never kept.
        return
    recovery.lose_replica(state, table, index, worker.number)
    recovery.call_back_followers(state, table, index, worker.number)


def on_missing(state: State, worker: Worker, missing: Missing) -> None:
    """A worker could not fetch a file: name other holders, else relay it, else make it again."""
    if not known(state, worker, missing.file):
        return
    table = state.table_of(missing.file)
    if table is None:
        return
    index = missing.file - table.base
    if index >= table.size:
        supply_blob_again(state, table, index - table.size, worker)
        return
    box = worker.outbox.also()
    if table.state[index] != DONE:
        environments.on_missing(state, table, index, worker)
        if worker.alone:
            # Whatever makes it again may have to run there first.
            recovery.call_back_lone(state, worker)
        recovery.call_back_followers(state, table, index, worker.number)
        return
    data = table.data[index]
    if isinstance(data, bytes):
        box.update_values[missing.file] = data
        add_replica(table, index, worker, held=True)
        return
    relayed = worker.number in state.relayed.get(missing.file, ())
    source = other_source(state, table, index, worker, missing.holders)
    if (source.holders and not (relayed and not missing.holders)) or not relayed:
        if not source.holders:
            state.relayed.setdefault(missing.file, set()).add(worker.number)
        box.updates.append(source)
        add_replica(table, index, worker, held=False)
        return
    if state.departures and departures.on_unreachable(state, table, index, worker):
        not_relayed(state, missing.file, worker.number)
        return
    state.note("warning", f"file {missing.file} can't be had from any holder: {missing.reason}")
    if index in table.given or index in table.staged:
        not_relayed(state, missing.file, worker.number)
        environments.on_unreadable(state, table, index, worker, missing.reason)
        recovery.refuse_followers(state, table, index, worker, missing.reason)
    else:
        recovery.lose_everywhere(state, table, index)


def other_source(state: State, table: PlanTable, index: int, worker: Worker, tried: list[int]) -> Source:
    """Where a worker gets a file that it asks for, or could not get from those it ``tried``."""
    if len(tried) >= state.settings.direct_tries:
        return Source(table.base + index, table.size_of(index), [])
    if table.size_of(index) < state.settings.spread_bytes:
        return source_of(state, table, index, worker, tried)
    return place(state, table, index, worker, tried)


def on_link_news(state: State, worker: Worker, news: LinkNews) -> None:
    """A worker learned whether it can reach another."""
    other = state.workers.get(news.worker)
    if other is None:
        return
    if news.state == "made":
        state.reach.note_made(worker.place, other.place, state.now)
    else:
        state.reach.note_failed(worker.place, other.place, news.state == "silent", state.now)


def not_relayed(state: State, number: int, worker: int) -> None:
    """A worker has what it was to get through the manager."""
    waiting = state.relayed.get(number)
    if waiting is not None:
        waiting.discard(worker)
        if not waiting:
            del state.relayed[number]


def compact_log(state: State, worker: Worker) -> None:
    """Take out of a worker's log what it does not have any more. Costs a constant per entry ever made."""
    me = worker.number
    kept: list[int] = []
    table: PlanTable | None = None
    base = end = 0
    for number in worker.log:
        if not base <= number < end:
            table = state.table_of(number)
            if table is None:
                continue
            base, end, where, extra = table.base, table.end, table.where, table.extra
        index = number - base
        if where[index] == me or (index in extra and me in extra[index]):
            kept.append(number)
    worker.log = list(dict.fromkeys(kept))
    worker.log_limit = max(LOG_LIMIT, 2 * len(worker.log))

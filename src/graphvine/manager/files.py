"""Whereabouts of results and blobs: who has them, who needs them, how one gets to a worker.

Rules:

- A result exists while its task is done. It lies on the workers ``where`` and ``extra`` name, a small one
  also in ``data``: then it cannot be lost.
- A worker that was sent a value, or told where to fetch a file, is in ``extra`` at once, so that nothing is
  sent twice; it counts as a holder when it has reported the file fetched (a value: at once).
- A given file is read by each worker of the manager's own node for itself, as long as it can; what others get
  never waits for that.
- A large file is passed on while it arrives: each worker that needs it is given a parent (see ``spread``),
  and holders of the whole file in case that parent fails it.
- Nobody is told to fetch from where it is not believed to get anything (see ``reach``); when nobody is left,
  the file comes through the manager.
- What had to leave with the last workers lies with the manager for a while, *staged*, and is got from there.
- Released means: every worker that has it or was told of it is told to drop it, and the value is forgotten.
  What a task that will never be done (again) needed is not needed for it any more either; one that was
  given to a worker is cancelled there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphvine.manager.instructions import Unstage
from graphvine.manager.plan import GivenFile
from graphvine.manager.spread import Spread
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DISPATCHED, DONE, READY, RELEASED, WAITING, PlanTable
from graphvine.manager.withdrawal import cancel_order
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import BlobData, OnNode, Source

#: So many holders of a file are looked at in vain before it comes through the manager.
_UNFIT = 32


def holders(table: PlanTable, index: int) -> list[int]:
    """Workers that hold a file now."""
    if table.state[index] != DONE:
        return []
    first = table.where[index]
    found = [first] if first else []
    if index in table.extra:
        found += [worker for worker, held in table.extra[index].items() if held]
    return found


def has_or_awaits(table: PlanTable, index: int, worker: int) -> bool:
    """Whether ``worker`` needs no word about this file: it has it, makes it, or was told where it is."""
    if table.where[index] == worker:
        return True
    return index in table.extra and worker in table.extra[index]


def add_replica(table: PlanTable, index: int, worker: Worker, held: bool) -> None:
    """A worker has a file now (``held``), or was told to fetch it."""
    known = table.extra.setdefault(index, {})
    if worker.number not in known:
        worker.log.append(table.base + index)
    known[worker.number] = held
    if held:
        table.copies.setdefault(index, []).append(worker.number)
        if index in table.spread:
            table.spread[index].complete(worker.number)


def forget_replica(table: PlanTable, index: int, worker: int) -> None:
    """A worker has a file no longer, or will not fetch it. The file may be without holders afterwards."""
    if index in table.spread:
        table.spread[index].forget(worker)
    extra = table.extra.get(index)
    if extra is not None:
        extra.pop(worker, None)
        if not extra:
            forget_extras(table, index)
            extra = None
    if table.where[index] != worker:
        return
    table.where[index] = 0
    for other, held in (extra or {}).items():
        if held:
            table.where[index] = other
            forget_extra(table, index, other)
            break


def forget_extra(table: PlanTable, index: int, worker: int) -> None:
    """Take one worker off the list of further holders."""
    extra = table.extra[index]
    extra.pop(worker, None)
    if not extra:
        forget_extras(table, index)


def forget_extras(table: PlanTable, index: int) -> None:
    """No further worker has a file or was told of it."""
    del table.extra[index]
    table.spread.pop(index, None)


def exists(table: PlanTable, index: int) -> bool:
    """Whether the bytes of a done task are somewhere."""
    held = table.where[index] != 0 or isinstance(table.data[index], bytes)
    return held or index in table.given or index in table.staged


def restore(table: PlanTable, index: int) -> bool:
    """Have a released file exist again that nobody has to make. False when there is no such file."""
    if table.state[index] != RELEASED or index not in table.given:
        return False
    table.state[index] = DONE
    table.data[index] = table.given[index]
    return True


def drop_everywhere(state: State, table: PlanTable, index: int) -> None:
    """Tell every worker that has a file, or was told of it, to drop it; forget the value."""
    number = table.base + index
    table.data[index] = None
    first = table.where[index]
    table.where[index] = 0
    table.spread.pop(index, None)
    if table.staged:
        unstage(state, table, index)
    if first:
        drop(state, first, number)
    if index in table.extra:
        table.copies.pop(index, None)
        for other in table.extra.pop(index):
            drop(state, other, number)


def unstage(state: State, table: PlanTable, index: int) -> None:
    """The manager has a file no longer, if it had it."""
    staged = table.staged.pop(index, None)
    if staged is not None:
        state.tell(Unstage(staged.path))


def drop(state: State, worker: int, number: int) -> None:
    """Tell one worker to drop a file."""
    known = state.workers.get(worker)
    if known is not None:
        known.outbox.drop(number)
        state.mark(known)


def needless(state: State, table: PlanTable, index: int) -> None:
    """Nobody needs this file any more. To be called when ``need`` has come to zero."""
    stack = [(table, index)]
    while stack:
        table, index = stack.pop()
        if table.need[index]:
            continue
        current = table.state[index]
        if current == DONE:
            table.state[index] = RELEASED
            drop_everywhere(state, table, index)
        elif current != RELEASED:
            # It was to be made (again) for somebody who needs it no longer.
            if current == DISPATCHED:
                cancel_order(state, table, index)
                drop_everywhere(state, table, index)
            table.state[index] = RELEASED
            table.done_of[table.category_of[index]] += 1
            state.touch(table)
            for origin, name in table.input_files(index):
                origin.need[name] -= 1
                stack.append((origin, name))


def ready(state: State, table: PlanTable, index: int) -> None:
    """Every input of a waiting task exists."""
    table.state[index] = READY
    state.fresh.append(table.base + index)


def one_less(state: State, table: PlanTable, index: int) -> None:
    """One more input slot of a task has its file."""
    table.waits[index] -= 1
    if table.waits[index]:
        return
    state.touch(table)
    if table.state[index] == WAITING:
        ready(state, table, index)
    elif table.state[index] == AHEAD:
        table.state[index] = READY


def supply(state: State, table: PlanTable, index: int, worker: Worker) -> None:
    """See to it that a file that exists gets to ``worker``, with the orders of this turn."""
    if has_or_awaits(table, index, worker.number):
        return
    data = table.data[index]
    box = worker.outbox.also()
    if isinstance(data, bytes):
        box.values[table.base + index] = data
        add_replica(table, index, worker, held=True)
        return
    on_node = on_node_of(state, table, index, worker)
    if on_node is not None or table.size_of(index) < state.settings.spread_bytes:
        source = source_of(state, table, index, worker, ())
        source.on_node = on_node
    else:
        source = place(state, table, index, worker)
    box.sources.append(source)
    add_replica(table, index, worker, held=False)


def may_pass(state: State, table: PlanTable, index: int) -> bool:
    """Whether workers may fetch a result from each other."""
    return state.peers and index not in table.plan.unshared


def on_node_of(state: State, table: PlanTable, index: int, worker: Worker) -> OnNode | None:
    """The file itself that a result is, where ``worker`` can perhaps read it."""
    given = table.plan.given.get(index)
    if not isinstance(given, GivenFile) or type(table.given.get(index)) is not int:
        return None
    if not state.settings.node or worker.hello.node != state.settings.node:
        return None
    if not given.stamp and holders(table, index):
        # Nobody could tell whether it is still what they have.
        return None
    return OnNode(given.path, given.size, given.tree, given.stamp)


def note_given_size(state: State, file: int, size: int) -> None:
    """How many bytes travel of a given file is known: those of its flat form."""
    table = state.table_of(file)
    index = file - table.base if table is not None else 0
    if table is not None and type(table.given.get(index)) is int:
        table.given[index] = size
        if table.state[index] == DONE:
            table.data[index] = size


def place(state: State, table: PlanTable, index: int, worker: Worker, but: Sequence[int] = ()) -> Source:
    """Where ``worker`` gets a large file, perhaps from one that is still fetching it, but from none of
    ``but``."""
    if not may_pass(state, table, index):
        return Source(table.base + index, table.size_of(index), [])
    spread = table.spread.get(index)
    if spread is None:
        spread = table.spread[index] = Spread(holders(table, index))
    parent = spread.place(worker.number, lambda other: other not in but and may_fetch(state, worker, other))
    source = source_of(state, table, index, worker, (parent, *but))
    if parent:
        introduce(state, worker, [parent])
        source.holders = [parent, *source.holders][: state.settings.sources]
        if table.where[index] != parent and not table.extra[index][parent]:
            source.coming = parent
    return source


def may_fetch(state: State, worker: Worker, other: int) -> bool:
    """Whether ``worker`` may be told to fetch from ``other``. Is it time to see whether that works again, it
    is told so."""
    holder = state.workers.get(other)
    if holder is None or not state.peers:
        return False
    advice = state.reach.advise(worker.place, holder.place, state.now)
    if advice == "probe":
        introduce(state, worker, [other])
        worker.outbox.also().probes.append(other)
        state.mark(worker)
    return advice == "try"


def source_of(state: State, table: PlanTable, index: int, worker: Worker, but: Sequence[int]) -> Source:
    """Where ``worker`` can fetch a file, without the holders ``but``; no holders: through the manager."""
    number = table.base + index
    if not may_pass(state, table, index):
        return Source(number, table.size_of(index), [])

    def fits(holder: int) -> bool:
        return holder != worker.number and holder not in but and may_fetch(state, worker, holder)

    first = table.where[index]
    named = [first] if first and fits(first) else []
    if index in table.copies:
        count = state.settings.sources
        held = table.extra.get(index, {})
        found = pick(table.copies[index], held, number + worker.number, count, fits)
        named = (found + named)[:count] if number & 1 else (named + found)[:count]
        # Workers that are told the same list should not all ask the same peer first.
        turn = (number + worker.number) % max(1, len(named))
        named = named[turn:] + named[:turn]
    introduce(state, worker, named)
    return Source(table.base + index, table.size_of(index), named)


def pick(
    copies: list[int], held: dict[int, bool], seed: int, count: int, fits: Callable[[int], bool]
) -> list[int]:
    """At most ``count`` of the workers in ``copies`` that still hold and fit, another choice for another
    ``seed``.

    Costs the same however many copies there are, as long as most of them are still there."""
    found: list[int] = []
    start = seed % len(copies) if copies else 0
    unfit = 0
    for position in range(len(copies)):
        holder = copies[(start + position) % len(copies)]
        if not held.get(holder) or holder in found:
            continue
        if fits(holder):
            found.append(holder)
        else:
            unfit += 1
        if len(found) == count or unfit == _UNFIT:
            break
    return found


def introduce(state: State, worker: Worker, others: list[int]) -> None:
    """Tell a worker the addresses of those it has not heard of."""
    for other in others:
        if other not in worker.peers:
            worker.peers.add(other)
            worker.outbox.also().new_peers[other] = state.workers[other].hello.addresses


def supply_blob(state: State, table: PlanTable, blob: int, worker: Worker) -> None:
    """See to it that ``worker`` gets a blob, and the context it needs, with the orders of this turn."""
    number = table.blob_base + blob
    box = worker.outbox.also()
    if table.context and table.context not in worker.contexts:
        worker.contexts.add(table.context)
        box.contexts.append(state.contexts[table.context])
    worker.blobs.add(number)
    data = table.plan.blobs[blob]
    if len(data) < state.settings.blob_by_peer_bytes:
        send_blob(table, blob, worker)
        return
    # Never with the orders: what is said to this worker next would wait behind it.
    at = table.blob_at[blob]
    count = state.settings.sources
    named = pick(
        table.blob_copies[blob],
        at,
        number + worker.number,
        count,
        lambda other: may_fetch(state, worker, other),
    )
    introduce(state, worker, named)
    box.blobs.append(BlobData(number, table.context, None))
    box.sources.append(Source(number, len(data), named))
    at[worker.number] = False


def send_blob(table: PlanTable, blob: int, worker: Worker) -> None:
    """Send a small blob's bytes along with the orders."""
    worker.outbox.also().blobs.append(BlobData(table.blob_base + blob, table.context, table.plan.blobs[blob]))
    hold_blob(table, blob, worker.number)


def supply_blob_again(state: State, table: PlanTable, blob: int, worker: Worker) -> None:
    """See to it that a worker gets a blob that it could not fetch, or has lost."""
    size = len(table.plan.blobs[blob])
    worker.blobs.add(table.blob_base + blob)
    if size < state.settings.blob_by_peer_bytes:
        send_blob(table, blob, worker)
        return
    # From here: the manager has every blob of a plan that goes on.
    worker.outbox.also().updates.append(Source(table.blob_base + blob, size, []))
    table.blob_at[blob][worker.number] = False


def hold_blob(table: PlanTable, blob: int, worker: int) -> None:
    """A worker has a blob now."""
    table.blob_at[blob][worker] = True
    table.blob_copies[blob].append(worker)

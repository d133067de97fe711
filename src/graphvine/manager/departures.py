"""Workers that are about to leave: they end what they have begun, and what only they hold goes elsewhere.

A worker leaves because its batch job ends (it says so: ``Leaving``), or because it is not needed any more
(``retire``). Rules:

- It is given nothing more, and gives back what it has not begun.
- A file that somebody needs and no other worker holds goes to one that stays, by the same links as any other:
  that worker is told to fetch it. To whom: in turn, to those with room. One that can't get it there is
  followed by the next. Where there is none, the manager takes it in itself (``Stage``), and gives it to
  whoever comes to need it.
- A result that only the user waits for is fetched by the manager anyway. That is waited for, no more.
- When it has no tasks and nothing of it is at stake, it is sent away. Until then it can be lost like any
  other: what was not handed over is then made again. Nobody is suspected of that loss.
- A worker that leaves counts as gone where the question is whether anybody can run a task.
- One that only asks, because it is idle, is sent away if nothing of it is at stake, else not answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphvine.manager import blocking, recovery
from graphvine.manager.files import add_replica, drop, forget_replica, source_of
from graphvine.manager.instructions import SendAway, Stage, Unstage
from graphvine.manager.plan import GivenFile
from graphvine.manager.state import State
from graphvine.manager.tasks import DONE, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import Leaving

#: So many workers are asked for room before a file is given up.
_TRIES = 16
#: In place of a worker: the manager fetches the file anyway; or takes it in.
_USER = 0
_STAGING = -1
_STAGING_TRIES = 3


class Departure:
    """One worker on its way out. ``fresh``: files to be looked at. ``todo``: files on their way elsewhere, or
    safe by now; ``moving``: to whom, and their size. ``refused``: who could not get them."""

    __slots__ = ("fresh", "looked", "moving", "reason", "refused", "todo", "tries", "worker")

    def __init__(self, worker: int, reason: str) -> None:
        self.worker = worker
        self.reason = reason
        self.fresh: list[int] = []
        self.looked = 0
        """How much of the worker's log was looked at."""
        self.todo: list[int] = []
        self.moving: dict[int, tuple[int, int]] = {}
        self.refused: dict[int, set[int]] = {}
        self.tries: dict[int, int] = {}
        """How often the manager could not take a file in."""


# -- who leaves -----------------------------------------------------------------------------------------


def on_leaving(state: State, worker: Worker, leaving: Leaving) -> None:
    """A worker says that it is going to leave, or asks whether it may."""
    if not leaving.idle:
        begin(state, worker, leaving.reason)
    elif not worker.queue and not any(at_stake(state, worker, file) for file in set(worker.log)):
        state.note("info", f"worker {worker.hello.name} leaves: {leaving.reason}")
        send_away(state, worker, leaving.reason)


def begin(state: State, worker: Worker, reason: str) -> None:
    """A worker is going to leave. Said twice is said once."""
    if worker.number in state.departures:
        return
    state.note("info", f"worker {worker.hello.name} is leaving: {reason}")
    worker.give_up_taking()
    state.departures[worker.number] = Departure(worker.number, reason)
    if not worker.blocked:
        blocking.shut(state, worker)


def retire(state: State, names: Sequence[str], reason: str) -> int:
    """Have workers leave, by their names or their jobs. Returns how many there are."""
    wanted = set(names) - {""}
    found = [worker for worker in state.workers.values() if {worker.hello.name, worker.hello.job} & wanted]
    for worker in found:
        begin(state, worker, reason)
    return len(found)


def retire_some(state: State, count: int, reason: str) -> int:
    """Have so many workers leave, idle ones first, and those that hold least."""
    staying = [worker for worker in state.workers.values() if worker.number not in state.departures]
    staying.sort(key=lambda worker: (bool(worker.queue), worker.load, len(worker.log)))
    for worker in staying[:count]:
        begin(state, worker, reason)
    return len(staying[:count])


def send_away(state: State, worker: Worker, reason: str) -> None:
    """Nothing of a worker is needed any more."""
    state.tell(SendAway(worker.number, reason))
    state.released += 1
    recovery.lose_worker(state, worker, blame=False)


# -- what they hold -------------------------------------------------------------------------------------


def turn(state: State) -> None:
    """Have what is at stake fetched by others; send away whoever has nothing left."""
    hosts = Hosts(state)
    for number, departure in list(state.departures.items()):
        worker = state.workers[number]
        if len(worker.log) > departure.looked:
            departure.fresh += dict.fromkeys(worker.log[departure.looked :])
            departure.looked = len(worker.log)
        if departure.fresh:
            fresh, departure.fresh = departure.fresh, []
            for file in fresh:
                hand_over(state, departure, worker, file, hosts)
        if departure.todo:
            tick_off(state, departure, worker, hosts)
        if not worker.queue and not departure.todo:
            send_away(state, worker, departure.reason)


def tick_off(state: State, departure: Departure, worker: Worker, hosts: Hosts) -> None:
    """Forget what is safe. One look a turn, and one more for each file that is ticked off."""
    todo = departure.todo
    moving = departure.moving
    while todo and not (todo[-1] in moving and at_stake(state, worker, todo[-1])):
        stop_moving(state, departure, todo.pop())
    if todo:
        target = moving[todo[-1]][0]
        lost = target > 0 and target not in state.workers
        if lost or (target == _USER and not only_wanted(state, todo[-1])):
            hand_over(state, departure, worker, todo[-1], hosts)


def stop_moving(state: State, departure: Departure, file: int) -> None:
    """A file has arrived, or is not needed, or goes to somebody else."""
    target, size = departure.moving.pop(file, (_USER, 0))
    taker = state.workers.get(target)
    if taker is not None:
        taker.promised -= size
        taker.taking.pop((file, departure.worker), None)


def hand_over(state: State, departure: Departure, worker: Worker, file: int, hosts: Hosts) -> None:
    """Have a file fetched by a worker that stays, if nobody else has it."""
    if not at_stake(state, worker, file):
        return
    if file not in departure.moving:
        departure.todo.append(file)
    stop_moving(state, departure, file)
    table, index = state.file(file)
    if only_wanted(state, file):
        departure.moving[file] = (_USER, 0)
        return
    shared = next(moved_by_others(state, table, index, worker), None)
    if shared is not None:
        move(departure, file, shared, 0)
        return
    size = table.size_of(index)
    target = hosts.choose(size, departure.refused.get(file, ()))
    if target is None:
        departure.moving[file] = (_STAGING, 0)
        # Not from another one that leaves, too: it may be gone before.
        state.tell(Stage(file, size, [worker.number]))
        return
    move(departure, file, target, size)
    target.outbox.also().updates.append(source_of(state, table, index, target, ()))
    add_replica(table, index, target, held=False)
    state.mark(target)


def move(departure: Departure, file: int, taker: Worker, size: int) -> None:
    """A worker is to take a file over, for which it needs so much room."""
    departure.moving[file] = (taker.number, size)
    taker.promised += size
    taker.taking[file, departure.worker] = departure


def at_stake(state: State, worker: Worker, file: int) -> bool:
    """Whether a file that somebody needs would be gone with this worker, and others that leave."""
    table = state.table_of(file)
    index = file - table.base if table is not None else 0
    if table is None or index >= table.size or table.state[index] != DONE or not table.need[index]:
        return False
    if isinstance(table.data[index], bytes) or index in table.given or index in table.staged:
        return False
    first, others = table.where[index], table.extra.get(index, {})
    me = worker.number
    if first != me and not others.get(me):
        return False
    return not any(
        other != me and other not in state.departures
        for other in (first, *(other for other, held in others.items() if held))
    )


def moved_by_others(state: State, table: PlanTable, index: int, worker: Worker) -> Iterator[Worker]:
    """Who was told to take a file over from another worker that leaves, too."""
    for holder in (table.where[index], *table.extra.get(index, ())):
        other = state.departures.get(holder) if holder != worker.number else None
        target = other.moving.get(table.base + index, (_USER, 0))[0] if other is not None else _USER
        if target in state.workers and target not in state.departures:
            yield state.workers[target]


def only_wanted(state: State, file: int) -> bool:
    """Whether only the user waits for a file: the manager fetches it."""
    table, index = state.file(file)
    watchers = sum(1 for plan, _ in table.wanted_by.get(index, ()) if not plan.keep)
    return 0 < watchers == table.need[index]


def on_unreachable(state: State, table: PlanTable, index: int, worker: Worker) -> bool:
    """``worker`` could not get a file from anywhere. Whether it was to take it over: then the next one is
    to."""
    file = table.base + index
    me = worker.number
    found = [
        departure for departure in state.departures.values() if departure.moving.get(file, (0,))[0] == me
    ]
    for departure in found:
        departure.refused.setdefault(file, set()).add(worker.number)
        departure.fresh.append(file)
    if found:
        recovery.call_back_followers(state, table, index, worker.number)
        forget_replica(table, index, worker.number)
        drop(state, worker.number, file)
    return bool(found)


def on_staged(state: State, file: int, staged: GivenFile) -> None:
    """The manager has taken a file in; perhaps nobody needs it any more."""
    table = state.table_of(file)
    index = file - table.base if table is not None else 0
    if table is None or table.state[index] != DONE or index in table.staged:
        state.tell(Unstage(staged.path))
    else:
        table.staged[index] = staged


def on_unstageable(state: State, file: int, reason: str) -> None:
    """The manager can't take a file in. After a few tries it is left to be made again, if it is still needed
    then."""
    for departure in state.departures.values():
        if departure.moving.get(file, (_USER, 0))[0] == _STAGING:
            tries = departure.tries[file] = departure.tries.get(file, 0) + 1
            if tries < _STAGING_TRIES:
                departure.fresh.append(file)
            else:
                state.note("warning", f"file {file} of a worker that leaves can't be kept: {reason}")
                del departure.moving[file]


class Hosts:
    """Workers that stay, and the room they have; looked at when first needed in a turn."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._staying: list[Worker] | None = None
        self._next = 0

    def choose(self, size: int, but: set[int] | tuple[()]) -> Worker | None:
        """The next worker with room for so many bytes; None when none was found."""
        if self._staying is None:
            self._staying = [worker for worker in self._state.workers.values() if not worker.blocked]
            self._staying.sort(key=Worker.room_bytes, reverse=True)
        staying = self._staying
        for _ in range(min(_TRIES, len(staying))):
            worker = staying[self._next % len(staying)]
            self._next += 1
            if worker.number not in but and worker.room_bytes() > size:
                return worker
        return None

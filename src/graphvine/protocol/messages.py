"""Every message that passes between the manager and a worker, and nothing else.

A link carries *batches*: one frame is a list of messages, all that is to be said in one turn of a loop
(see ``codec``). Tasks and files are integers, made by the manager and never used twice: the result of task
``t`` is file ``t``, and blobs (shared payloads) have numbers of the same sequence. Payloads and values are
opaque bytes here.

Messages are msgspec Structs, checked when they arrive. The ones that come by the thousand (``TaskOrder``,
``TaskDone``) are written as arrays; those, and the ones that a manager of thousands of workers handles by the
thousand, are kept out of the garbage collector: nothing in a message refers back to it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: Said by both sides in their first message; a different number is refused with a word that names both.
PROTOCOL_VERSION = 1


class Resources(msgspec.Struct, frozen=True, array_like=True):
    """What a task asks for, or a worker has: cores, memory and disk in MB, gpus. 0 memory or disk in a
    request means "an equal share, not stated". 0 cores in a request are not stated either: the worker gives
    that share of its cores which is the largest stated share of its memory, disk and gpus, and all where
    nothing is stated. ``share``: of the worker, at the least (0: not stated)."""

    cores: float = 1.0
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    gpus: float = 0.0
    share: float = 0.0


#: See ``is_light``.
LIGHT_CORES = 0.01


def is_light(request: Resources) -> bool:
    """Whether a task hardly needs anything (to wait for a download, to make a link): one that asks for
    ``LIGHT_CORES`` at most, and states nothing else, is run beside any others."""
    stated = request.memory_mb or request.disk_mb or request.gpus or request.share
    return 0 < request.cores <= LIGHT_CORES and not stated


def cores_of(request: Resources, capacity: Resources) -> float:
    """How many of a worker's cores a request takes; more than there are if it states so many."""
    asked = request.cores or capacity.cores * largest_share(request, capacity)
    return max(asked, capacity.cores * request.share)


def largest_share(request: Resources, capacity: Resources) -> float:
    """The largest share of memory, disk, gpus or the whole that a request states, of all there are; 1 when it
    states none of them."""
    pairs = (
        (request.memory_mb, capacity.memory_mb),
        (request.disk_mb, capacity.disk_mb),
        (request.gpus, capacity.gpus),
        (request.share, 1.0),
    )
    return max((min(1.0, asked / there) for asked, there in pairs if asked and there), default=1.0)


class Address(msgspec.Struct, frozen=True, array_like=True):
    """Where a worker's transfer server listens. Several addresses are tried in order. ``server``: which one
    it is, since what is reached there may be another (private networks use the same addresses)."""

    host: str
    port: int
    server: int = 0


# -- manager to worker --------------------------------------------------------------------------------


class Welcome(msgspec.Struct, tag="welcome"):
    """The answer to ``Hello``: this worker's number, and the settings both sides must share."""

    worker: int
    heartbeat_s: float
    inline_bytes: int
    """A result whose pickle is at most this long travels inside ``TaskDone``."""
    encrypted: bool = False
    """Whether bulk links are (see ``tls``)."""
    secret: str = ""
    """What bulk links prove, for workers without a connection file; "" where those are needed."""
    silent_s: float = 0.0
    """A worker that is not heard of for so long is given up (0: not told)."""


class Refused(msgspec.Struct, tag="refused"):
    """The worker may not join (another version, a closing manager). It says why and exits."""

    reason: str


class Rejoin(msgspec.Struct, tag="rejoin"):
    """The manager gave this worker up (it was silent for long) and heard it again: forget all tasks, and say
    ``Hello`` once more, with the files that are still held."""


class Context(msgspec.Struct, array_like=True):
    """What executors need before they can unpickle a blob: the user's own modules, and what to import.

    ``name`` is a digest of the content, so that two plans with the same code share executors. ``modules``
    is a zip archive of source files ("" when there are none), put on ``sys.path`` of the executors of this
    context; ``imports`` are imported once in the zygote, then forked.

    Contexts that state more than that have zygotes of their own. ``environment``: the file that is a packed
    environment in which executors run (0: the worker's own), ``environment_name`` its name by content.
    ``variables``: environment variables. ``setup``: what is run once in the zygote (see ``plan.Code``), known
    to users as ``setup_name``; ``inputs``: the files that it is given.
    """

    context: int
    name: str
    modules: bytes
    imports: list[str]
    environment: int = 0
    environment_name: str = ""
    variables: list[tuple[str, str]] = []
    setup: bytes = b""
    setup_name: str = ""
    inputs: list[int] = []


class BlobData(msgspec.Struct, array_like=True):
    """A blob: the pickled payloads of many tasks, made once, unpickled once by an executor."""

    blob: int
    context: int
    data: bytes | None
    """None when the worker should fetch it from the holders named in ``Source``."""


class TaskOrder(msgspec.Struct, array_like=True, gc=False):
    """Run one task: entry ``index`` of ``blob``, given the values of ``inputs`` in that order.

    Orders are sent in the order in which they should run. ``category`` is the manager's number for the
    task's category (durations are learned per category). An input is either a file this worker holds, or
    the result of a task that it was given before, or comes with this message (``values``, ``sources``).
    ``uses``: how many input slots of other tasks, and holds, there are on the result (0: not told).
    ``shares``: what it takes and makes may be, as it is, what others take.
    """

    task: int
    blob: int
    index: int
    inputs: list[int]
    category: int = 0
    attempt: int = 0
    uses: int = 0
    shares: bool = False


class OnNode(msgspec.Struct, frozen=True, array_like=True):
    """A file that a worker on the manager's own node can read for itself: what was declared of it
    (``plan.GivenFile``)."""

    path: str
    size: int
    tree: bool
    stamp: int


class Source(msgspec.Struct, array_like=True):
    """Where a file can be fetched: worker numbers whose addresses were given in ``peers``, to be tried in
    that order. An empty list means "pull it through the manager". ``coming``: one of the holders is perhaps
    just fetching it, or about to, and will pass it on (0: they all have it). ``on_node``: it can also be read
    on this node, which comes first."""

    file: int
    size: int
    holders: list[int]
    coming: int = 0
    on_node: OnNode | None = None


class Assign(msgspec.Struct, tag="assign", omit_defaults=True, gc=False):
    """Work for this worker, with all it needs to know to begin it."""

    orders: list[TaskOrder]
    blobs: list[BlobData] = []
    contexts: list[Context] = []
    values: dict[int, bytes] = {}
    """Small input values the worker does not hold."""
    sources: list[Source] = []
    peers: dict[int, list[Address]] = {}
    requests: dict[int, Resources] = {}
    """Requests of tasks that ask for something other than one core."""
    limits: dict[int, float] = {}
    """Seconds that a run may take, of tasks that are not to run for ever."""


class Sources(msgspec.Struct, tag="sources"):
    """New whereabouts of files the worker reported ``Missing``."""

    sources: list[Source]
    peers: dict[int, list[Address]] = {}
    values: dict[int, bytes] = {}


class Probe(msgspec.Struct, tag="probe"):
    """See whether links to these workers can be made by now, for whoever may need them; the answers come as
    ``Report.links``."""

    workers: list[int]
    peers: dict[int, list[Address]] = {}


class Drop(msgspec.Struct, tag="drop", gc=False):
    """Nobody needs these files on this worker any more (results, blobs)."""

    files: list[int]


class Recall(msgspec.Struct, tag="recall"):
    """Give these tasks back if they have not begun; the answer is ``Report.returned``. A task that waits
    here for the result of a recalled one goes back with it."""

    tasks: list[int]


class Cancel(msgspec.Struct, tag="cancel"):
    """Nobody wants these tasks: forget them, and stop those that run. Nothing is reported about them."""

    tasks: list[int]


class TurnGiven(msgspec.Struct, tag="turn-given"):
    """Tasks that asked for their turn (``Turn``), by their ``reply``, have it."""

    replies: list[str]


class Leave(msgspec.Struct, tag="leave"):
    """The manager is done with this worker: stop everything and exit. ``closing``: with all workers, for it
    closes."""

    reason: str
    closing: bool = False


# -- manager to factory -------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """Tasks that ask for the same and are not done: how many could run now (``able``), and all of them
    (``left``). ``seconds``: how long those of them will take in all, by what their like took, whose like has
    been measured; ``unmeasured``: how many of ``left`` are of kinds that nobody has run yet."""

    request: Resources
    features: tuple[str, ...]
    names: tuple[str, ...]
    """Workers or hosts to which they are bound (empty: to none)."""
    able: int
    left: int
    seconds: float
    unmeasured: int


class WorkerNews(msgspec.Struct, frozen=True, array_like=True):
    """A worker joined, or began to work, or ran out of work, or is gone."""

    worker: int
    job: str
    name: str
    host: str
    cores: float
    idle_s: float
    """For how long it has had nothing to do; -1 while it has."""
    gone: bool = False
    memory_mb: float = 0.0
    """What it has; 0: not said. So, too, ``disk_mb``."""
    disk_mb: float = 0.0


class Demand(msgspec.Struct, tag="demand"):
    """What the manager's work asks for now, and what is new of workers since the last time."""

    wanted: list[Wanted]
    workers: list[WorkerNews]


# -- worker to manager --------------------------------------------------------------------------------


class Hello(msgspec.Struct, tag="hello"):
    """A worker's first message."""

    protocol: int
    graphvine: str
    python: str
    """``major.minor``: pickled code objects do not cross minor versions."""
    name: str
    host: str
    node: str
    """Equal for processes that can open each other's files under ``store`` (boot id and mount namespace)."""
    store: str
    """Directory of the worker's file store, for a manager on the same node."""
    pid: int
    capacity: Resources
    addresses: list[Address]
    holds: list[tuple[int, int]] = []
    """Results still held from before a ``Rejoin``: file and size in bytes."""
    features: list[str] = []
    """What this worker has that tasks may ask for, by name."""
    left_s: float = 0.0
    """After so many seconds it begins to leave by itself; 0: it stays."""
    job: str = ""
    """The batch job that this worker is, as the batch system calls it; "" where it is none."""


class TaskDone(msgspec.Struct, array_like=True, gc=False):
    """A task ran. ``value`` is its pickled result when that is small; otherwise the worker keeps it as a
    file of ``size`` bytes. ``began_s`` is the Unix time at which it began, ``memory_mb`` the peak resident
    memory of its executor during the run (0 when too short to be measured)."""

    task: int
    size: int
    value: bytes | None
    began_s: float
    duration_s: float
    memory_mb: float = 0.0
    note: bytes = b""
    """What the task attached to its result."""


FailureKind = Literal[
    "raised", "killed", "unpicklable", "undecodable", "storage", "timeout", "environment", "library"
]


class TaskFailed(msgspec.Struct, array_like=True):
    """A task did not succeed on this worker.

    raised: the user's function raised; ``error`` is the pickled exception ("" when it cannot be pickled),
    ``text`` the formatted traceback. killed: its executor died; ``text`` says how (signal, exit code,
    memory, last lines of stderr). unpicklable: the result cannot be pickled. undecodable: the payload or
    an input cannot be unpickled there (a missing module, say). storage: no room for the result. timeout: it
    ran for longer than it may. environment: the context's environment cannot be used there. library: the
    context's set-up did not succeed there.
    """

    task: int
    attempt: int
    kind: FailureKind
    text: str
    error: bytes = b""
    began_s: float = 0.0
    duration_s: float = 0.0
    memory_mb: float = 0.0
    note: bytes = b""


class Missing(msgspec.Struct, array_like=True):
    """A file could not be fetched from any holder that was named; tasks that need it wait here."""

    file: int
    holders: list[int]
    reason: str


#: What became of a link to another worker's transfer server. refused: somebody said no there, or the wrong
#: thing; silent: nothing answered.
LinkState = Literal["made", "refused", "silent"]


class LinkNews(msgspec.Struct, array_like=True, gc=False):
    """What this worker learned of the link to another, for the first time or since it last said so."""

    worker: int
    state: LinkState


class ContextNews(msgspec.Struct, array_like=True, gc=False):
    """Whether this worker has all that tasks of a context need beside their inputs: its environment is
    unpacked, its set-up has run. Until the first such word it has not."""

    context: int
    ready: bool


class Report(msgspec.Struct, tag="report", omit_defaults=True, gc=False):
    """What happened on a worker since its last report."""

    done: list[TaskDone] = []
    failed: list[TaskFailed] = []
    fetched: list[int] = []
    """Files of which this worker now holds a replica, beyond the results of its own tasks."""
    missing: list[Missing] = []
    lost: list[int] = []
    """Files this worker held and holds no longer, though nobody told it to drop them."""
    returned: list[int] = []
    """Recalled tasks that had not begun, with those that waited for them."""
    sizes: dict[int, int] = {}
    """How many bytes travel of fetched files that were read on this node, where the manager did not know."""
    links: list[LinkNews] = []
    contexts: list[ContextNews] = []


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    """Sent by the agent every ``heartbeat_s``, whatever its executors do."""

    running: int
    memory_mb: float
    store_mb: float


class Leaving(msgspec.Struct, tag="leaving"):
    """The worker is going to leave: it begins nothing more, ends what it has begun, and goes when the manager
    sends it away, or when ``grace_s`` are over. ``idle``: it has nothing to do, and leaves only if the
    manager can do without it (no answer: it cannot)."""

    reason: str
    grace_s: float
    idle: bool = False


class Goodbye(msgspec.Struct, tag="goodbye"):
    """The worker leaves by its own will, now."""

    reason: str


class Attend(msgspec.Struct, tag="attend"):
    """The first message of a factory, which starts workers and is none: it is told what is asked for
    (``Demand``), at once and whenever that changes, and that the manager closes (``Leave``)."""

    protocol: int
    graphvine: str
    name: str
    host: str


class Retire(msgspec.Struct, tag="retire"):
    """From a factory: the workers of these batch jobs are not needed any more. They get no more tasks, hand
    over what only they hold, and leave."""

    jobs: list[str]
    reason: str


class Output(msgspec.Struct, tag="output", omit_defaults=True):
    """Lines that tasks printed, for the user to see: of their standard output (1) or error (2). ``left_out``:
    bytes that were printed before and are not passed on, because they were too many."""

    stream: int
    data: bytes
    left_out: int = 0


class Told(msgspec.Struct, tag="told"):
    """What a running task says on its way, for whoever waits for it."""

    task: int
    attempt: int
    data: bytes


class Turn(msgspec.Struct, tag="turn"):
    """A running task wants to count under a limit from now on: ``TurnGiven`` with this ``reply`` lets it go
    on. An empty ``reply``: it counts no more."""

    task: int
    limit: str
    reply: str


# -- both ways: bytes that cannot go from peer to peer --------------------------------------------------


class Pull(msgspec.Struct, tag="pull"):
    """Asks for a piece of a file. From a worker: the manager passes it on to a holder. The receiver of the
    bytes asks for the next piece only when it has room."""

    file: int
    offset: int
    length: int
    requester: int
    """Number of the worker the piece is for; 0 is the manager itself."""


class Taken(msgspec.Struct, tag="taken"):
    """So many pieces that came through the manager are here: from then on others may be under way."""

    pieces: int


class Piece(msgspec.Struct, tag="piece"):
    """The answer to ``Pull``. ``total`` is the file's size; -1 when the file is not held (any more).
    ``checksum`` is xxh3_64 of ``data``; ``tree``: the bytes are of a tree's flat form, else of a value."""

    file: int
    offset: int
    total: int
    data: bytes
    checksum: int
    requester: int
    tree: bool = False


ToWorker = (
    Welcome
    | Refused
    | Rejoin
    | Assign
    | Sources
    | Probe
    | Drop
    | Recall
    | Cancel
    | TurnGiven
    | Leave
    | Pull
    | Piece
)
ToFactory = Demand | Refused | Rejoin | Leave
ToManager = (
    Hello
    | Attend
    | Retire
    | Report
    | Heartbeat
    | Output
    | Told
    | Turn
    | Leaving
    | Goodbye
    | Pull
    | Piece
    | Taken
)

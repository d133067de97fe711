"""Every number the manager's core goes by, in one frozen object."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """Times in seconds, sizes in bytes."""

    heartbeat_s: float = 1.0
    """How often a worker says that it lives."""
    silent_s: float = 6.0
    """A worker not heard of for so long is lost."""
    inline_bytes: int = 8192
    """A result whose pickle is at most this long travels inside ``TaskDone``."""
    window_s: float = 0.1
    """How much work, per core, a worker is given ahead."""
    ahead_per_core: int = 2
    """At least so many tasks per core are given ahead, however long they take."""
    family_s: float = 1.0
    """While families (tasks that lead back to one) take no longer than this on average, workers are given as
    many of them ahead as of single tasks."""
    join_s: float = 0.25
    """... and where families are tasks with what is made for them alone, no longer than this."""
    floor_s: float = 50e-6
    """No task is expected to take less than this: what running one costs by itself."""
    wide: int = 32
    """A result with more consumers than this draws none of them to the worker that holds it."""
    bandwidth: float = 500e6
    """Assumed bytes per second between workers."""
    latency_s: float = 0.005
    """Assumed cost of having a queued task run elsewhere."""
    recall_s: float = 0.02
    """Less queued work than this, per core, is not called back for an idle worker."""
    blob_by_peer_bytes: int = 2**20
    """A blob at least this large is fetched from a worker that holds it, if there is one."""
    sources: int = 3
    """So many holders of a file are named to a worker."""
    direct_tries: int = 4
    """When so many holders of a file have failed a worker, it gets the file through the manager."""
    retry_link_s: float = 30.0
    """A link between workers that could not be made is tried again after this, when somebody could use it,
    then after twice as long, and so on."""
    retry_link_most_s: float = 600.0
    links_remembered: int = 20_000
    """At most so many facts are remembered about links (see ``reach``)."""
    relayed_pieces: int = 256
    """At most so many pieces of files are on their way to workers through the manager, of 256 kB each."""
    spread_bytes: int = 8 * 2**20
    """A file at least this large is passed on by workers that are still fetching it (see ``spread``)."""
    duration_margin: float = 1.5
    """A task is not begun where its category's mean time, times this, is not left."""
    reconsider_s: float = 60.0
    """After so long is looked again whether there is time for tasks for which there was none."""
    max_deaths: int = 3
    """A task that killed its executor so often fails."""
    max_shared_losses: int = 2
    """A task that was perhaps running on so many lost workers is from then on run alone on its worker."""
    suspect_s: float = 0.01
    """What ran within so long before a worker was lost may not have been reported."""
    max_lone_losses: int = 3
    """A task whose worker was lost so often while it ran there alone fails."""
    max_storage_tries: int = 3
    """A task for whose result no room was found so often fails."""
    patience_s: float = 5.0
    """After so long there is a warning about tasks that no present worker can run."""
    first_worker_s: float = 5.0
    """... and after so long without any worker (a manager that starts one itself gives it longer)."""
    unrunnable_s: float = 120.0
    """After so long a plan fails whose task none of the present workers can ever run."""
    demand_s: float = 0.5
    """What the work asks for is told at most so often (see ``demand``)."""
    encrypted: bool = False
    """Whether files travel over encrypted links."""
    told_secret: str = ""
    """The secret that bulk links prove, for workers that have no connection file."""
    node: str = ""
    """The node that the manager is on (as ``Hello.node``); its workers read given files for themselves."""
    how_to_join: str = ""
    """What the user is told to do while there is no worker; "" lets the manager say how one is started."""
    checked: bool = False
    """Every transition is checked against the table, and remembered (for tests: it costs)."""

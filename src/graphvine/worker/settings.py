"""Every number the worker decides by, in one place."""

from __future__ import annotations

import msgspec

from graphvine.protocol.pieces import MOST_AHEAD, PIECE_BYTES


class Settings(msgspec.Struct, frozen=True):
    """Times in seconds, sizes in bytes. The defaults are measured on four cores; tests choose their own."""

    # How tasks form packets.
    packet_s: float = 0.005
    """A packet holds about this much work; a task as long as this goes alone."""
    packet_tasks: int = 128
    packet_bytes: int = 100_000
    """Bound of the inline inputs in one packet (one message of a socket pair carries about 200 kB)."""
    task_overhead_s: float = 5e-6
    """What a task costs an executor beyond its own duration."""
    ahead_s: float = 0.05
    """An executor gets its next packet before it is done with one, when their tasks are shorter than this."""

    family_s: float = 1.0
    """Tasks follow in the packet that makes their inputs up to about this much work."""
    join_s: float = 0.25
    """What else a task needs is made in one packet with it up to about this much work."""

    gather_s: float = 0.002
    """Results wait so long for others to be reported with, while there is more to do than can be begun."""

    # When a packet that was not read is given to somebody else.
    steal_s: float = 0.001
    """Moved at once when more work than this waits before an executor while another is idle."""
    overdue_s: float = 0.005
    """Moved in any case when the packet before it takes this much longer than expected."""

    # Executors.
    warm_executors: int = 4
    """Started before any work is there (never more than there are cores)."""
    start_tries: int = 5
    """When so many in a row die before they are ready, a task is failed with the cause."""
    start_delay_s: float = 0.5
    setup_s: float = 600.0
    """How long the set-up of a library may take."""
    setup_tries: int = 3
    """When a set-up took its zygote down so often, the tasks that wait for it are failed."""
    failure_kept_s: float = 10.0
    """What could not be started is the answer to tasks for so long, before it is tried again."""
    zygotes: int = 4
    """Beyond so many, besides the base one, zygotes that nobody needs are ended."""
    cancel_grace_s: float = 0.5
    """A short task that was cancelled gets so long to end by itself before its executor is stopped."""

    bar_link_s: float = 20.0
    """A peer that could not be reached is not tried again for so long, whatever was said before."""

    # Pulling through the manager.
    piece_bytes: int = PIECE_BYTES
    pieces_ahead: int = MOST_AHEAD
    """At most so many are under way; fewer where they would wait for each other (see ``protocol.pace``)."""
    piece_tries: int = 3

    # The link to the manager.
    connect_s: float = 2.0
    """How long one of several addresses of the manager may take until it is connected."""
    refused_s: float = 0.1
    """... and how long to stay with one at which nobody listens."""
    answer_s: float = 10.0
    """How long a connected manager, or the only address, may take to answer ``Hello``."""
    rejected_s: float = 5.0
    """... and how long to go on where every address belongs to somebody else."""
    lost_s: float = 60.0
    """A worker whose manager is unreachable for so long exits."""

"""The ADL example's graph: bytes of payload for one worker, over those of the graph pickled in one go.

Payload is all that makes the tasks: the plan's blobs, each sent at most once to a worker, and the orders.
"""

from __future__ import annotations

from typing import Any

from adl_common import histograms
from harness import QUICK, Row, emit, say


class Caught(Exception):
    """Stops ``get`` where the plan would be run."""


def plan_of(collections: Any) -> Any:
    """The plan that ``get`` makes of these collections."""
    import dask

    import graphvine

    caught = []

    class Catcher(graphvine.Manager):
        def run(self, plan: Any, *, keep: bool = False) -> Any:
            caught.append(plan)
            raise Caught

    with Catcher(local_workers=False) as manager:
        try:
            dask.compute(collections, scheduler=manager.get)
        except Caught:
            return caught[0]
    raise AssertionError("no plan was made")


def payload_bytes(plan: Any) -> int:
    """What a worker gets when it runs all of it."""
    from graphvine.protocol.codec import encode
    from graphvine.protocol.messages import Assign, TaskOrder

    inputs = [[i for i in row if i >= 0] for row in plan.inputs]
    orders = [
        TaskOrder(t, plan.blob_of[t], plan.blob_index[t], inputs[t], plan.category_of[t])
        for t in range(len(plan))
    ]
    return sum(map(len, plan.blobs)) + len(encode([Assign(orders)]))


def one_go_bytes(collections: Any) -> int:
    """The optimised graph, pickled at once."""
    import cloudpickle
    import dask
    from dask.base import collections_to_dsk

    parts, _ = dask.base.unpack_collections(collections)
    graph = collections_to_dsk(parts)
    graph = graph.__dask_graph__() if hasattr(graph, "__dask_graph__") else graph
    return len(cloudpickle.dumps(dict(graph), protocol=5))


def main() -> None:
    rows = []
    for chunks in (40,) if QUICK else (200, 2000):
        planned = histograms(chunks)
        plan, whole = plan_of(planned), one_go_bytes(planned)
        ours = payload_bytes(plan)
        say(f"{chunks} chunks: {len(plan):,} tasks, {ours:,} bytes; in one go {whole:,} bytes")
        what = f"ADL example, {chunks:,} chunks: payload for one worker, over the graph pickled in one go"
        details = {"bytes": {"payload": ours, "one go": whole}, "tasks": len(plan)}
        row = Row(f"adl_payload_{chunks}", what, ours / whole, "3x", "1.2x", details, smaller_is_better=True)
        rows.append(row)
    emit(*rows)


if __name__ == "__main__":
    main()

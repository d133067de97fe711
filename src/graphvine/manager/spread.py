"""How one large file gets to the workers that need it: by a tree of links, over which it is passed on while
it still arrives. Pure.

Every worker that needs the file is given one *parent* when it is told of it: a worker that holds the file, or
one that was told before and is just fetching it. One that could not get it from there is given another, which
does not wait for it. So there are no rings, and nobody waits for what comes from itself. Whoever can reach
nobody that has or will have the file gets it through the manager, and is from then on a parent for those who
reach it.

A worker that serves two at a time gives each half of its bandwidth, so most have one child, and the file
takes hardly longer to get to the end of such a chain than to its beginning. But each link adds a little delay
and can break: beyond ``CHAIN`` links another child of an early worker is better than one more link. The
parent chosen is always the one with the least ``children * CHAIN + depth``; that makes a tree which is deep
as long as it is small, and whose depth and number of children grow with the logarithm of its size.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

#: So many are looked at for one that may be the parent.
_CANDIDATES = 32
#: As many links in a row are as bad as sharing a parent's bandwidth with one more child.
CHAIN = 24


class Node:
    """One worker that has the file or was told to fetch it."""

    __slots__ = ("children", "depth", "here", "parent", "worker")

    def __init__(self, worker: int, parent: Node | None, depth: int) -> None:
        self.worker = worker
        self.parent = parent
        self.depth = depth
        """Links between it and the nearest worker that holds the file whole."""
        self.children = 0
        """How many fetch from it."""
        self.here = True

    @property
    def cost(self) -> int:
        return self.children * CHAIN + self.depth


class Spread:
    """The tree of one file. A choice costs the logarithm of the number of workers."""

    def __init__(self, holders: list[int]) -> None:
        self.nodes: dict[int, Node] = {}
        self._heap: list[tuple[int, int, int]] = []
        """Cost when it was put here, order, worker. An entry whose cost is true no more is passed over."""
        self._count = 0
        for holder in holders:
            self._add(Node(holder, None, 0))

    def place(self, worker: int, may_ask: Callable[[int], bool] = lambda _: True) -> int:
        """Give a worker that needs the file its parent, or another one. ``may_ask``: of whom it can be a
        child. 0: of nobody that has it or will have it before."""
        node = self.nodes.get(worker)
        if node is None:
            node = Node(worker, None, 0)
        else:
            # Who was told to fetch from it still is.
            self._detach(node)
        parent = self._cheapest(node, may_ask)
        node.parent, node.depth = parent, 0
        if parent is not None:
            node.depth = parent.depth + 1
            parent.children += 1
            self._offer(parent)
        self._add(node)
        return parent.worker if parent is not None else 0

    def complete(self, worker: int) -> None:
        """A worker has the file now, wherever it came from."""
        node = self.nodes.get(worker)
        if node is None:
            self._add(Node(worker, None, 0))
            return
        self._detach(node)
        node.depth = 0
        self._offer(node)

    def forget(self, worker: int) -> None:
        """A worker does not have the file (any more), and will not get it."""
        node = self.nodes.pop(worker, None)
        if node is not None:
            node.here = False
            self._detach(node)

    def _add(self, node: Node) -> None:
        self.nodes[node.worker] = node
        self._offer(node)

    def _detach(self, node: Node) -> None:
        parent, node.parent = node.parent, None
        if parent is not None:
            parent.children -= 1
            if parent.here:
                self._offer(parent)

    def _offer(self, node: Node) -> None:
        self._count += 1
        heapq.heappush(self._heap, (node.cost, self._count, node.worker))

    def _cheapest(self, child: Node, may_ask: Callable[[int], bool]) -> Node | None:
        """The best parent for ``child``: none of those that wait for it."""
        found: Node | None = None
        passed_over: list[tuple[int, int, int]] = []
        while found is None and self._heap and len(passed_over) < _CANDIDATES:
            entry = cost, _, worker = self._heap[0]
            node = self.nodes.get(worker)
            if node is None or node.cost != cost:
                heapq.heappop(self._heap)
            elif _waits_for(node, child) or not may_ask(worker):
                passed_over.append(entry)
                heapq.heappop(self._heap)
            else:
                found = node
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return found


def _waits_for(node: Node | None, other: Node) -> bool:
    while node is not None and node is not other:
        node = node.parent
    return node is not None

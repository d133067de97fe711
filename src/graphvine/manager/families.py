"""Families: a task and all tasks that lead back to nothing but it; or one with all that is made for it alone.

A chunk of events is read, and a dozen tasks each take a look at what was read; or eight arrays are made, and
one task adds them. Run one after the other by one executor, they hand each other their values as they are;
spread over a plan in any other order, each value is pickled, written, kept and read. So what follows in a
family goes before what begins one, and a worker is given ahead whole families while they are short.

Rules:

- The head of a task is the one head of all its inputs, else itself. Inputs that many tasks share, and those
  from other plans, do not count.
- Only a family of at least two matters. It costs one pass over the plan, and nothing per task where there is
  none.
- A plan without such families perhaps has *joins*: tasks with several inputs that nobody else needs. Then
  each is a family with those. The plan's own order has them side by side; nothing goes before.
"""

from __future__ import annotations

from collections.abc import Sequence

#: So many tasks per core and unit of ``ahead_per_core`` are given ahead at most, however large families are.
_MOST = 64.0
#: ... and only one by one where there are fewer families than this for each core.
_PER_CORE = 2.0


class Families:
    """The families of one plan. ``follows[t]``: task ``t`` is in one, and goes before what begins the next.
    ``joins``: they are tasks with what is made for them alone."""

    __slots__ = ("_counts", "_number", "follows", "joins", "tasks")

    def __init__(
        self, follows: bytearray, number: int, counts: dict[int, int], *, joins: bool = False
    ) -> None:
        self.follows = follows
        self.joins = joins
        self._number = number
        self._counts = counts
        """Tasks of all families, by category."""
        self.tasks = sum(counts.values()) / number
        """How many a family has on average."""

    def expected_s(self, means: dict[int, float]) -> float:
        """Seconds that a family takes on average, by the measured means of categories; others count 0."""
        return sum(count * means.get(local, 0.0) for local, count in self._counts.items()) / self._number

    def ahead(self, means: dict[int, float], longest_s: float, cores: float) -> float:
        """How many tasks are to be given ahead in the place of one; ``cores``: of all workers. Where families
        are few, their members are the work that there is to share out."""
        if self._number < _PER_CORE * cores or self.expected_s(means) > longest_s:
            return 1.0
        return min(self.tasks, _MOST)


def find(
    inputs: Sequence[tuple[int, ...]],
    consumers: Sequence[Sequence[int]],
    category_of: Sequence[int],
    wide: int,
) -> Families | None:
    """The families of a plan, whose tasks come after their inputs, or its joins; None when it has neither."""
    heads = list(range(len(inputs)))
    follows = bytearray(len(inputs))
    for task, names in enumerate(inputs):
        head = -1
        for name in names:
            if name < 0 or len(consumers[name]) > wide or heads[name] == head:
                continue
            if head >= 0:
                break
            head = heads[name]
        else:
            if head >= 0:
                heads[task] = head
                follows[task] = 1
    if not any(follows):
        return _find_joins(inputs, consumers, category_of, wide)
    many = {heads[task] for task in range(len(heads)) if follows[task]}
    counts: dict[int, int] = {}
    for task, head in enumerate(heads):
        if head in many:
            counts[category_of[task]] = counts.get(category_of[task], 0) + 1
    return Families(follows, len(many), counts)


def _find_joins(
    inputs: Sequence[tuple[int, ...]],
    consumers: Sequence[Sequence[int]],
    category_of: Sequence[int],
    wide: int,
) -> Families | None:
    counts: dict[int, int] = {}
    number = 0
    for task, names in enumerate(inputs):
        if 1 < len(names) <= wide and all(name >= 0 and len(consumers[name]) == 1 for name in names):
            number += 1
            for member in (task, *names):
                counts[category_of[member]] = counts.get(category_of[member], 0) + 1
    return Families(bytearray(len(inputs)), number, counts, joins=True) if number else None

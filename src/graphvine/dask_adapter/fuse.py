"""Straight chains become one task each.

Two tasks are fused when the second needs nothing but the first, nobody else needs the first, and both ask
for the same. That loses no parallelism. Chains are cut at ``MAX_CHAIN`` tasks, so that what a lost worker
costs stays small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any

from graphvine.protocol.payload import Entry, run_chain

MAX_CHAIN = 32

Chains = dict[int, list[int]]


def find_chains(
    inputs: Sequence[tuple[int, ...]], wanted: Collection[int], options: dict[int, Any]
) -> Chains:
    """Last task of each chain -> its tasks in order. ``options``: of the tasks that have their own."""
    links = [
        (needs[0], task)
        for task, needs in enumerate(inputs)
        if len(needs) == 1 and needs[0] >= 0 and needs[0] not in wanted
    ]
    if not links:
        return {}
    uses = Counter(chain.from_iterable(inputs))
    chains: Chains = {}
    for before, task in links:
        if uses[before] == 1 and options.get(before) == options.get(task):
            members = chains.pop(before, None) or [before]
            if len(members) < MAX_CHAIN:
                members.append(task)
                chains[task] = members
            else:
                chains[before] = members
    return chains


def fused_entry(entries: Sequence[Entry], keys: Sequence[Any], members: Sequence[int]) -> Entry:
    """The entry that runs a chain."""
    steps = tuple(entries[member] for member in members)
    return (run_chain, (steps, tuple(keys[member] for member in members)), None)


def renumber(count: int, chains: Chains) -> tuple[list[int], list[int]]:
    """(tasks that remain, in order; new number of each old task, that of a chain's end for its members)."""
    inner = {member for members in chains.values() for member in members[:-1]}
    remaining = [task for task in range(count) if task not in inner]
    number = [0] * count
    for new, task in enumerate(remaining):
        number[task] = new
    for end, members in chains.items():
        for member in members[:-1]:
            number[member] = number[end]
    return remaining, number

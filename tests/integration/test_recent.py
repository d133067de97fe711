"""What several tasks take: kept in executors, shared in a graph, and everybody's own elsewhere."""

from __future__ import annotations

from typing import Any

import graphvine as gv

SIZE = 20_000
made: list[int] = []


class Table:
    """It is known in each process how often one was made from its pickle."""

    def __init__(self, rows: list[list[str]]) -> None:
        self.rows = rows

    def __reduce__(self) -> Any:
        return make_anew, (self.rows,)


def make_anew(rows: list[list[str]]) -> Table:
    made.append(len(rows))
    return Table(rows)


def table() -> Table:
    return Table([[str(number)] for number in range(SIZE)])


def look(given: Table, number: int) -> tuple[str, int]:
    return given.rows[number][0], len(made)


def spoil(given: Table, number: int) -> int:
    """Takes everything out of what it was given."""
    count = len(given.rows)
    given.rows.clear()
    return count


def test_tasks_of_a_graph_look_things_up_in_one_table() -> None:
    graph: dict[Any, Any] = {"table": (table,)}
    graph |= {("look", n): (look, "table", n) for n in range(30)}
    with gv.Manager(local_workers=1) as manager:
        found = manager.get(graph, [("look", n) for n in range(30)])
    assert [text for text, _ in found] == [str(n) for n in range(30)]
    # The only executor made it, and had no need to make it from its pickle.
    assert max(times for _, times in found) == 0


def test_calls_of_an_executor_have_their_own() -> None:
    with gv.Manager(local_workers=1) as manager, manager.executor() as executor:
        given = executor.submit(table)
        counts = [executor.submit(spoil, given, n) for n in range(6)]
        assert [count.result() for count in counts] == [SIZE] * 6

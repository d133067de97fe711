"""Contexts with zygotes of their own: who waits for them, what becomes of those that don't come up."""

from __future__ import annotations

import pytest
from tests.unit.worker.bench import BLOB, Bench, order

from graphvine.protocol.messages import BlobData, Context
from graphvine.worker.nursery import zygote_key
from graphvine.worker.settings import Settings


def library(number: int, name: str = "fits", modules: bytes = b"", imports: tuple[str, ...] = ()) -> Context:
    setup = f"set-up of {name}".encode()
    return Context(number, f"code-{number}", modules, list(imports), setup=setup, setup_name=name)


def give(bench: Bench, context: Context, *tasks: int) -> str:
    """Tasks of a context; the key of its zygote."""
    blob = BLOB + context.context
    orders = [order(task) for task in tasks]
    for one in orders:
        one.blob = blob
    bench.assign(*orders, blobs=[BlobData(blob, context.context, b"blob")], contexts=[context])
    return zygote_key(context)


def test_tasks_wait_for_their_zygote_and_others_do_not() -> None:
    bench = Bench(cores=1)
    key = give(bench, library(1), 1, 2)
    assert bench.zygotes == {key: 1}
    assert not bench.executors
    bench.assign(order(3))
    bench.run_all()
    assert set(bench.done) == {3}
    bench.zygote_ready(key)
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}
    assert {executor.zygote for executor in bench.executors.values()} == {"", key}


def test_contexts_share_a_zygote_when_nothing_of_it_differs() -> None:
    one = library(1, imports=("numpy",))
    assert zygote_key(one) == zygote_key(library(2, imports=("pandas",)))
    assert zygote_key(one) != zygote_key(library(1, "other"))
    assert zygote_key(one) != zygote_key(library(1, modules=b"zip"))
    assert zygote_key(Context(1, "x", b"zip", ["numpy"])) == ""
    variables = Context(1, "x", b"zip", [], variables=[("A", "1")])
    assert zygote_key(variables) == zygote_key(Context(2, "y", b"other", [], variables=[("A", "1")]))
    assert zygote_key(variables) != zygote_key(Context(1, "x", b"zip", [], variables=[("A", "2")]))


def test_the_zygote_is_started_before_the_inputs_are_there() -> None:
    bench = Bench(cores=1)
    context = library(1)
    waiting = order(2, 99)
    waiting.blob = BLOB + 1
    bench.assign(waiting, blobs=[BlobData(BLOB + 1, 1, b"blob")], contexts=[context])
    assert bench.zygotes == {zygote_key(context): 1}


def test_a_set_up_that_raises_fails_its_tasks_alone_and_once() -> None:
    bench = Bench(cores=1)
    key = give(bench, library(1), 1, 2)
    good = give(bench, library(2, "other"), 3)
    bench.zygote_fails(key, "Traceback\nValueError: no", b"pickle")
    assert [(failed.task, failed.kind, failed.error) for failed in bench.failed] == [
        (1, "library", b"pickle"),
        (2, "library", b"pickle"),
    ]
    assert "library fits could not be started" in bench.failed[0].text
    assert "ValueError: no" in bench.failed[0].text
    bench.zygote_ready(good)
    bench.run_all()
    assert set(bench.done) == {3}


def test_a_failure_is_the_answer_for_a_while_and_then_it_is_tried_again() -> None:
    settings = Settings(warm_executors=0, failure_kept_s=10.0)
    bench = Bench(cores=1, settings=settings)
    key = give(bench, library(1), 1)
    bench.zygote_fails(key)
    give(bench, library(1), 2)
    assert [failed.task for failed in bench.failed] == [1, 2]
    assert not bench.zygotes
    bench.wait(11.0)
    assert not bench.zygotes, "nobody needs it"
    give(bench, library(1), 3)
    bench.zygote_ready(key)
    bench.run_all()
    assert set(bench.done) == {3}


def test_a_set_up_that_kills_its_zygote_is_tried_a_few_times() -> None:
    settings = Settings(warm_executors=0, setup_tries=3)
    bench = Bench(cores=1, settings=settings)
    key = give(bench, library(1), 1)
    for _ in range(2):
        bench.zygote_dies(key)
        assert not bench.failed
        assert not bench.zygotes, "the next one comes after a pause"
        bench.wait(settings.start_delay_s)
        assert key in bench.zygotes
    bench.zygote_dies(key)
    (failed,) = bench.failed
    assert failed.kind == "library"
    assert failed.text == "library fits could not be started: signal 9"


def test_a_zygote_that_dies_is_replaced_and_nobody_else_is_touched() -> None:
    settings = Settings(warm_executors=0)
    bench = Bench(cores=2, settings=settings)
    key = give(bench, library(1), 1)
    other = give(bench, library(2, "other"), 2)
    bench.zygote_ready(key)
    bench.zygote_ready(other)
    bench.bring_up()
    survivors = [number for number, executor in bench.executors.items() if executor.zygote == other]
    bench.zygote_dies(key)
    assert list(bench.executors) == survivors
    bench.run_all()
    assert set(bench.done) == {2}
    bench.wait(settings.start_delay_s)
    bench.zygote_ready(key)
    bench.run_all()
    assert set(bench.done) == {1, 2}
    assert not bench.failed


def test_executors_that_do_not_come_up_hold_up_their_own_zygote_only() -> None:
    settings = Settings(warm_executors=0, start_tries=2)
    bench = Bench(cores=1, settings=settings)
    key = give(bench, library(1), 1)
    bench.zygote_ready(key)
    (number,) = bench.executors
    bench.die(number)
    assert not bench.executors
    bench.assign(order(2))
    bench.run_all()
    assert set(bench.done) == {2}
    bench.wait(settings.start_delay_s)
    (number,) = [number for number, executor in bench.executors.items() if executor.zygote == key]
    bench.die(number)
    assert [failed.task for failed in bench.failed] == [1]


def test_beyond_a_few_the_least_recently_used_zygotes_are_ended() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, zygotes=2))
    keys = []
    for number in (1, 2, 3):
        keys.append(give(bench, library(number, f"library-{number}"), number))
        bench.zygote_ready(keys[-1])
        bench.run_all()
        if number == 2:
            give(bench, library(1, "library-1"), 10)
            bench.run_all()
    assert bench.ended_zygotes == [keys[1]]
    assert set(bench.zygotes) == {keys[0], keys[2]}
    give(bench, library(2, "library-2"), 20)
    bench.zygote_ready(keys[1])
    bench.run_all()
    assert set(bench.done) == {1, 2, 3, 10, 20}


def test_a_zygote_that_is_needed_is_not_ended() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, zygotes=1))
    keys = [give(bench, library(number, f"library-{number}"), number) for number in (1, 2)]
    bench.zygote_ready(keys[0])
    bench.zygote_ready(keys[1])
    give(bench, library(3, "library-3"), 3)
    assert not bench.ended_zygotes
    bench.zygote_ready(zygote_key(library(3, "library-3")))
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}


def test_work_that_alternates_between_zygotes_finds_executors_of_both() -> None:
    bench = Bench(cores=1)
    key = give(bench, library(1), 1)
    bench.zygote_ready(key)
    bench.run_all()
    bench.assign(order(2))
    bench.run_all()
    give(bench, library(1), 3)
    bench.run_all()
    bench.assign(order(4))
    bench.run_all()
    assert len(bench.executors) == 2
    assert not bench.killed


@pytest.mark.parametrize("ready_first", [True, False])
def test_cancelled_and_recalled_tasks_of_a_held_lane_are_gone(ready_first: bool) -> None:
    bench = Bench(cores=1)
    key = give(bench, library(1), 1, 2, 3)
    if ready_first:
        bench.zygote_ready(key)
    bench.core.on_cancel([1], bench.now)
    bench.core.on_recall([2])
    bench.turn()
    assert bench.returned() == [2]
    if not ready_first:
        bench.zygote_ready(key)
    bench.run_all()
    assert set(bench.done) == {3}

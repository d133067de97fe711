"""Contexts with zygotes of their own: who waits for them, what becomes of those that don't come up."""

from __future__ import annotations

import pytest
from tests.unit.worker.bench import BLOB, Bench, order

from graphvine.protocol.messages import Address, BlobData, Context, Source, Sources
from graphvine.protocol.zygotes import zygote_key
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


def news(bench: Bench) -> list[tuple[int, bool]]:
    return [(said.context, said.ready) for report in bench.reports for said in report.contexts]


def test_the_manager_is_told_what_is_ready_and_what_is_not_any_more() -> None:
    bench = Bench(cores=1)
    key = give(bench, library(1), 1)
    give(bench, library(2, imports=("json",)), 2)
    assert news(bench) == []
    bench.zygote_ready(key)
    assert [ready for _, ready in news(bench)] == [True], "both need the same one"
    bench.zygote_dies(key)
    assert [ready for _, ready in news(bench)] == [True, False]
    bench.wait(10.0)
    bench.zygote_fails(key)
    assert len(news(bench)) == 2


def test_a_manager_that_knows_nothing_of_this_worker_is_told_anew() -> None:
    bench = Bench(cores=1)
    key = give(bench, library(1), 1)
    bench.zygote_ready(key)
    bench.run_all()
    bench.core.on_rejoin(bench.now)
    bench.turn()
    assert len(news(bench)) == 1
    give(bench, library(1), 2)
    assert news(bench) == [(1, True)] * 2


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
    bench.recall(2)
    assert bench.returned() == [2]
    if not ready_first:
        bench.zygote_ready(key)
    bench.run_all()
    assert set(bench.done) == {3}


# -- environments ---------------------------------------------------------------------------------------

ARCHIVE = 700


def inside(number: int, name: str = "env", archive: int = ARCHIVE) -> Context:
    return Context(number, f"code-{number}", b"", [], environment=archive, environment_name=name)


def missing(bench: Bench) -> list[int]:
    return [one.file for report in bench.reports for one in report.missing]


def fetch(bench: Bench, file: int = ARCHIVE) -> None:
    """The manager names a holder, and the file comes."""
    bench.core.on_sources(sources(file))
    bench.turn()
    assert [one.file for one in bench.fetches] == [file]
    bench.fetches.clear()
    bench.stored.add(file)
    bench.core.on_fetched(file, 1000)
    bench.turn()


def sources(file: int) -> Sources:
    return Sources([Source(file, 1000, [3])], {3: [Address("other", 1)]})


def test_an_environment_that_is_there_is_not_fetched() -> None:
    bench = Bench(cores=1)
    key = give(bench, inside(1), 1)
    assert bench.looking == {key: "env"}
    assert not bench.zygotes
    bench.core.on_environment_found(key, -1.0)
    bench.turn()
    bench.zygote_ready(key)
    bench.run_all()
    assert set(bench.done) == {1}
    assert not missing(bench)
    assert any("unpacked on this node already" in note.text for note in bench.notes)


def test_an_environment_that_is_not_there_is_fetched_once_and_unpacked() -> None:
    bench = Bench(cores=1)
    key = give(bench, inside(1), 1, 2)
    bench.core.on_environment_absent(key)
    bench.turn()
    give(bench, inside(1), 3)
    assert missing(bench) == [ARCHIVE]
    assert not bench.unpacking
    bench.assign(order(10))
    bench.run_all()
    assert set(bench.done) == {10}
    fetch(bench)
    assert bench.unpacking == {key: ARCHIVE}
    bench.core.on_environment_found(key, 2.5)
    bench.turn()
    assert any("unpacked environment env in 2.5 s" in note.text for note in bench.notes)
    bench.zygote_ready(key)
    bench.run_all()
    assert set(bench.done) == {1, 2, 3, 10}


def test_an_archive_stays_while_it_is_unpacked() -> None:
    bench = Bench(cores=1)
    key = give(bench, inside(1), 1)
    bench.core.on_environment_absent(key)
    bench.turn()
    fetch(bench)
    bench.core.on_drop([ARCHIVE])
    bench.turn()
    assert ARCHIVE in bench.stored
    bench.core.on_environment_found(key, 0.1)
    bench.turn()
    assert ARCHIVE not in bench.stored


def test_an_environment_that_cannot_be_used_fails_its_tasks_alone_and_at_once() -> None:
    bench = Bench(cores=1)
    key = give(bench, inside(1), 1, 2)
    bench.assign(order(10))
    bench.core.on_environment_absent(key)
    bench.turn()
    fetch(bench)
    bench.core.on_environment_unusable(key, "the archive is damaged", bench.now)
    bench.turn()
    assert [(one.task, one.kind) for one in bench.failed] == [(1, "environment"), (2, "environment")]
    assert bench.failed[0].text == "environment env cannot be used: the archive is damaged"
    give(bench, inside(1), 3)
    assert [one.task for one in bench.failed] == [1, 2, 3]
    bench.run_all()
    assert set(bench.done) == {10}


@pytest.mark.parametrize("while_it_unpacks", [False, True])
def test_a_helper_that_dies_is_replaced_a_few_times(while_it_unpacks: bool) -> None:
    settings = Settings(warm_executors=0, setup_tries=2)
    bench = Bench(cores=1, settings=settings)
    key = give(bench, inside(1), 1)
    for round_ in range(2):
        if while_it_unpacks:
            bench.core.on_environment_absent(key)
            bench.turn()
            if not round_:
                fetch(bench)
        assert not bench.failed
        bench.looking.clear()
        bench.core.on_zygote_died(key, "signal 9", bench.now)
        bench.turn()
        assert not bench.looking, "after a pause"
        bench.wait(settings.start_delay_s)
        assert bench.looking == ({} if round_ else {key: "env"})
    (failed,) = bench.failed
    assert failed.kind == "environment"
    assert "environment env could not be started: signal 9" in failed.text


def test_libraries_in_one_environment_are_two_zygotes_in_it() -> None:
    bench = Bench(cores=1)
    keys = []
    for number, name in ((1, "fits"), (2, "cuts")):
        context = library(number, name)
        context.environment, context.environment_name = ARCHIVE, "env"
        keys.append(give(bench, context, number))
    assert bench.looking == dict.fromkeys(keys, "env")
    for key in keys:
        bench.core.on_environment_absent(key)
        bench.turn()
    assert missing(bench) == [ARCHIVE]
    fetch(bench)
    assert bench.unpacking == dict.fromkeys(keys, ARCHIVE)


def test_an_environment_that_comes_again_under_another_number_is_fetched_by_that() -> None:
    bench = Bench(cores=1)
    key = give(bench, inside(1), 1)
    bench.core.on_environment_absent(key)
    bench.turn()
    bench.core.on_cancel([1], bench.now)
    bench.core.on_drop([ARCHIVE])
    assert give(bench, inside(2, archive=ARCHIVE + 1), 2) == key
    assert missing(bench) == [ARCHIVE, ARCHIVE + 1]
    fetch(bench, ARCHIVE + 1)
    assert bench.unpacking == {key: ARCHIVE + 1}


def test_a_set_up_begins_when_all_is_here_that_it_is_given() -> None:
    bench = Bench(cores=1)
    context = library(1)
    context.inputs = [50, 51]
    assert zygote_key(context) != zygote_key(library(1))
    key = give(bench, context, 1)
    assert not bench.zygotes
    missing = [missing for report in bench.reports for missing in report.missing]
    assert sorted(one.file for one in missing) == [50, 51]
    assert "library fits needs it" in missing[0].reason
    bench.core.on_sources(Sources([], values={50: b"value"}))
    bench.turn()
    assert not bench.zygotes
    bench.core.on_sources(Sources([Source(51, 10, [2])], peers={2: [Address("there", 1)]}))
    bench.turn()
    bench.stored.add(51)
    bench.core.on_fetched(51, 10)
    bench.turn()
    assert bench.zygotes == {key: 1}
    assert bench.given[key] == {50: b"value", 51: ""}
    # Dropped meanwhile: not before it has read it.
    bench.core.on_drop([50, 51])
    bench.turn()
    assert 51 in bench.stored
    bench.zygote_ready(key)
    assert 51 not in bench.stored
    bench.run_all()
    assert set(bench.done) == {1}

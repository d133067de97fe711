"""Which executor has which GPUs."""

from __future__ import annotations

import pytest
from tests.unit.worker.bench import BLOB, Bench, order

from graphvine.protocol.messages import BlobData, Context, Resources
from graphvine.worker.devices import Devices
from graphvine.worker.nursery import zygote_key
from graphvine.worker.settings import Settings

GPU = Resources(1, gpus=1)


def devices_of(bench: Bench) -> list[tuple[int, ...]]:
    return sorted(executor.devices for executor in bench.executors.values() if executor.devices)


def test_whole_devices_have_one_owner() -> None:
    devices = Devices(3)
    assert devices.take(1, 0) == ()
    assert devices.take(2, 1) == (0,)
    assert devices.take(3, 2) == (1, 2)
    assert not devices.can_take(1)
    devices.give_back(2)
    devices.give_back(2)  # a second time changes nothing
    assert devices.can_take(1)
    assert not devices.can_take(2)


def test_shares_fill_one_device_before_the_next() -> None:
    devices = Devices(2)
    assert [devices.take(number, 1 / 3) for number in range(4)] == [(0,), (0,), (0,), (1,)]
    assert not devices.can_take(1)
    assert devices.can_take(2 / 3)
    assert not devices.can_take(0.9)
    devices.give_back(3)
    assert devices.take(9, 1) == (1,)


def test_a_request_of_more_than_one_is_for_whole_devices() -> None:
    devices = Devices(2)
    assert devices.take(1, 1.5) == (0, 1)
    assert not devices.can_take(0.5)


def test_a_device_is_free_when_its_owner_is_gone_not_before() -> None:
    devices = Devices(1)
    devices.take(1, 1)
    devices.let_go(1)
    assert not devices.can_take(1)
    assert devices.can_take_soon(1)
    devices.give_back(1)
    assert devices.can_take(1)


def test_tasks_at_the_same_time_have_different_devices() -> None:
    bench = Bench(cores=4, gpus=2)
    bench.assign(*map(order, range(1, 6)), requests=dict.fromkeys(range(1, 6), GPU))
    bench.bring_up()
    assert devices_of(bench) == [(0,), (1,)]
    assert sorted(bench.begin(number) for number in bench.executors) == [[1], [2]]
    bench.run_all()
    assert set(bench.done) == {1, 2, 3, 4, 5}
    assert devices_of(bench) == [(0,), (1,)]  # the same processes, all the time


def test_what_asks_for_no_device_gets_none_and_takes_nobodys_place() -> None:
    bench = Bench(cores=2, gpus=1)
    bench.assign(order(1), order(2))
    bench.run_all()
    plain = dict(bench.executors)
    assert devices_of(bench) == []
    bench.assign(order(3), order(4), order(5), requests={4: GPU})
    bench.run_all()
    assert len(bench.done) == 5
    assert devices_of(bench) == [(0,)]
    assert plain.items() <= bench.executors.items()
    assert len(bench.executors) == 3
    assert not bench.killed


def test_executors_that_are_idle_make_place_for_other_requests() -> None:
    bench = Bench(cores=4, gpus=2)
    bench.assign(order(1), order(2), requests={1: GPU, 2: GPU})
    bench.run_all()
    assert devices_of(bench) == [(0,), (1,)]
    bench.assign(order(3), requests={3: Resources(1, gpus=2)})
    # Both are to end, and nothing is started on their devices before they have.
    assert len(bench.killed) == 2
    assert devices_of(bench) == []
    bench.killed_end()
    assert devices_of(bench) == [(0, 1)]
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}


def test_no_more_are_ended_than_have_to_be() -> None:
    bench = Bench(cores=4, gpus=2)
    bench.assign(order(1), order(2), requests={1: GPU, 2: GPU})
    bench.run_all()
    bench.assign(order(3), requests={3: Resources(1, gpus=0.5)})
    for _ in range(3):
        bench.wait(1.0)
    assert len(bench.killed) == 1
    bench.run_all()
    assert devices_of(bench) == [(0,), (1,)]


def test_busy_executors_keep_their_devices() -> None:
    bench = Bench(cores=4, gpus=1)
    bench.assign(order(1), requests={1: GPU})
    bench.bring_up()
    (busy,) = bench.executors
    assert bench.begin(busy) == [1]
    bench.assign(order(2), requests={2: Resources(1, gpus=0.5)})
    bench.bring_up()
    assert not bench.killed
    bench.finish_one(busy)
    bench.run_all()
    assert set(bench.done) == {1, 2}


@pytest.mark.parametrize("begun", [True, False])
def test_a_device_comes_back_from_an_executor_that_dies(begun: bool) -> None:
    bench = Bench(cores=2, gpus=1)
    bench.assign(order(1), order(2), requests={1: GPU, 2: GPU})
    number = bench.only_executor()
    bench.die(number, begun)
    bench.run_all()
    assert len(bench.done) + len(bench.failed) == 2
    assert devices_of(bench) == [(0,)]


def test_a_device_comes_back_from_a_zygote_that_is_ended() -> None:
    bench = Bench(cores=2, gpus=1, settings=Settings(warm_executors=0, zygotes=1))
    for number in (1, 2):
        context = Context(number, f"code-{number}", b"", [], variables=[("MODE", str(number))])
        one = order(number)
        one.blob = BLOB + number
        blobs = [BlobData(one.blob, number, b"blob")]
        bench.assign(one, blobs=blobs, contexts=[context], requests={number: GPU})
        bench.zygote_ready(zygote_key(context))
        bench.run_all()
    assert set(bench.done) == {1, 2}
    assert len(bench.ended_zygotes) == 1
    assert not bench.killed

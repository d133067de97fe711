"""What the work asks for, as a listener in the manager's process hears it, and one that has connected."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable, Iterator

import pytest

import graphvine
from graphvine.manager.manager import Manager
from graphvine.protocol.codec import decode_to_factory
from graphvine.protocol.connection import read_connection
from graphvine.protocol.link import Link
from graphvine.protocol.messages import (
    PROTOCOL_VERSION,
    Attend,
    Demand,
    Goodbye,
    Leave,
    Pull,
    Refused,
    ToFactory,
    WorkerNews,
)

TIMEOUT_S = 20.0

Factory = Link[ToFactory]


def attend(version: str = graphvine.__version__) -> Attend:
    return Attend(PROTOCOL_VERSION, version, "factory", socket.gethostname())


@pytest.fixture
def connect() -> Iterator[Callable[[Manager], Factory]]:
    """Connects a factory to a manager."""
    made: list[Factory] = []

    def connect_to(manager: Manager) -> Factory:
        link = Link(read_connection(manager.connection_file), 10.0, decode_to_factory)
        made.append(link)
        return link

    yield connect_to
    for link in made:
        link.close()


def hear(link: Factory) -> ToFactory:
    """What the manager says next."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        if link.socket.poll(int(TIMEOUT_S * 1000)):
            for message in link.receive(1):
                return message
    raise AssertionError("nothing was said")


def hear_until(link: Factory, wanted: Callable[[Demand], object]) -> Demand:
    while True:
        said = hear(link)
        assert isinstance(said, Demand)
        if wanted(said):
            return said


def double(number: int) -> int:
    return 2 * number


def test_a_listener_hears_of_work_and_of_workers(bare_manager, start_worker):
    told: queue.SimpleQueue[Demand] = queue.SimpleQueue()
    bare_manager.watch_demand(told.put)
    assert told.get(timeout=TIMEOUT_S) == Demand([], [])
    with bare_manager.executor() as executor:
        futures = [executor.submit(double, number) for number in range(5)]
        while sum(wanted.able for wanted in told.get(timeout=TIMEOUT_S).wanted) < 5:
            pass
        start_worker(bare_manager, 1, "first", "--job", "12.3")
        assert [future.result(TIMEOUT_S) for future in futures] == [0, 2, 4, 6, 8]
    news: list[WorkerNews] = []
    while not news or news[-1].idle_s < 0:
        news += told.get(timeout=TIMEOUT_S).workers
    assert {(worker.name, worker.job, worker.cores) for worker in news} == {("first", "12.3", 1.0)}


def test_a_factory_hears_the_same_and_is_no_worker(bare_manager, start_worker, connect):
    link = connect(bare_manager)
    link.say([attend()])
    assert hear(link) == Demand([], [])
    with bare_manager.executor() as executor:
        future = executor.submit(double, 4)
        hear_until(link, lambda demand: [wanted.left for wanted in demand.wanted] == [1])
        assert bare_manager.counts().workers == 0
        start_worker(bare_manager, 1, "first")
        assert future.result(TIMEOUT_S) == 8
    hear_until(link, lambda demand: [worker.name for worker in demand.workers] == ["first"])


def test_it_is_told_when_the_manager_closes(connect):
    with Manager(local_workers=0) as manager:
        link = connect(manager)
        link.say([attend()])
        assert hear(link) == Demand([], [])
    assert hear(link) == Leave("the manager is closed")


def test_what_is_not_for_a_factory_to_say_ends_its_part(bare_manager, connect, caplog):
    link = connect(bare_manager)
    link.say([attend()])
    assert hear(link) == Demand([], [])
    link.say([Pull(1, 0, 100, 1)])
    said = hear(link)
    assert isinstance(said, Refused)
    assert "nothing to say about Pull" in said.reason
    assert "factory factory" in caplog.text


def test_a_factory_of_another_version_is_refused(bare_manager, connect):
    link = connect(bare_manager)
    link.say([attend("0.0.1")])
    said = hear(link)
    assert isinstance(said, Refused)
    assert "it is graphvine 0.0.1" in said.reason


def test_when_the_last_factory_goes_nothing_is_counted_any_more(bare_manager, connect):
    first, second = connect(bare_manager), connect(bare_manager)
    for link in (first, second):
        link.say([attend()])
        assert hear(link) == Demand([], [])
    loop = bare_manager._loop
    assert loop.ask(lambda: loop._core.state.watch is not None)
    first.say([Goodbye("enough")])
    second.reopen()
    end = time.monotonic() + TIMEOUT_S
    while loop.ask(lambda: loop._core.state.watch is not None) and time.monotonic() < end:
        time.sleep(0.01)
    assert not loop.ask(lambda: loop._core.state.watch is not None)

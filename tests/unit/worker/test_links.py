"""Links that were tried in vain are not tried for the next file, and the manager is told."""

from __future__ import annotations

from tests.unit.worker.bench import Bench, order

from graphvine.protocol.messages import Address, LinkNews, Probe, Source
from graphvine.worker import instructions as says
from graphvine.worker.links import Links
from graphvine.worker.outbox import Outbox
from graphvine.worker.settings import Settings

PEERS = {1: [Address("a", 1)], 2: [Address("b", 2)]}


def news(bench: Bench) -> list[LinkNews]:
    return [link for report in bench.reports for link in report.links]


def test_who_could_not_be_reached_is_passed_over_for_a_while() -> None:
    bench = Bench(settings=Settings(warm_executors=0, bar_link_s=20.0))
    bench.assign(order(1, 50), order(2, 51), sources=[Source(50, 10, [1, 2])], peers=PEERS)
    bench.core.on_link(1, "silent")
    bench.core.on_fetch_failed(50, 1, "no answer")
    bench.turn()
    assert [fetch.holder for fetch in bench.fetches] == [1, 2]
    assert news(bench) == [LinkNews(1, "silent")]
    bench.assign(order(3, 52), sources=[Source(52, 10, [1, 2])])
    assert [fetch.holder for fetch in bench.fetches] == [1, 2, 2]
    assert news(bench) == [LinkNews(1, "silent")] * 2, "the manager is told again, as it named it"
    bench.now += 21.0
    bench.assign(order(4, 53), sources=[Source(53, 10, [1])])
    assert [fetch.holder for fetch in bench.fetches] == [1, 2, 2, 1], "it must have heard something"


def test_the_first_file_that_comes_from_a_peer_is_news_and_the_next_is_not() -> None:
    bench = Bench()
    for file in (50, 51):
        bench.assign(order(file + 100, file), sources=[Source(file, 10, [1])], peers=PEERS)
        bench.stored.add(file)
        bench.core.on_fetched(file, 10)
        bench.turn()
    assert news(bench) == [LinkNews(1, "made")]


def test_a_peer_is_probed_when_the_manager_says_so() -> None:
    bench = Bench()
    bench.core.on_probe(Probe([1, 2], {2: PEERS[2]}))
    (instruction,) = (i for i in bench.core.turn(bench.now) if isinstance(i, says.ProbePeer))
    assert instruction == says.ProbePeer(2, PEERS[2]), "of 1 no address is known"
    bench.core.on_link(2, "refused")
    bench.turn()
    bench.core.on_link(2, "made")
    bench.turn()
    assert news(bench) == [LinkNews(2, "refused"), LinkNews(2, "made")]


def test_what_is_remembered_is_bounded() -> None:
    outbox = Outbox()
    links = Links(10.0, outbox)
    for worker in range(25_000):
        links.note(worker, "made" if worker % 2 else "silent")
        outbox.links.clear()
    assert len(links._made) <= 10_000
    assert len(links._barred) <= 10_000

"""Sites between which no links can be made, walls that come and go, and connections that are cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from simulation.cluster import Cluster, Weather
from simulation.graphs import Graph
from simulation.invariants import check_empty
from simulation.managers import SimRun
from simulation.transfers import SILENCE_S
from simulation.work import Content, TaskSpec, Work, behaving_work

from graphvine.manager.plan import Code, GivenFile, TaskOptions
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import LinkState, Piece
from graphvine.worker.settings import Settings as WorkerSettings

#: Real numbers: seconds and bytes of a real cluster.
SETTINGS = Settings(heartbeat_s=1.0, silent_s=6.0, inline_bytes=8192)
WEATHER = Weather(latency_s=0.0003, jitter_s=0.0002, bandwidth=1e8)
LARGE = 20_000_000
SMALL = 100_000


class Sites(Cluster):
    """Workers at two sites, "a..." and "b...", each behind a NAT that lets nobody in, the manager outside."""

    def __init__(self, count: int, settings: Settings = SETTINGS, checked: bool = True) -> None:
        super().__init__(1, WEATHER, settings, WorkerSettings(warm_executors=1), checked)
        self.open = False
        self.relayed_bytes = 0
        self.topology = self._link
        for site in "ab":
            for number in range(count):
                name = f"{site}{number}"
                self.networks[name] = f"nat-{site}"
                self.join(name=name)
        self.run_for(0.2)

    def _link(self, asker: str, holder: str) -> LinkState:
        return "made" if self.open or asker[0] == holder[0] else "silent"

    def perhaps_damaged(self, piece: Piece) -> Piece:
        self.relayed_bytes += len(piece.data)
        return piece


def make_work(
    serial: int,
    graph: Graph,
    sizes: Sequence[int],
    duration_s: float = 0.01,
    where: dict[int, str] | None = None,
) -> Work:
    """``where``: on which worker a task must run."""
    options = {task: TaskOptions(workers=(name,)) for task, name in (where or {}).items()}
    return behaving_work(serial, graph, [TaskSpec(duration_s, size) for size in sizes], options)


def run(cluster: Cluster, work: Work) -> SimRun:
    """Run it to its end, and see that everything is right."""
    done = cluster.manager.run(cluster.add(work), keep=False)
    cluster.run_until(lambda: done.over, within_s=3600.0, events=3_000_000)
    assert done.done
    return done


def across(cluster: Sites, serial: int, files: int, size: int) -> Work:
    """Files made at one site, each used by one task at the other."""
    count = len(cluster.agents) // 2
    graph: Graph = [()] * files + [(file,) for file in range(files)]
    where = {file: f"a{file % count}" for file in range(files)}
    where |= {files + file: f"b{(7 * file) % count}" for file in range(files)}
    return make_work(serial, graph, [size] * files + [100] * files, where=where)


def test_what_cant_be_reached_is_paid_for_once() -> None:
    cluster = Sites(20)
    run(cluster, across(cluster, 0, 200, SMALL))
    first: dict[tuple[str, str], float] = {}
    for asker, holder, at in cluster.transfers.failed:
        assert at - first.setdefault((asker, holder), at) < SILENCE_S, "tried again although that was known"
    assert len(first) <= 25, "what was said before anything was known"
    before = len(cluster.transfers.failed)
    cluster.run_for(2.0)
    run(cluster, across(cluster, 1, 200, SMALL))
    assert len(cluster.transfers.failed) == before, "known by now, for pairs that were never tried as well"
    cluster.run_for(1.0)
    check_empty(cluster)


def test_networks_heal_and_that_is_found_out_without_anybody_waiting() -> None:
    cluster = Sites(4)
    run(cluster, across(cluster, 0, 40, SMALL))
    failed, relayed = len(cluster.transfers.failed), cluster.relayed_bytes
    assert relayed >= 40 * SMALL
    cluster.open = True
    cluster.run_for(SETTINGS.retry_link_s + 1)
    run(cluster, across(cluster, 1, 40, SMALL))
    cluster.run_for(1.0)
    run(cluster, across(cluster, 2, 40, SMALL))
    assert cluster.transfers.probes
    assert len(cluster.transfers.failed) == failed
    assert cluster.relayed_bytes - relayed <= 45 * SMALL, "the last ones went directly"


def test_a_large_file_crosses_a_few_times_and_spreads_on_the_other_side() -> None:
    cluster = Sites(25)
    # Something small crosses before, as it does in real life.
    run(cluster, across(cluster, 0, 10, SMALL))
    cluster.relayed_bytes = 0
    users = [agent.name for agent in cluster.agents if agent.name != "a0"]
    graph: Graph = [(), *[(0,)] * len(users)]
    where = {0: "a0"} | dict(enumerate(users, 1))
    run(cluster, make_work(1, graph, [LARGE] + [100] * len(users), where=where))
    assert cluster.relayed_bytes <= 3 * LARGE, f"{cluster.relayed_bytes / LARGE} times"
    cluster.run_for(1.0)
    check_empty(cluster)


def test_a_large_file_spreads_on_the_other_side_although_nothing_was_known_before() -> None:
    cluster = Sites(25)
    users = [agent.name for agent in cluster.agents if agent.name != "a0"]
    graph: Graph = [(), *[(0,)] * len(users)]
    where = {0: "a0"} | dict(enumerate(users, 1))
    run(cluster, make_work(0, graph, [LARGE] + [100] * len(users), where=where))
    assert cluster.relayed_bytes <= 5 * LARGE, f"{cluster.relayed_bytes / LARGE} times"


def test_what_the_managers_machine_gives_comes_to_each_site_a_few_times() -> None:
    cluster = Sites(25)
    users = [agent.name for agent in cluster.agents]
    graph: Graph = [(), *[(0,)] * len(users)]
    work = make_work(0, graph, [LARGE] + [100] * len(users), where=dict(enumerate(users, 1)))
    work.plan.separate = True
    work.plan.given[0] = GivenFile("0/0", LARGE, tree=False, stamp=0)
    cluster.given["0/0"] = Content(work.expected[0], LARGE)
    done = cluster.manager.run(cluster.add(work), keep=False)
    cluster.run_until(lambda: done.over, within_s=3600.0, events=3_000_000)
    assert all(outcome.ok for outcome in done.outcomes.values())
    assert cluster.relayed_bytes <= 5 * LARGE, f"{cluster.relayed_bytes / LARGE} times"


def test_an_environment_spreads_as_well() -> None:
    """No task reads it, but every worker asks for it."""
    cluster = Sites(25)
    made = make_work(0, [()], [LARGE], where={0: "a0"})
    made.plan.wanted[:] = [0]
    kept = cluster.manager.run(cluster.add(made), keep=True)
    cluster.run_until(lambda: kept.over)
    cluster.relayed_bytes = 0
    users = [agent.name for agent in cluster.agents]
    work = make_work(1, [()] * len(users), [100] * len(users), where=dict(enumerate(users)))
    work.plan.externals.append(kept.files[0])
    work.plan.code = Code(environment=-1, environment_name="an environment")
    run(cluster, work)
    assert cluster.relayed_bytes <= 5 * LARGE, f"{cluster.relayed_bytes / LARGE} times"


@pytest.mark.parametrize(
    ("seconds", "site"), [(3.0, "b"), (3.0, "ab"), (30.0, "b"), (30.0, "ab"), (10_000.0, "b")]
)
def test_packets_are_dropped(seconds: float, site: str) -> None:
    """For a moment: nothing is lost, nothing is done twice. For long: others do it, and who was away comes
    back."""
    cluster = Sites(4, checked=False)
    graph: Graph = [()] * 400
    for level in range(3):
        graph += [tuple(range(level * 400 + n, level * 400 + n + 1)) for n in range(400)]
    work = make_work(0, graph, [SMALL if n % 3 else 50 for n in range(len(graph))], duration_s=0.1)
    done = cluster.manager.run(cluster.add(work), keep=False)
    cluster.run_for(5.0)
    assert not done.over
    for agent in cluster.agents:
        if agent.name[0] in site:
            agent.connection.cut(cluster.now + seconds)
            cluster.losses += 1
    cluster.run_until(lambda: done.over, within_s=seconds + 600, events=5_000_000)
    assert done.done
    if seconds < SETTINGS.silent_s - 2 * SETTINGS.heartbeat_s:
        assert work.begun == [1] * len(graph)
    if seconds < 100:
        cluster.run_for(max(0.0, 5 + seconds))
        assert len(cluster.manager.peers) == len(cluster.agents), "all are back"


@pytest.mark.slow
def test_two_thousand_workers() -> None:
    settings = Settings(heartbeat_s=5.0, silent_s=30.0)
    cluster = Cluster(1, WEATHER, settings, WorkerSettings(warm_executors=1), checked=False)
    for _ in range(2000):
        cluster.join()
    cluster.run_for(0.2)
    assert len(cluster.manager.peers) == 2000
    graph: Graph = []
    for _ in range(2000):
        base = len(graph)
        graph += [()] * 4
        graph.append(tuple(range(base, base + 4)))
    graph.append(tuple(range(4, len(graph), 5)))
    work = make_work(0, graph, [100] * len(graph), duration_s=0.5)
    begin = cluster.now
    run(cluster, work)
    assert work.begun == [1] * len(graph)
    assert all(agent.begun for agent in cluster.agents)
    assert cluster.now - begin < 1.5 * 0.5 * len(graph) / 2000 + 2.0

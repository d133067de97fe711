"""The simulated cluster: time, links, workers, the manager, the weather they live in, and the log of it all.

    cluster = Cluster(seed, Weather())
    cluster.join(cores=2)
    run = cluster.manager.run(work, keep=False)
    cluster.run_until(lambda: run.over)

Everything is drawn from one seed: the same calls give the same story. Whatever should not have happened is
raised at once as ``Wrong``, with the story's last lines.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import msgspec

from graphvine.manager import check
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import LinkState, Piece, Resources
from graphvine.worker.settings import Settings as WorkerSettings
from simulation import invariants
from simulation.agents import SimAgent
from simulation.events import Events
from simulation.links import Connection, Link
from simulation.managers import SimManager
from simulation.transfers import Transfers
from simulation.work import Content, Work

#: Small numbers for small clusters: what is large and what is slow, in proportion to simulated tasks.
SETTINGS = Settings(
    heartbeat_s=0.2,
    silent_s=1.0,
    inline_bytes=100,
    bandwidth=1e6,
    blob_by_peer_bytes=200,
    spread_bytes=1000,
    retry_link_s=0.5,
    retry_link_most_s=4.0,
    links_remembered=50,
    checked=True,
    node="here",
)
WORKER_SETTINGS = WorkerSettings(piece_bytes=256, bar_link_s=0.3, answer_s=0.7, setup_tries=12, zygotes=1)


class Wrong(AssertionError):
    """Something happened that must not. The message tells the story."""


class Weather(msgspec.Struct, frozen=True):
    """What is drawn. Chances are per occasion."""

    latency_s: float = 0.0003
    jitter_s: float = 0.001
    stall: float = 0.0
    """A frame is late by up to ``stall_s``, and all behind it."""
    stall_s: float = 0.3
    bandwidth: float = 1e6
    damage: float = 0.0
    walls: float = 0.0
    """A worker can't be reached from another, for ``walls_s``."""
    walls_s: float = 1e9
    addresses: bool = True
    """Workers have transfer servers at all."""
    false_starts: float = 0.0
    full_inboxes: float = 0.0
    reliefs: float = 0.0
    """A packet is relieved while a task of it runs."""
    setup_s: float = 0.0
    """A set-up takes at least so long."""
    unpassed: float = 0.0
    """A value is kept that was to be passed on (as trees are)."""


class Cluster:
    """The world of one simulated test."""

    def __init__(
        self,
        seed: int,
        weather: Weather,
        settings: Settings = SETTINGS,
        worker_settings: WorkerSettings = WORKER_SETTINGS,
        checked: bool = True,
    ) -> None:
        self.events = Events()
        self.chance = random.Random(seed)
        self.weather = weather
        self.checked = checked
        self.story: deque[str] = deque(maxlen=400)
        self.works: dict[int, Work] = {}
        self.blobs: set[int] = set()
        #: Files of the manager's machine, by path.
        self.given: dict[str, Content] = {}
        self.agents: list[SimAgent] = []
        self.agents_by_serial: dict[int, SimAgent] = {}
        self.transfers = Transfers(self)
        self.worker_settings = worker_settings
        self.manager = SimManager(self, settings)
        self._walls: dict[tuple[str, str], LinkState] = {}
        #: Which links can be made, where that is not drawn.
        self.topology: Callable[[str, str], LinkState] | None = None
        #: The NATs that workers are behind, by name.
        self.networks: dict[str, str] = {}
        self._connections = 0
        #: Happenings that may make finished work be done again.
        self.losses = 0

    @property
    def now(self) -> float:
        return self.events.now

    # -- the story -------------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        self.story.append(f"{self.now:9.4f} {line}")

    def complain(self, what: str) -> None:
        """Something happened that must not."""
        self.tell(what)
        raise Wrong("\n".join([what, "--- the story:", *self.story]))

    # -- who is there ----------------------------------------------------------------------------------

    def join(
        self, cores: float = 1.0, memory_mb: float = 1000.0, name: str = "", left_s: float = 0.0
    ) -> SimAgent:
        """A new worker. ``left_s``: its wall time."""
        serial = len(self.agents) + 1
        capacity = Resources(cores, memory_mb, 1000.0, 0.0)
        agent = SimAgent(self, serial, name or f"w{serial}", capacity, self.worker_settings)
        self.agents.append(agent)
        self.agents_by_serial[serial] = agent
        self.tell(f"{agent.name} begins with {cores:g} cores")
        agent.start(left_s)
        return agent

    def connect(self, agent: SimAgent) -> Connection:
        self._connections += 1
        connection = Connection(
            self._connections,
            Link(self.events, self._delay, lambda frame: self.manager.receive(connection, frame)),
            Link(self.events, self._delay, lambda frame: agent.receive(connection, frame)),
        )
        return connection

    def _delay(self) -> float:
        weather, chance = self.weather, self.chance
        late = weather.latency_s + chance.random() * weather.jitter_s
        if weather.stall and chance.random() < weather.stall:
            late += chance.random() * weather.stall_s
        return late

    def living(self) -> list[SimAgent]:
        return [agent for agent in self.agents if agent.alive]

    def link(self, asker: str, holder: str) -> LinkState:
        """What becomes of a link from one to another."""
        if self.topology is not None:
            return self.topology(asker, holder)
        wall = self._walls.get((asker, holder))
        if wall is None:
            stands = self.chance.random() < self.weather.walls
            wall = self._walls[asker, holder] = (
                self.chance.choice(("silent", "refused")) if stands else "made"
            )
        return wall if self.now < self.weather.walls_s else "made"

    def perhaps_damaged(self, piece: Piece) -> Piece:
        if piece.data and self.chance.random() < self.weather.damage:
            # Damaged again and again, the file counts as lost.
            self.losses += 1
            return msgspec.structs.replace(piece, data=bytes(len(piece.data)))
        return piece

    # -- going on --------------------------------------------------------------------------------------

    def add(self, work: Work) -> Work:
        self.works[work.serial] = work
        return work

    def run_until(
        self, reached: Callable[[], bool], within_s: float = 600.0, events: int = 1_000_000
    ) -> None:
        """Let things happen until ``reached``. More simulated seconds or events than that are a hang."""
        end, last = self.now + within_s, self.events.happened + events
        try:
            while not reached():
                if self.now > end or self.events.happened > last or not self.events.step():
                    self.complain(f"it hangs:\n{invariants.describe(self)}")
        except Wrong:
            raise
        except Exception as error:
            raise Wrong(
                "\n".join([f"{type(error).__name__}: {error}", "--- the story:", *self.story])
            ) from error

    def run_for(self, seconds: float) -> None:
        until = self.now + seconds
        self.events.at(until, lambda: None)
        self.run_until(lambda: self.now >= until)

    # -- looking ---------------------------------------------------------------------------------------

    def check_manager(self) -> None:
        if self.checked:
            check.check(self.manager.core)
            invariants.check_whereabouts(self)

    def check_agent(self, agent: SimAgent) -> None:
        if self.checked:
            invariants.check_agent(agent)

"""A story to be played: which plans, which workers, which mishaps, when. All of it in one frozen Struct, so
that a failing one can be printed, shrunk and played again."""

from __future__ import annotations

import random

import msgspec
from msgspec import structs

from graphvine.manager.plan import Code, GivenFile, GivenValue, Plan, TaskOptions
from graphvine.protocol.messages import Resources
from simulation.cluster import SETTINGS, WORKER_SETTINGS, Cluster, Weather
from simulation.executors import BROKEN
from simulation.graphs import SHAPES, sinks
from simulation.invariants import check_empty
from simulation.managers import SimRun
from simulation.work import Behaviour, Content, TaskSpec, Work, inline, make_blobs

#: What else goes on in the simulated time after which everything must be finished.
PATIENCE_S = 120.0

MISHAPS = (
    "kill",
    "kill unseen",
    "suspend",
    "cut",
    "disconnect",
    "kill executor",
    "kill zygote",
    "lose file",
    "leave",
    "depart",
    "retire",
    "join",
)


class PlanPart(msgspec.Struct, frozen=True):
    """One plan of a story. ``on``: the story's kept plan whose results are its externals (-1: none).
    ``ending``: what the user does: waits, cancels after a while, or (kept plans) fetches and releases."""

    shape: str = "tree"
    count: int = 20
    seed: int = 0
    begin_s: float = 0.0
    keep: bool = False
    on: int = -1
    cancel_s: float = -1.0
    large: float = 0.3
    slow: float = 0.1
    faulty: float = 0.0
    """Share of tasks that misbehave a few times, and then do not."""
    doomed: Behaviour = ""
    """How one task misbehaves always."""
    requests: bool = False
    few_sinks: bool = False
    library: str = ""
    """The library that its tasks use."""
    separate: bool = False
    """Its tasks stand alone. Only then:"""
    given: float = 0.0
    """Share of tasks without inputs that are given, half of them as files; ``gone``: which are not what they
    were."""
    gone: bool = False
    cancel_tasks_s: float = -1.0
    """When some of its tasks are cancelled."""
    max_s: float = 0.0
    """How long most of its tasks may run."""
    limit: int = 0
    """How many of some of its tasks run at once."""
    environment: str = ""
    """The environment that they run in: a result of the plan ``on``, if that has a large one."""


class Mishap(msgspec.Struct, frozen=True):
    at_s: float
    kind: str
    whom: int = 0
    for_s: float = 0.5


class Story(msgspec.Struct, frozen=True):
    seed: int = 0
    workers: tuple[int, ...] = (1,)
    plans: tuple[PlanPart, ...] = (PlanPart(),)
    mishaps: tuple[Mishap, ...] = ()
    weather: Weather = Weather()


def make_work(part: PlanPart, serial: int, origin: SimRun | None) -> Work:
    """The plan of one part of a story. It follows on ``origin``'s results, if there is one."""
    chance = random.Random(f"{part.seed} {part.shape} {part.count}")
    graph = SHAPES[part.shape](part.count, chance)
    externals = list(origin.files) if origin is not None else []
    if externals:
        graph = [
            (*names, -1 - chance.randrange(len(externals))) if chance.random() < 0.3 or not names else names
            for names in graph
        ]
    blobs, blob_of, blob_index = make_blobs(serial, len(graph), chance.choice([1, 4, 50]))
    wanted = sinks(graph)
    if not part.few_sinks:
        wanted = sorted({*wanted, *chance.sample(range(len(graph)), len(graph) // 5)})
    categories = ["add", "load", "sum"]
    plan = Plan(
        keys=range(len(graph)),
        inputs=graph,
        blobs=blobs,
        blob_of=blob_of,
        blob_index=blob_index,
        categories=categories,
        category_of=[chance.randrange(3) for _ in graph],
        wanted=wanted,
        externals=externals,
        options=make_options(part, len(graph), chance),
        code=make_code(part, origin),
        label=f"plan {serial}",
        separate=part.separate,
    )
    values = origin.expected if origin is not None else ()
    work = Work(
        serial, plan, make_specs(part, plan, chance), values, origin.work if origin is not None else None
    )
    make_given(part, work, chance)
    return work


def make_given(part: PlanPart, work: Work, chance: random.Random) -> None:
    """Have some leaves be there from the start."""
    for task, names in enumerate(work.plan.inputs):
        if names or chance.random() >= part.given:
            continue
        if chance.random() < 0.5:
            work.plan.given[task] = GivenValue(inline(work.expected[task], 40))
        else:
            size = chance.randint(20, 3000)
            work.plan.given[task] = GivenFile(f"{work.serial}/{task}", size, tree=False, stamp=task % 2)


def make_code(part: PlanPart, origin: SimRun | None) -> Code:
    """What the executors of a part need."""
    code = Code(setup=part.library.encode(), setup_name=part.library)
    if part.environment and origin is not None and origin.work is not None:
        work = origin.work
        for position, task in enumerate(work.plan.wanted):
            if work.specs[task].size > SETTINGS.inline_bytes:
                name = part.environment if part.environment == BROKEN else f"{part.environment}-{work.serial}"
                return structs.replace(code, environment=-1 - position, environment_name=name)
    return code


def make_options(part: PlanPart, count: int, chance: random.Random) -> dict[int, TaskOptions]:
    """Requests and retries of some tasks."""
    options: dict[int, TaskOptions] = {}
    for task in range(count):
        request = Resources()
        if part.requests and chance.random() < 0.3:
            request = Resources(chance.choice([0.01, 0.5, 2.0]), chance.choice([0.0, 300.0]))
        priority = chance.choice([0, 0, 0, 5]) if part.requests else 0
        retries = 3 if part.faulty else 0
        limit = "few" if part.limit and chance.random() < 0.3 else ""
        max_s = part.max_s if chance.random() < 0.7 else 0.0
        if request != Resources() or priority or retries or limit or max_s:
            options[task] = TaskOptions(
                request=request, priority=priority, retries=retries, limit=limit, max_s=max_s
            )
    return options


def make_specs(part: PlanPart, plan: Plan, chance: random.Random) -> list[TaskSpec]:
    """How the tasks of a part behave."""
    specs = []
    for _ in range(len(plan)):
        duration = chance.choice([0.0002, 0.001, 0.005])
        if chance.random() < part.slow:
            duration = chance.choice([0.02, 0.1, 0.3])
        size = chance.randint(101, 3000) if chance.random() < part.large else chance.randint(16, 100)
        spec = TaskSpec(duration, size)
        if chance.random() < part.faulty:
            spec.behaviour = chance.choice(["raised", "killed", "storage"])
            spec.times = chance.randint(1, 2)
        specs.append(spec)
    if part.doomed:
        spec = chance.choice(specs)
        spec.behaviour, spec.times = part.doomed, 10**9
    return specs


def play(story: Story) -> Cluster:
    """Play a story to its end, and check that everything ended as it must. Raises Wrong."""
    return Play(story).to_the_end()


class Play:
    """A story being played."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.cluster = Cluster(story.seed, story.weather, SETTINGS, WORKER_SETTINGS)
        self.runs: dict[int, SimRun] = {}
        self.fetches: list[SimRun] = []
        self._chance = random.Random(story.seed)

    def to_the_end(self) -> Cluster:
        cluster = self.cluster
        for cores in self.story.workers:
            cluster.join(float(cores))
        for number, part in enumerate(self.story.plans):
            cluster.events.at(part.begin_s, lambda n=number, p=part: self._begin(n, p))  # type: ignore[misc]
        for mishap in self.story.mishaps:
            cluster.events.at(mishap.at_s, lambda m=mishap: self._befall(m))  # type: ignore[misc]
        ends = [mishap.at_s + mishap.for_s for mishap in self.story.mishaps]
        cluster.events.at(max(ends, default=0.0), self._keep_one_alive)
        cluster.run_until(self._all_over, PATIENCE_S, 300_000)
        self._check_outcomes()
        self._clear_up()
        return cluster

    def _keep_one_alive(self) -> None:
        """From the end of the mishaps on there is always a worker that can run everything."""
        spares = [agent for agent in self.cluster.living() if agent.name == "spare"]
        if not spares:
            self.cluster.join(2.0, name="spare")
        self.cluster.events.after(0.5, self._keep_one_alive)

    # -- plans -----------------------------------------------------------------------------------------

    def _begin(self, number: int, part: PlanPart) -> None:
        cluster = self.cluster
        origin = self.runs.get(part.on)
        if part.on >= 0 and (origin is None or not origin.files):
            # Not handed over yet.
            cluster.events.after(0.01, lambda: self._begin(number, part))
            return
        work = cluster.add(make_work(part, number, origin))
        for task, given in work.plan.given.items():
            if isinstance(given, GivenFile):
                size = max(given.size, 40)
                cluster.given[given.path] = Content(work.expected[task], size, gone=part.gone)
        if part.limit:
            cluster.manager.core.on_limit("few", part.limit, cluster.now)
        run = cluster.manager.run(work, part.keep)
        self.runs[number] = run
        if part.cancel_tasks_s >= 0:
            some = self._chance.sample(range(len(work.plan)), (len(work.plan) + 3) // 4)
            cluster.events.after(part.cancel_tasks_s, lambda: cluster.manager.cancel_tasks(run, some))
        if part.cancel_s >= 0:
            cluster.events.after(part.cancel_s, lambda: cluster.manager.cancel(run))

    def _all_over(self) -> bool:
        return len(self.runs) == len(self.story.plans) and all(run.over for run in self.runs.values())

    def _check_outcomes(self) -> None:
        for number, run in self.runs.items():
            part = self.story.plans[number]
            if run.work is not None and run.work.plan.separate and not run.cancelled:
                self._check_separate(part, run)
            elif run.failed is not None:
                self._check_failure(part, run)
            elif run.done and part.library == BROKEN and len(run.work.plan):
                self.cluster.complain(f"{run.label} is done although its library is broken")
            elif run.done and run.work.plan.code.environment_name == BROKEN:
                self.cluster.complain(f"{run.label} is done although its environment is broken")
            elif run.done and part.doomed and part.cancel_s < 0:
                self.cluster.complain(f"{run.label} is done although a task of it always {part.doomed}")
            elif run.done and run.work is not None and not part.keep:
                missing = [task for task in run.work.plan.wanted if not run.work.ended[task]]
                if missing:
                    self.cluster.complain(f"{run.label} is done and never ran {missing}")
        self._check_repeats()

    def _check_separate(self, part: PlanPart, run: SimRun) -> None:
        """Every wanted task of a separate plan has its outcome, for a good reason."""
        cluster, work = self.cluster, run.work
        assert work is not None
        origin = self.runs.get(part.on)
        if run.failed is not None:
            if origin is None or not (origin.failed or origin.cancelled):
                cluster.complain(f"{run.label} failed although its tasks stand alone: {run.failed}")
            return
        for position, task in enumerate(work.plan.wanted):
            outcome = run.outcomes.get(position)
            if outcome is None:
                cluster.complain(f"{run.label}: nothing was told of task {task}")
            elif outcome.ok:
                if not work.ended[task] and task not in work.plan.given:
                    cluster.complain(f"{run.label}: task {task} never ran and went well")
            elif not self._may_end_so(part, work, task, outcome.kind):
                cluster.complain(f"{run.label}: task {task} failed for no good reason: {outcome}")

    def _may_end_so(self, part: PlanPart, work: Work, task: int, kind: str) -> bool:
        if kind == "cancelled":
            return task in work.cancelled
        if kind == "timeout":
            # A worker that was suspended finds its tasks late.
            return bool(part.max_s) and (work.specs[task].duration_s >= part.max_s or self.cluster.losses > 0)
        if kind == "missing":
            return part.gone and task in work.plan.given
        return may_fail(work, task, kind, self.cluster.losses)

    def _check_failure(self, part: PlanPart, run: SimRun) -> None:
        failed, work = run.failed, run.work
        assert failed is not None
        assert work is not None
        origin = self.runs.get(part.on)
        if origin is not None and (origin.failed or origin.cancelled):
            return
        if failed.kind == "library" and part.library == BROKEN:
            return
        if failed.kind == "environment" and part.environment == BROKEN:
            return
        if failed.task < 0 or not may_fail(work, failed.task, failed.kind, self.cluster.losses):
            self.cluster.complain(f"{run.label} failed for no good reason: {failed}")

    def _check_repeats(self) -> None:
        """Nothing is run more often than mishaps explain."""
        for run in self.runs.values():
            assert run.work is not None
            for task, begun in enumerate(run.work.begun):
                if begun > 1 + min(run.work.specs[task].times, 10) + self.cluster.losses:
                    self.cluster.complain(f"{run.label}: task {task} was begun {begun} times")

    def _clear_up(self) -> None:
        """Fetch what is kept, release it, and see that nothing is left."""
        cluster = self.cluster
        for number, run in self.runs.items():
            if run.done and run.keep:
                fetch = cluster.manager.fetch(run)
                cluster.run_until(lambda f=fetch: f.over, PATIENCE_S)  # type: ignore[misc]
                if fetch.failed is not None and not self._may_be_lost(number):
                    cluster.complain(f"{fetch.label} failed: {fetch.failed}")
            if run.keep:
                cluster.manager.release(run.files)
        for agent in cluster.living():
            agent.resume()
        cluster.run_for(8.0)
        check_empty(cluster)

    def _may_be_lost(self, number: int) -> bool:
        """Whether what is kept of a plan may be gone for good: it can't be made again when a task of it, or
        of what it builds on, fails."""
        part = self.story.plans[number]
        doomed = bool(part.doomed) or BROKEN in (part.library, part.environment)
        return doomed or (part.on >= 0 and self._may_be_lost(part.on))

    # -- mishaps ---------------------------------------------------------------------------------------

    def _befall(self, mishap: Mishap) -> None:
        cluster = self.cluster
        living = cluster.living()
        cluster.tell(f"mishap: {mishap}")
        if mishap.kind == "join":
            cluster.join(1.0 + mishap.whom % 3)
            return
        if not living:
            return
        agent = living[mishap.whom % len(living)]
        if mishap.kind == "depart":
            # Long enough for whatever the weather does to it; some find that out too late all the same.
            agent.depart(mishap.for_s * 4)
            return
        if mishap.kind == "retire":
            agent.leaving = True
            cluster.manager.retire([agent.name])
            return
        cluster.losses += 1
        if mishap.kind in ("kill", "kill unseen"):
            agent.kill(noticed=mishap.kind == "kill")
        elif mishap.kind == "suspend":
            agent.suspend()
            cluster.events.after(mishap.for_s, agent.resume)
        elif mishap.kind == "cut":
            agent.connection.cut(cluster.now + mishap.for_s)
        elif mishap.kind == "disconnect":
            agent.break_off(mishap.for_s)
        elif mishap.kind == "leave":
            agent.leave()
        elif mishap.kind == "kill executor":
            self._kill_executor(agent, mishap.whom)
        elif mishap.kind == "kill zygote":
            self._kill_zygote(agent, mishap.whom)
        else:
            assert mishap.kind == "lose file"
            values = sorted(file for file in agent.store if file not in cluster.blobs)
            if values:
                agent.lose_file(values[mishap.whom % len(values)])

    def _kill_executor(self, agent, whom: int) -> None:  # type: ignore[no-untyped-def]
        numbers = sorted(agent.pool.executors)
        if not numbers:
            return
        number = numbers[whom % len(numbers)]
        self._note_blame(agent.pool.executors[number].begun)
        agent.pool.die(number, "somebody killed it")

    def _kill_zygote(self, agent, whom: int) -> None:  # type: ignore[no-untyped-def]
        keys = sorted(agent.pool.zygotes)
        if not keys:
            return
        key = keys[whom % len(keys)]
        for executor in agent.pool.executors.values():
            if executor.zygote == key:
                self._note_blame(executor.begun)
        agent.pool.die_zygote(key)

    def _note_blame(self, begun: int | None) -> None:
        """A task is going to be blamed for what it did not do."""
        for run in self.runs.values():
            if begun is not None and run.work is not None and 0 <= begun - run.plan < len(run.work.plan):
                run.work.killed[begun - run.plan] += 1


def may_fail(work: Work, task: int, kind: str, losses: int) -> bool:
    """Whether a task may have failed for good in this way."""
    spec = work.specs[task]
    if kind == "killed":
        lost = losses + work.killed[task] >= SETTINGS.max_shared_losses + SETTINGS.max_lone_losses
        return lost or work.killed[task] >= SETTINGS.max_deaths
    if spec.behaviour != kind:
        return False
    if kind == "raised":
        return spec.times > work.plan.options.get(task, work.plan.default_options).retries
    return spec.times >= SETTINGS.max_storage_tries if kind == "storage" else True

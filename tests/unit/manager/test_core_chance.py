"""The core under chance: random graphs, workers that come and go, words that are late or said twice."""

from __future__ import annotations

import os
import pickle

from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from graphvine.manager.check import check
from graphvine.manager.core import Core
from graphvine.manager.instructions import PlanDone, PlanFailed
from graphvine.manager.plan import Code, GivenValue, Plan, TaskOptions
from graphvine.manager.rehearsal import FakeWorker, Rehearsal, digest
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Resources
from graphvine.protocol.outcomes import Failed

PHASES = [Phase.explicit, Phase.generate] if os.environ.get("NOSHRINK") else list(Phase)


def options() -> st.SearchStrategy[TaskOptions]:
    """What tasks may ask for; the last worker can run all of it."""
    return st.builds(
        TaskOptions,
        request=st.builds(
            Resources, cores=st.sampled_from([1.0, 2.0]), memory_mb=st.sampled_from([0.0, 500.0])
        ),
        priority=st.sampled_from([0, 0, -1, 5]),
        retries=st.just(100),
        workers=st.sampled_from([(), (), ("host3", "good"), ("w1", "good")]),
        allow_other_workers=st.booleans(),
        limit=st.sampled_from(["", "", "few"]),
    )


@st.composite
def plans(draw: st.DrawFn, externals: list[int]) -> Plan:
    """A random graph: a few inputs each, most of them near."""
    size = draw(st.integers(1, 14))
    inputs: list[tuple[int, ...]] = []
    for task in range(size):
        reach = [st.integers(max(0, task - 5), task - 1)] if task else []
        reach += [st.integers(-len(externals), -1)] if externals else []
        names = draw(st.lists(st.one_of(reach), max_size=3)) if reach else []
        inputs.append(tuple(names))
    wanted = draw(st.lists(st.integers(0, size - 1), unique=True, min_size=1, max_size=4))
    given = {
        task: GivenValue(b"given %d" % task)
        for task in range(size)
        if not inputs[task] and draw(st.integers(0, 9)) == 0
    }
    blobs = [b"one", b"two"]
    return Plan(
        keys=[f"t{task}" for task in range(size)],
        inputs=inputs,
        blobs=blobs,
        blob_of=[draw(st.integers(0, 1)) for _ in range(size)],
        blob_index=list(range(size)),
        categories=["a", "b"],
        category_of=[task % 2 for task in range(size)],
        wanted=wanted,
        externals=externals,
        options={task: draw(options()) for task in draw(st.sets(st.integers(0, size - 1), max_size=4))},
        default_options=draw(options()) if draw(st.booleans()) else TaskOptions(retries=100),
        given=given,
        separate=draw(st.booleans()),
        code=Code(setup=draw(st.sampled_from([b"", b"", b"fits", b"cuts"]))),
    )


class Chance(RuleBasedStateMachine):
    """Every rule is something that can happen at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(Settings(checked=True, wide=3, spread_bytes=1000))
        self.cluster = Rehearsal(self.core, self.look)
        self.core.on_limit("few", 2, 0.0)
        self.core.on_watch(0.0)
        #: Results of tasks that failed for good.
        self.failures: dict[int, bytes] = {}
        self.released: set[int] = set()
        self.kept: list[int] = []
        self.cancelled: set[int] = set()
        self.kept_plans: set[int] = set()
        self.failed: set[int] = set()
        self.kills = 0

    def look(self, core: Core) -> None:
        check(core)
        for table in core.state.plans.values():
            self.failures |= {table.base + i: table.given[i] for i in table.failures}  # type: ignore[misc]

    def pick(self, data: st.DataObject, those: list[FakeWorker]) -> FakeWorker | None:
        return data.draw(st.sampled_from(those)) if those else None

    @rule(cores=st.integers(1, 3))
    @precondition(lambda self: len(self.cluster.workers) < 5)
    def join(self, cores: int) -> None:
        self.cluster.join(cores)

    @rule(data=st.data(), keep=st.booleans())
    @precondition(lambda self: len(self.cluster.plans) < 4)
    def plan(self, data: st.DataObject, keep: bool) -> None:
        externals = (
            data.draw(st.lists(st.sampled_from(self.kept), unique=True, max_size=3)) if self.kept else []
        )
        plan = data.draw(plans(externals))
        large = data.draw(st.lists(st.integers(0, len(plan) - 1), unique=True))
        base = self.cluster.run(plan, keep=keep, large=large)
        if keep:
            self.kept_plans.add(base)
            self.kept += [base + task for task in plan.wanted]

    @rule()
    def turn(self) -> None:
        self.cluster.turn()

    @rule(data=st.data())
    def deliver_to_worker(self, data: st.DataObject) -> None:
        worker = self.pick(
            data, [w for w in self.cluster.workers.values() if self.cluster.to_worker[w.number]]
        )
        if worker:
            self.cluster.deliver_to_worker(worker.number)

    @rule(data=st.data(), twice=st.booleans())
    def deliver_to_manager(self, data: st.DataObject, twice: bool) -> None:
        worker = self.pick(
            data, [w for w in self.cluster.workers.values() if self.cluster.to_manager[w.number]]
        )
        if worker:
            self.cluster.deliver_to_manager(worker.number, 1 + twice)

    @rule(data=st.data(), count=st.integers(1, 4), finish=st.booleans())
    def work(self, data: st.DataObject, count: int, finish: bool) -> None:
        worker = self.pick(data, list(self.cluster.workers.values()))
        for _ in range(count if worker else 0):
            ready = worker.can_begin()
            if ready:
                worker.begin(ready[0])
            for task in list(worker.begun) if finish else ():
                worker.finish(task)

    @rule(data=st.data())
    def set_up(self, data: st.DataObject) -> None:
        worker = self.pick(data, [w for w in self.cluster.workers.values() if w.orders])
        if worker:
            worker.set_up(data.draw(st.sampled_from(list(worker.orders.values()))))

    @rule(data=st.data())
    def tear_down(self, data: st.DataObject) -> None:
        worker = self.pick(data, [w for w in self.cluster.workers.values() if len(w.ready) > 1])
        if worker:
            worker.tear_down(data.draw(st.sampled_from(sorted(worker.ready.keys() - {""}))))

    @rule(data=st.data(), kind=st.sampled_from(["raised", "raised", "killed", "storage"]))
    def fail(self, data: st.DataObject, kind: str) -> None:
        worker = self.pick(data, [w for w in self.cluster.workers.values() if w.begun])
        if worker:
            task = data.draw(st.sampled_from(sorted(worker.begun)))
            if kind == "raised" or task not in self.failed:
                # Once each: what is to end well may not be killed three times.
                self.failed.add(task)
                worker.fail(task, "unpicklable" if self.is_separate(task) else kind)

    def is_separate(self, task: int) -> bool:
        plans = self.cluster.plans
        return plans[max(base for base in plans if base <= task)].separate

    @rule(data=st.data())
    def cancel_tasks(self, data: st.DataObject) -> None:
        if self.cluster.plans:
            base = data.draw(st.sampled_from(sorted(self.cluster.plans)))
            tasks = st.integers(base, base + len(self.cluster.plans[base]) - 1)
            self.core.on_cancel_tasks(data.draw(st.lists(tasks, max_size=3)), 0.0)

    @rule(data=st.data())
    def prune(self, data: st.DataObject) -> None:
        if self.kept:
            self.core.on_prune([data.draw(st.sampled_from(self.kept))], 0.0)

    @rule(count=st.sampled_from([1, 2, 3]))
    def limit(self, count: int) -> None:
        self.core.on_limit("few", count, 0.0)

    @rule(host=st.sampled_from(["host1", "host2", "w3"]), seconds=st.sampled_from([None, 5.0]))
    def block(self, host: str, seconds: float | None) -> None:
        self.core.on_block_host(host, seconds, self.cluster.now)

    @rule(host=st.sampled_from(["host1", "host2", "w3", None]))
    def unblock(self, host: str | None) -> None:
        self.core.on_unblock_host(host, self.cluster.now)

    @rule(count=st.sampled_from([0, 1, 3, 5]))
    def await_workers(self, count: int) -> None:
        self.core.on_await_workers(count, self.cluster.now)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker = self.pick(data, list(self.cluster.workers.values()))
        if worker:
            self.cluster.leave(worker.number)

    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        worker = self.pick(data, [w for w in self.cluster.workers.values() if w.fetching])
        if worker:
            worker.fetch(data.draw(st.sampled_from(sorted(worker.fetching))))

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        worker = self.pick(data, list(self.cluster.workers.values()))
        if worker:
            worker.send()

    @rule(data=st.data(), vanish=st.booleans())
    @precondition(lambda self: self.kills < 4)
    def kill(self, data: st.DataObject, vanish: bool) -> None:
        worker = self.pick(data, list(self.cluster.workers.values()))
        if worker:
            self.kills += 1
            if vanish:
                self.cluster.vanish(worker.number)
            else:
                self.cluster.kill(worker.number)

    @rule(data=st.data())
    def lose_file(self, data: st.DataObject) -> None:
        worker = self.pick(data, [w for w in self.cluster.workers.values() if w.files])
        if worker:
            worker.lose(data.draw(st.sampled_from(sorted(worker.files))))

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        numbers = sorted(self.cluster.workers)
        if len(numbers) > 1:
            pair = data.draw(st.lists(st.sampled_from(numbers), min_size=2, max_size=2, unique=True))
            self.cluster.cuts.add((pair[0], pair[1]))

    @rule(data=st.data())
    def bring(self, data: st.DataObject) -> None:
        if self.cluster.wishes:
            self.cluster.bring(data.draw(st.sampled_from(self.cluster.wishes)))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        going = [
            base
            for base in self.cluster.plans
            if base not in self.cluster.over and base not in self.cancelled
        ]
        free = [base for base in going if not self.users(base)]
        if free:
            base = data.draw(st.sampled_from(free))
            self.core.on_cancel_plan(base, 0.0)
            self.cancelled.add(base)
            self.forget_kept(base)

    def users(self, base: int) -> list[int]:
        """Plans that name files of plan ``base`` and are not over."""
        size = len(self.cluster.plans[base])
        return [
            other
            for other, plan in self.cluster.plans.items()
            if any(base <= file < base + size for file in plan.externals)
        ]

    def forget_kept(self, base: int) -> None:
        size = len(self.cluster.plans[base])
        self.kept = [file for file in self.kept if not base <= file < base + size]

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.kept:
            file = data.draw(st.sampled_from(self.kept))
            self.kept.remove(file)
            self.released.add(file)
            self.core.on_release([file], 0.0)

    def value_of(self, base: int, task: int) -> bytes:
        """The result a task should have, with whatever failed before it."""
        plan = self.cluster.plans[base]
        if base + task in self.failures:
            return self.failures[base + task]
        if task in plan.given:
            return self.cluster.values[base + task]
        inputs = [
            self.file_value(base + name if name >= 0 else plan.externals[-1 - name])
            for name in plan.inputs[task]
        ]
        return digest(plan.blobs[plan.blob_of[task]], plan.blob_index[task], inputs)

    def file_value(self, file: int) -> bytes:
        base = max(base for base in self.cluster.plans if base <= file)
        return self.value_of(base, file - base)

    def check_outcomes(self, base: int) -> None:
        """Each wanted task of a separate plan was heard of once, unless it was released before."""
        plan = self.cluster.plans[base]
        told = self.cluster.outcomes.get(base, {})
        assert plan.separate or not told
        for position, task in enumerate(plan.wanted) if plan.separate else ():
            outcome = told.get(position)
            if outcome is None:
                assert base + task in self.released
                continue
            if not outcome.ok:
                failure = Failed(outcome.kind, outcome.text)
                assert self.failures.setdefault(base + task, pickle.dumps(failure, 5)) == pickle.dumps(
                    failure, 5
                )
            elif outcome.value is not None:
                assert outcome.value == self.file_value(base + task)

    def teardown(self) -> None:
        """In the end, with one good worker more and every silent one found out, all is as it should be."""
        cluster = self.cluster
        self.core.on_unblock_host(None, cluster.now)
        self.core.on_await_workers(0, cluster.now)
        cluster.wait(100.0)
        cluster.join(2, "good")
        cluster.settle()
        for base in cluster.plans:
            if base not in self.cancelled:
                self.check_outcomes(base)
        for base in cluster.plans:
            if base in self.cancelled:
                assert not isinstance(cluster.over.get(base), PlanFailed)
                continue
            assert isinstance(cluster.over.get(base), PlanDone), (
                f"plan {base} did not end: {cluster.over.get(base)}"
            )
            if base not in self.kept_plans:
                wanted = cluster.plans[base].wanted
                assert cluster.results[base] == {
                    i: self.value_of(base, task) for i, task in enumerate(wanted)
                }
        if self.kept:
            fetch = self.core.on_wanted(self.kept, 100.0)
            cluster.settle()
            assert cluster.results[fetch] == {i: self.file_value(file) for i, file in enumerate(self.kept)}
        self.core.on_release(self.kept, 100.0)
        cluster.settle()
        assert not self.core.state.plans
        for worker in cluster.workers.values():
            assert not worker.files, f"worker {worker.number} was left with {sorted(worker.files)}"
            assert not worker.blobs
            assert not worker.orders


def test_whatever_happens_every_plan_ends_well() -> None:
    run_state_machine_as_test(
        Chance,
        settings=hypothesis_settings(
            max_examples=int(os.environ.get("CHANCE", 100)),
            stateful_step_count=60,
            deadline=None,
            phases=PHASES,
            derandomize="CHANCE" not in os.environ,
        ),
    )

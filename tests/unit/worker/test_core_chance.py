"""Whatever happens in whatever order: every task ends in exactly one way, and the books are right after each
step (``Bench.check``)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.worker.bench import Bench, order

from graphvine.protocol.messages import Resources
from graphvine.worker.settings import Settings

DURATIONS = (1e-5, 1e-3, 0.02, 0.3)


class Worker(RuleBasedStateMachine):
    """``open``: tasks the manager has given away and heard nothing of."""

    @initialize(
        cores=st.sampled_from([1, 2, 3]),
        packet=st.sampled_from([1, 3, 128]),
        gpus=st.sampled_from([1.0, 2.0]),
    )
    def begin(self, cores: int, packet: int, gpus: float) -> None:
        chosen = Settings(warm_executors=1, packet_tasks=packet, packet_bytes=200, gather_s=0.0)
        self.bench = Bench(cores=cores, settings=chosen, gpus=gpus)
        self.bench.core.start()
        self.bench.turn()
        self.next = 1
        self.inputs: dict[int, tuple[int, ...]] = {}
        self.open: set[int] = set()
        self.seen = 0

    @rule(data=st.data(), count=st.integers(1, 12))
    def assign(self, data: st.DataObject, count: int) -> None:
        given = []
        requests = {}
        for task in range(self.next, self.next + count):
            known = sorted(set(self.bench.done) | self.open)[-8:]
            inputs = data.draw(st.lists(st.sampled_from(known), max_size=3)) if known else []
            given.append(order(task, *inputs, category=task % 3))
            if task % 5 == 0:
                shares = [Resources(2), Resources(0.5), Resources(0.01)]
                shares += [Resources(1, gpus=1), Resources(0.5, gpus=0.5), Resources(1, gpus=2)]
                kinds = [*shares, Resources(9, memory_mb=600)]
                requests[task] = data.draw(st.sampled_from(kinds))
            self.inputs[task] = tuple(inputs)
            self.open.add(task)
        self.next += count
        self.bench.assign(*given, requests=requests)

    @precondition(lambda self: self.bench.executors)
    @rule(data=st.data(), size=st.sampled_from([1, 1, 5000]), kind=st.sampled_from(["", "", "", "raised"]))
    def run_a_task(self, data: st.DataObject, size: int, kind: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.bench.executors)))
        if self.bench.executors[number].ready and self.bench.begin(number):
            duration = data.draw(st.sampled_from(DURATIONS))
            self.bench.now += duration
            self.bench.finish_one(number, kind, duration, size)  # type: ignore[arg-type]

    @rule()
    def executors_come_up(self) -> None:
        self.bench.bring_up()

    @precondition(lambda self: self.bench.executors)
    @rule(data=st.data(), begun=st.booleans())
    def an_executor_dies(self, data: st.DataObject, begun: bool) -> None:
        self.bench.die(data.draw(st.sampled_from(sorted(self.bench.executors))), begun)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def recall(self, data: st.DataObject) -> None:
        tasks = data.draw(st.lists(st.sampled_from(sorted(self.open)), max_size=5, unique=True))
        self.bench.core.on_recall(tasks)
        self.bench.turn()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        tasks = set(data.draw(st.lists(st.sampled_from(sorted(self.open)), max_size=5, unique=True)))
        # As a manager does: with whatever needs them.
        while more := {t for t in self.open - tasks if tasks & set(self.inputs[t])}:
            tasks |= more
        self.open -= tasks
        self.bench.core.on_cancel(sorted(tasks), self.bench.now)
        self.bench.turn()

    @rule(seconds=st.sampled_from([0.001, 0.01, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.wait(seconds)

    @invariant()
    def what_is_reported_was_open(self) -> None:
        if not hasattr(self, "bench"):
            return
        while self.seen < len(self.bench.reports):
            report = self.bench.reports[self.seen]
            self.seen += 1
            ended = [done.task for done in report.done] + [failed.task for failed in report.failed]
            ended += report.returned
            assert len(ended) == len(set(ended))
            assert set(ended) <= self.open
            self.open -= set(ended)
            # What waits for a failed one is taken back, as a manager does.
            failed = {failed.task for failed in report.failed}
            self.recall_what_waits_for(failed)

    def recall_what_waits_for(self, failed: set[int]) -> None:
        waiting = [task for task in self.open if failed & set(self.inputs[task])]
        if waiting:
            self.bench.core.on_recall(waiting)
            self.bench.turn()

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        for _ in range(100):
            self.what_is_reported_was_open()
            if not self.open:
                break
            self.bench.wait(1.0)
            self.bench.run_all()
        assert not self.open, "the worker neither runs them nor gives them back"
        assert not self.bench.core._queue.jobs


Worker.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWorker = Worker.TestCase

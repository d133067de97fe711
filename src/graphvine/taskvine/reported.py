"""What became of a task, as its user asks for it: results, what was measured, where and when it ran."""

from __future__ import annotations

from typing import Any

from graphvine.taskvine import results
from graphvine.taskvine.results import Report, Summary

#: The names that ``get_metric`` knows.
METRICS = (
    "time_when_submitted",
    "time_when_done",
    "time_when_commit_start",
    "time_when_commit_end",
    "time_when_retrieval",
    "time_workers_execute_last",
    "time_workers_execute_all",
    "time_workers_execute_exhaustion",
    "time_workers_execute_failure",
    "bytes_received",
    "bytes_sent",
    "bytes_transferred",
    "total_submissions",
)


class Reported:
    """A part of every task. Before it is over there is little to tell."""

    _command: str
    _tag: str | None
    _category: str
    _id: int
    _state: str
    _report: Report | None
    _metrics: dict[str, int]
    _asked: Summary
    _time_max: float
    _time_end: int

    @property
    def command(self) -> str:
        """Its command line; of a Python task the name of its function."""
        return self._command

    @property
    def tag(self) -> str | None:
        """What ``set_tag`` said."""
        return self._tag

    @property
    def category(self) -> str:
        """By which it is measured and counted (``set_category``; "default" unless stated)."""
        return self._category

    @property
    def id(self) -> int:
        """Its number, once it was submitted; else 0."""
        return self._id

    @property
    def state(self) -> str:
        """ "initial", "ready", "running", "retrieved" or "done"."""
        return self._state

    @property
    def std_output(self) -> str | None:
        """What the command wrote to its standard output and standard error."""
        return None if self._report is None else self._report.output.decode(errors="replace")

    @property
    def output(self) -> Any:
        """As ``std_output``."""
        return self.std_output

    @property
    def exit_code(self) -> int:
        """Of the command; the signal's number if a signal ended it; -1 before."""
        return -1 if self._report is None else self._report.exit_code

    @property
    def result(self) -> str:
        """In TaskVine's words: "success" if it ran and made its outputs, whatever its exit code."""
        return results.UNKNOWN if self._report is None else self._report.result

    @property
    def reason(self) -> str:
        """Why it has that result, in words; "" where there is nothing to say. (Not in TaskVine.)"""
        return "" if self._report is None else self._report.reason

    def completed(self) -> bool:
        """Whether the command ran to its end and made its outputs."""
        return self.result == results.SUCCESS

    def successful(self) -> bool:
        """... and ended with exit code 0."""
        return self.completed() and self.exit_code == 0

    @property
    def hostname(self) -> str:
        """The host that ran it."""
        return "" if self._report is None else self._report.host

    @property
    def addrport(self) -> str:
        """The worker that ran it."""
        return "" if self._report is None else self._report.worker

    @property
    def resources_measured(self) -> Summary | None:
        """What it used: microseconds, MB, -1 for what is not measured. None while it is not over."""
        return None if self._report is None else self._report.measured

    @property
    def resources_requested(self) -> Summary:
        """What it asks for: cores, MB of memory and disk, gpus; -1 for what it does not state."""
        return self._asked

    @property
    def resources_allocated(self) -> Summary | None:
        """What it was granted: what it asked for, and of what it did not state a share of the worker."""
        return None if self._report is None else self._report.allocated() or self._asked

    @property
    def limits_exceeded(self) -> Summary | None:
        """What it used more of than it may; None: nothing."""
        result = self.result
        if result == results.MAX_WALL_TIME:
            return Summary(wall_time=round(self._time_max * 1e6))
        if result == results.MAX_END_TIME:
            return Summary(end=self._time_end)
        exceeded = self._report.exceeded if self._report is not None else {}
        return Summary(**exceeded) if exceeded else None  # type: ignore[arg-type]

    def get_metric(self, name: str) -> int:
        """A number of TaskVine's: ``time_when_submitted``, ``time_when_done`` (microseconds since 1970),
        ``time_workers_execute_last``, ... (microseconds), ``bytes_received``, ..., ``total_submissions`` (to
        workers). Raises ValueError."""
        if name not in METRICS:
            raise ValueError(f"{name!r} is no metric; there are: {', '.join(METRICS)}")
        if name == "total_submissions":
            return 0 if self._report is None else self._report.tries
        return self._metrics.get(name, 0)

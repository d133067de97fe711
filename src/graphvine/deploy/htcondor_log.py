"""HTCondor's job event log, read as it grows: what became of each job of a submission, and why.

The log of a submission is one text file that the schedd and its shadows append to. An event is a line that
begins with its number, the job and the time; more lines; and a line of three dots:

    012 (0017.003.000) 2026-11-21 09:44:03 Job was held.
            via condor_hold (by user alice)
            Code 1 Subcode 0
    ...

Only what tells a job's state is read; events of other numbers are passed over. Pure: text in, states out.
"""

from __future__ import annotations

import re

from graphvine.deploy.batch import JobState, JobStatus

_HEAD = re.compile(r"(?P<event>\d{3}) \((?P<cluster>\d+)\.(?P<proc>\d+)\.\d+\) \S+ \S+ (?P<text>.*)")
_END = "..."
_SLOT = re.compile(r"SlotName: \S*?@(\S+)")
_ADDRESS = re.compile(r"host: <?([^:?>\s]+)")
_NORMAL = re.compile(r"return value (-?\d+)")
_SIGNAL = re.compile(r"signal (\d+)")
#: Lines of details that are no reason.
_NO_REASON = re.compile(
    r"Code \d+ Subcode \d+|\(\d\) |\s*$|\d+  -  |.*Usage|.*Partitionable|\w+(?: \(\w+\))? +: +[\d.]"
)

_WAITS_AGAIN = {
    "004": "evicted",
    "007": "the node or its connection failed",
    "024": "the node could not be reached again",
}


class EventLog:
    """States of the jobs that one log tells of."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobStatus] = {}
        self._rest = ""
        self._event: list[str] = []

    def feed(self, text: str) -> None:
        """More of the log, cut anywhere."""
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        for line in lines:
            if line == _END:
                self._on_event(self._event)
                self._event = []
            else:
                self._event.append(line)

    def _on_event(self, lines: list[str]) -> None:
        head = _HEAD.match(lines[0]) if lines else None
        if head is None:
            return  # its beginning was lost, or it is of a kind that has none
        job = f"{int(head['cluster'])}.{int(head['proc'])}"
        told = status_after(job, head["event"], head["text"], lines[1:], self.jobs.get(job))
        if told is not None:
            self.jobs[job] = told


def status_after(
    job: str, event: str, text: str, details: list[str], before: JobStatus | None
) -> JobStatus | None:
    """What an event makes of a job; None where it says nothing of its state."""
    host = before.host if before is not None else ""
    if event == "000" or event == "013":
        return JobStatus(job, JobState.PENDING, "released" if event == "013" else "")
    if event == "001":
        return JobStatus(job, JobState.RUNNING, host=_host(text, details))
    if event in _WAITS_AGAIN:
        return JobStatus(job, JobState.PENDING, _reason(details) or _WAITS_AGAIN[event])
    if event == "005":
        return _finished(job, details, host)
    if event == "009":
        return JobStatus(job, JobState.REMOVED, _reason(details) or text, host=host)
    if event == "012":
        return JobStatus(job, JobState.HELD, _reason(details) or text, host=host)
    if event == "022":
        return JobStatus(job, JobState.RUNNING, _reason(details) or "disconnected", host=host)
    if event == "023":
        return JobStatus(job, JobState.RUNNING, host=host)
    return None


def _host(text: str, details: list[str]) -> str:
    slot = _SLOT.search("\n".join(details))
    if slot is not None:
        return slot[1]
    address = _ADDRESS.search(text)
    return address[1] if address is not None else ""


def _finished(job: str, details: list[str], host: str) -> JobStatus:
    first = details[0] if details else ""
    normal, signal = _NORMAL.search(first), _SIGNAL.search(first)
    code = int(normal[1]) if normal is not None else -int(signal[1]) if signal is not None else None
    return JobStatus(job, JobState.FINISHED, exit_code=code, host=host)


def _reason(details: list[str]) -> str:
    """The first line of details that says something in words."""
    for line in details:
        words = line.strip()
        if words and not _NO_REASON.match(words):
            return words
    return ""

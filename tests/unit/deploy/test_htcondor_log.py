"""HTCondor's event log: each event that tells a job's state, cut anywhere, and others in between."""

from __future__ import annotations

import pytest

from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.htcondor_log import EventLog

SUBMITTED = (
    "000 (017.003.000) 2026-11-21 09:49:59 Job submitted from host: <127.0.0.1:44545?addrs=127.0.0.1>\n...\n"
)
STARTED = """\
001 (017.003.000) 2026-11-21 09:50:01 Job executing on host: <10.0.0.7:44545?addrs=10.0.0.7-44545&alias=vm>
\tSlotName: slot1_1@node7.site
\tCondorScratchDir = "/tmp/execute/dir_13531"
\tCpus = 1
...
"""
OTHER = """\
006 (017.003.000) 2026-11-21 09:50:01 Image size of job updated: 1
\t0  -  MemoryUsage of job (MB)
...
"""
ENDED = """\
005 (017.003.000) 2026-11-21 09:50:01 Job terminated.
\t{how}
\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage
\tPartitionable Resources :    Usage  Request Allocated
\t   Cpus                 :                 1         1

\tJob terminated of its own accord at 2026-11-21T09:50:01Z with exit-code 3.
...
"""
HELD = """\
012 (017.003.000) 2026-11-21 09:50:05 Job was held.
\tvia condor_hold (by user alice)
\tCode 1 Subcode 0
...
"""
RELEASED = (
    "013 (017.003.000) 2026-11-21 09:50:09 Job was released.\n\tvia condor_release (by user alice)\n...\n"
)
REMOVED = "009 (017.003.000) 2026-11-21 09:50:10 Job was aborted.\n\tvia condor_rm (by user alice)\n...\n"
EVICTED = """\
004 (017.003.000) 2026-11-21 09:50:10 Job was evicted.
\t(0) CPU times
\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage
\t0  -  Run Bytes Sent By Job
...
"""
VACATED = """\
004 (017.003.000) 2026-11-21 09:50:10 Job was evicted.
\t(0) CPU times
\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage
\t0  -  Run Bytes Sent By Job
\tPartitionable Resources :    Usage  Request Allocated
\t   Cpus                 :     0.10        1         1
\t   Disk (KB)            :       15  1048576   1052671
\t   Memory (MB)          :        0      300       384
...
"""
LOST = """\
007 (017.003.000) 2026-11-21 09:50:10 Shadow exception!
\tError from slot1@node7: disk full
\t0  -  Run Bytes Sent By Job
...
"""
AWAY = """\
022 (017.003.000) 2026-11-21 09:50:10 Job disconnected, attempting to reconnect
    Socket between submit and execute hosts closed unexpectedly
    Trying to reconnect to slot1@node7.site <10.0.0.7:44545?addrs=10.0.0.7-44545>
...
"""
BACK = "023 (017.003.000) 2026-11-21 09:50:10 Job reconnected to slot1@node7.site\n...\n"

JOB = "17.3"
RUNNING = JobStatus(JOB, JobState.RUNNING, host="node7.site")


def after(*events: str) -> JobStatus:
    log = EventLog()
    log.feed("".join(events))
    return log.jobs[JOB]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([SUBMITTED], JobStatus(JOB, JobState.PENDING)),
        ([SUBMITTED, STARTED], RUNNING),
        ([SUBMITTED, STARTED, OTHER], RUNNING),
        (
            [STARTED, ENDED.format(how="(1) Normal termination (return value 71)")],
            JobStatus(JOB, JobState.FINISHED, exit_code=71, host="node7.site"),
        ),
        (
            [STARTED, ENDED.format(how="(0) Abnormal termination (signal 9)")],
            JobStatus(JOB, JobState.FINISHED, exit_code=-9, host="node7.site"),
        ),
        ([SUBMITTED, HELD], JobStatus(JOB, JobState.HELD, "via condor_hold (by user alice)")),
        ([HELD, RELEASED], JobStatus(JOB, JobState.PENDING, "released")),
        ([SUBMITTED, REMOVED], JobStatus(JOB, JobState.REMOVED, "via condor_rm (by user alice)")),
        ([STARTED, EVICTED], JobStatus(JOB, JobState.PENDING, "evicted")),
        ([STARTED, VACATED], JobStatus(JOB, JobState.PENDING, "evicted")),
        ([STARTED, LOST], JobStatus(JOB, JobState.PENDING, "Error from slot1@node7: disk full")),
        ([EVICTED, STARTED], RUNNING),
        ([STARTED, AWAY, BACK], RUNNING),
    ],
)
def test_what_events_make_of_a_job(events: list[str], told: JobStatus) -> None:
    assert after(*events) == told


def test_a_job_that_cannot_be_reached_still_runs() -> None:
    told = after(STARTED, AWAY)
    assert (told.state, told.host) == (JobState.RUNNING, "node7.site")
    assert "closed unexpectedly" in told.reason


def test_without_a_slots_name_the_address_tells_the_host() -> None:
    assert after(STARTED.replace("SlotName", "Other")).host == "10.0.0.7"


def test_a_log_may_be_cut_anywhere() -> None:
    text = SUBMITTED + STARTED + HELD + RELEASED + STARTED + ENDED.format(how="(1) Normal (return value 0)")
    for size in (1, 7, 64):
        log = EventLog()
        for begin in range(0, len(text), size):
            log.feed(text[begin : begin + size])
        assert log.jobs[JOB] == JobStatus(JOB, JobState.FINISHED, exit_code=0, host="node7.site")


def test_an_event_that_is_not_whole_does_not_count() -> None:
    log = EventLog()
    log.feed(SUBMITTED + STARTED.removesuffix("...\n"))
    assert log.jobs[JOB].state is JobState.PENDING


def test_a_log_whose_beginning_was_lost() -> None:
    log = EventLog()
    log.feed("f a line\n\tmore\n...\n" + STARTED)
    assert log.jobs == {JOB: RUNNING}


def test_jobs_are_told_apart() -> None:
    log = EventLog()
    log.feed(SUBMITTED + STARTED.replace("003.000", "010.000"))
    assert {job: told.state for job, told in log.jobs.items()} == {
        "17.3": JobState.PENDING,
        "17.10": JobState.RUNNING,
    }

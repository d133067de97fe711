"""Slurm with a real accounting database: how jobs ended that slurmctld has forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster import slurm_accounts, slurm_pool
from tests.cluster.slurm_jobs import Jobs, is_over
from tests.cluster.slurm_pool import await_true, pool

from graphvine.deploy.batch import JobState
from graphvine.deploy.slurm import Slurm


def test_what_only_accounting_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = slurm_pool.why_not() or slurm_accounts.why_not()
    if missing:
        pytest.skip(missing)
    with pool(slurm_accounts.accounts) as slurm:
        monkeypatch.setenv("SLURM_CONF", str(slurm.configuration))
        jobs = Jobs(tmp_path)
        well, badly = jobs.submit("0", 2).jobs, jobs.submit("3").jobs
        cancelled = jobs.submit("wait").jobs
        jobs.await_start(cancelled)
        jobs.system.cancel(cancelled)
        every = [*well, *badly, *cancelled]
        jobs.wait(every, is_over)
        await_true(lambda: not slurm.run("squeue", "-h", "--states=all").strip(), "all is forgotten")
        system = Slurm()  # as another process, which was told nothing
        gone = JobState.GONE
        await_true(lambda: gone not in [one.state for one in system.status(every)], "it is in the database")
        told = {status.job: status for status in Slurm().status(every)}
        assert [(told[job].state, told[job].exit_code) for job in well] == [(JobState.FINISHED, 0)] * 2
        assert (told[badly[0]].state, told[badly[0]].exit_code) == (JobState.FINISHED, 3)
        assert told[badly[0]].host.startswith("n")
        assert told[cancelled[0]].state is JobState.REMOVED
        assert told[cancelled[0]].reason.startswith("cancelled by")

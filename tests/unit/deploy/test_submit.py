"""``graphvine submit``: what it would submit, and what it says to what it cannot."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from graphvine.cli import main
from graphvine.deploy.batch import JobStatus
from graphvine.deploy.submit import _advice
from graphvine.deploy.systems import make_system, names
from graphvine.protocol.connection import make_connection, write_connection


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    monkeypatch.setenv("GRAPHVINE_STATE", str(directory))
    return directory


@pytest.fixture
def manager(state: Path) -> Path:
    """The connection file of a manager named analysis."""
    path = state / "analysis.json"
    write_connection(make_connection("analysis", ("198.51.100.1",), 9123, "x" * 40), path)
    return path


def test_what_earlier_submissions_left_goes(
    manager: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Path] = []
    monkeypatch.setattr("graphvine.deploy.submit.sweep_submissions", lambda parent, now: swept.append(parent))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["submit", "pbs", "-M", "analysis", "--python", "/p", "2"]) == 1
    assert swept == [state / "jobs"]


SITE = ["--cores", "4", "--memory", "8GB", "--disk", "20GB", "--wall-time", "2h", "--gpus", "1"]
SITE += ["--account", "hep", "--queue", "short", "--python", "/cvmfs/env/bin/python", "--env", "A=b=c"]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("slurm", ["# sbatch --parsable --array=0-49", "--mem=8192M", "--partition=short", "--gres=gpu:1"]),
        ("pbs", ["# qsub -J 0-49", "select=1:ncpus=4:mem=8192mb:ngpus=1", "walltime=02:00:00"]),
        ("torque", ["# qsub -t 0-49", "nodes=1:ppn=4:gpus=1"]),
        ("lsf", ["# bsub -J 'graphvine[1-50]' < job.sh", "#BSUB -W 120"]),
        ("sge", ["# qsub -terse -t 1-50", "-pe smp 4", "-l h_rt=02:00:00"]),
        ("dirac", ["# dirac-wms-job-submit", "Parameters = 50;"]),
        ("htcondor", ["# condor_submit", "request_memory = 8192"]),
        ("local", ["(50 times)"]),
    ],
)
def test_a_dry_run_prints_everything_and_does_nothing(
    state: Path, manager: Path, capsys: pytest.CaptureFixture[str], system: str, expected: list[str]
) -> None:
    assert main(["submit", system, "-M", "analysis", *SITE, "--dry-run", "50"]) == 0
    printed = capsys.readouterr().out
    for part in [*expected, "/cvmfs/env/bin/python", "export A=b=c"]:
        assert part in printed
    assert "x" * 40 not in printed, "a key"
    assert list(state.iterdir()) == [manager]


def test_taskvines_words_and_the_workers_own_options(
    manager: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = ["--partition", "short", "-t", "15m", "-B=--exclusive", "-E", "--log-dir '/a b'"]
    assert main(["submit", "slurm", *site, "--python", "/p", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for part in ("--partition=short", "#SBATCH --exclusive", "--log-dir '/a b'", "900"):
        assert part in printed


def test_every_system_is_covered() -> None:
    assert names() == ["htcondor", "slurm", "local", "dirac", "lsf", "pbs", "sge", "torque"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["slrum"],
            "no batch system 'slrum': there are htcondor, slurm, local, dirac, lsf, pbs, sge, torque",
        ),
        (["slurm", "-M", "other"], "no manager is named 'other'; there are analysis."),
        (["slurm", "--connection-file", "/nowhere"], "cannot read the connection file /nowhere"),
        (["slurm", "--memory", "lots"], "memory: 'lots' is no size"),
        (
            ["slurm", "--wall-time", "2:30", "--cores", "0"],
            "cores: '0' is no number of cores; wall_time: '2:30' is",
        ),
        (["slurm", "--env", "A"], "--env takes NAME=VALUE, not 'A'"),
        (["slurm", "--proxy", "/nowhere/proxy"], "there is no file /nowhere/proxy"),
        (["slurm", "--option", "a=b"], "slurm has no options"),
        (["sge", "--option", "b"], "an option is written as name=value, not 'b'"),
        (
            ["sge", "--option", "b=c"],
            "sge has no option b; there are: gpu_resource, memory_resource, parallel",
        ),
        (["slurm", "--python", "/p", "--environment", "e"], "not both"),
        (["/nowhere/own.toml"], "cannot read the template /nowhere/own.toml: No such file"),
    ],
)
def test_bad_usage_is_one_clear_line(
    manager: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    more = [] if "--python" in arguments else ["--python", "/usr/bin/python3"]
    assert main(["submit", *arguments, *more, "3"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert complaint in said


@pytest.mark.parametrize("more", [[], ["--not-shared"], ["-M", "tomorrow"]])
def test_a_dry_run_needs_no_manager(state: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    assert main(["submit", "slurm", "--python", "/p", "--dry-run", *more, "3"]) == 0
    printed = capsys.readouterr()
    assert "#SBATCH --cpus-per-task=1" in printed.out
    assert f"there is none in {state}" in printed.err
    assert list(state.iterdir()) == []


def test_a_dry_run_shows_no_key(manager: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "slurm", "--python", "/p", "--dry-run", "--not-shared"]) == 0
    printed = capsys.readouterr().out
    assert "(the text of the connection file)" in printed
    assert "x" * 40 not in printed


def test_no_manager_at_all(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "slurm"]) == 1
    assert "which manager? Give --manager NAME; there is none in" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-3", "many", "1.5", "1000000"])
def test_no_count(manager: Path, capsys: pytest.CaptureFixture[str], count: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["submit", "slurm", "--", count])
    assert caught.value.code == 2
    assert "is not a number from 1 to 100000" in capsys.readouterr().err


def test_what_is_not_there_is_said(
    manager: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["submit", "slurm", "--python", "/p"]) == 1
    assert capsys.readouterr().err == "graphvine: can't run sbatch: No such file or directory\n"


def test_what_to_do_next() -> None:
    slurm = _advice(make_system("slurm"), ["17_0", "17_1", "18_0"], "/d", "analysis")
    assert slurm.splitlines() == [
        "3 jobs for the manager analysis, with which they end",
        "  state   squeue --jobs=17,18",
        "  remove  scancel 17 18",
        "  files   /d",
    ]
    assert "  remove  condor_rm 12" in _advice(make_system("htcondor"), ["12.0", "12.1"], "/d", "m")
    assert "  remove  qdel '7[0].pbs'" in _advice(make_system("pbs"), ["7[0].pbs"], "/d", "m")
    assert "1 job for" in _advice(make_system("local"), ["123"], "/d", "m")


def test_jobs_have_states() -> None:
    assert [told.state.value for told in make_system("local").status(["1"])] == ["gone"]
    assert isinstance(make_system("local").status(["1"])[0], JobStatus)


def test_nothing_stays_of_what_was_refused(
    state: Path,
    manager: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'invalid account' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(["submit", "slurm", "-M", "analysis", "--python", "/p"]) == 1
    assert "invalid account" in capsys.readouterr().err
    assert list((state / "jobs").iterdir()) == []


def test_a_disk_that_is_full_is_one_clear_line(
    state: Path, manager: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("graphvine.deploy.slurm.place", full)
    assert main(["submit", "slurm", "-M", "analysis", "--python", "/p"]) == 1
    assert "jobs can't be prepared in" in (said := capsys.readouterr().err)
    assert "No space left on device" in said
    assert list((state / "jobs").iterdir()) == []

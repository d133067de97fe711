"""Slurm's tools where a real Slurm does not come to: answers that are lost, late, or rubbish."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from graphvine.deploy.errors import DeployError
from graphvine.deploy.slurm import Slurm
from graphvine.deploy.spec import WorkerSpec, make_spec


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of tools that comes first; what is not put into it is not there."""
    directory = tmp_path / "tools"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    put(directory, "scontrol", "exit 1")
    put(directory, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return directory


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    (tmp_path / "m.json").write_text("{}")
    return make_spec(python="/p", connection_file=str(tmp_path / "m.json"))


def put(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def submission(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


@pytest.mark.parametrize("says", ["echo 'Welcome'", ":", "echo 'Socket timed out' >&2; exit 1"])
def test_a_submission_whose_answer_was_lost_is_found(
    tools: Path, spec: WorkerSpec, tmp_path: Path, says: str
) -> None:
    one = submission(tmp_path, "one")
    put(tools, "sbatch", says)
    put(tools, "squeue", f"echo '16|/elsewhere'; echo '17|{one}'")
    assert Slurm().submit(spec, 2, one).jobs == ("17_0", "17_1")


def test_nothing_is_submitted_while_nobody_knows_what_was(
    tools: Path, spec: WorkerSpec, tmp_path: Path
) -> None:
    slurm = Slurm()
    one = submission(tmp_path, "one")
    put(tools, "sbatch", 'echo called >> "${0%/*}/called"; echo "Socket timed out" >&2; exit 1')
    put(tools, "squeue", "echo 'squeue: error: no answer' >&2; exit 1")
    with pytest.raises(DeployError, match=r"sbatch failed.*Socket timed out"):
        slurm.submit(spec, 2, one)
    with pytest.raises(DeployError, match="squeue failed"):
        slurm.submit(spec, 2, submission(tmp_path, "two"))
    assert (tools / "called").read_text() == "called\n"
    put(tools, "squeue", f"echo '17|{one}'")
    assert slurm.submit(spec, 2, submission(tmp_path, "three")).jobs == ("17_0", "17_1")
    put(tools, "sbatch", "echo 18")
    assert slurm.submit(spec, 2, submission(tmp_path, "four")).jobs == ("18_0", "18_1")


def test_what_slurm_refuses_is_not_looked_for(tools: Path, spec: WorkerSpec, tmp_path: Path) -> None:
    put(tools, "sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    put(tools, "squeue", 'echo called > "${0%/*}/called"')
    slurm = Slurm()
    for name in ("one", "two"):
        with pytest.raises(DeployError, match="Invalid account"):
            slurm.submit(spec, 2, submission(tmp_path, name))
    assert not (tools / "called").exists()


def test_an_answer_that_is_none_is_no_knowledge(tools: Path) -> None:
    put(tools, "squeue", "echo '<html>'")
    with pytest.raises(DeployError, match="squeue's answer is not understood: '<html>'"):
        Slurm().status(["17_0"])
    put(tools, "squeue", "echo 'CLUSTER: far'")
    assert Slurm().status(["17_0"])[0].state.is_over


def test_what_users_set_for_their_own_looks_at_the_queue_changes_nothing(
    tools: Path, spec: WorkerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"SLURM_CONF": "/site", "SBATCH_PARTITION": "theirs", "SBATCH_QOS": "high"}
    dropped = {
        "SQUEUE_STATES": "RUNNING",
        "SBATCH_OUTPUT": "x",
        "SBATCH_WAIT": "1",
        "SBATCH_ACCOUNT": "other",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    for name, value in {**kept, **dropped}.items():
        monkeypatch.setenv(name, value)
    put(tools, "sbatch", 'env > "${0%/*}/env.sbatch"; echo 17')
    put(tools, "squeue", 'env > "${0%/*}/env.squeue"; echo "17_0|PENDING||Priority"')
    put(tools, "scancel", 'env > "${0%/*}/env.scancel"')
    slurm = Slurm()
    slurm.submit(msgspec.structs.replace(spec, account="ours"), 1, submission(tmp_path, "one"))
    slurm.status(["17_0"])
    slurm.cancel(["17_0"])
    seen = {
        tool: (tools / f"env.{tool}").read_text().splitlines() for tool in ("sbatch", "squeue", "scancel")
    }
    for lines in seen.values():
        assert {f"{name}={value}" for name, value in kept.items()} <= set(lines)
        assert not [line for line in lines if line.startswith(("SQUEUE_", "SBATCH_OUTPUT", "SBATCH_WAIT"))]
    assert not [line for line in seen["sbatch"] if line.startswith(("SBATCH_ACCOUNT", "CUDA_"))]

"""HTCondor's tools where a real pool does not come to: what a shell says of them, what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphvine.deploy.errors import DeployError
from graphvine.deploy.htcondor import make_htcondor
from graphvine.deploy.spec import make_spec
from graphvine.deploy.systems import make_system


def tool(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_options_from_a_shell(tmp_path: Path) -> None:
    tool(tmp_path, "condor_q", 'echo "$CONDOR_CONFIG $*" > "${0%/*}/called"')
    tool(tmp_path, "condor_history", "exit 0")
    options = [
        f"tools={tmp_path}",
        "config=/site/condor_config",
        "schedd=submit-1",
        "pool=cm.site",
        "spool=yes",
    ]
    make_system("htcondor", options).status(["12.0"])
    called = (tmp_path / "called").read_text()
    assert called.startswith("/site/condor_config -pool cm.site -name submit-1 12.0 -json")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tool": "/x"}, "htcondor has no option tool; there are: tools, config"),
        ({"spool": "2"}, "yes or no"),
    ],
)
def test_options_that_are_none(options: dict[str, str], said: str) -> None:
    with pytest.raises(DeployError, match=said):
        make_htcondor(options)


def test_what_would_be_submitted_can_be_read_first(tmp_path: Path) -> None:
    archive = tmp_path / "env.tar.gz"
    archive.write_bytes(bytes(3 * 2**20))
    spec = make_spec(environment=str(archive), connection_file="/state/m.json", container="docker://alma9")
    shown = make_htcondor({"containers": "no"}).preview(spec, 7, tmp_path / "there")
    assert "queue 7\n" in shown
    assert "request_disk = 1042M\n" in shown
    assert "gv_image=docker://alma9\n" in shown
    assert "container_image" not in shown
    assert not (tmp_path / "there").exists()


def test_commands_are_given_a_bounded_number_of_jobs(tmp_path: Path) -> None:
    tool(tmp_path, "condor_rm", 'echo $# >> "${0%/*}/called"')
    make_htcondor({"tools": str(tmp_path)}).cancel([f"12.{proc}" for proc in range(1200)])
    assert (tmp_path / "called").read_text().split() == ["500", "500", "200"]


def test_a_refusal_to_remove_is_told_if_jobs_are_still_there(tmp_path: Path) -> None:
    tool(tmp_path, "condor_rm", "echo 'Permission denied' >&2; exit 1")
    tool(tmp_path, "condor_q", "echo 2")
    with pytest.raises(DeployError, match="Permission denied"):
        make_htcondor({"tools": str(tmp_path)}).cancel(["12.0"])
    tool(tmp_path, "condor_q", "echo 3")
    make_htcondor({"tools": str(tmp_path)}).cancel(["12.0"])

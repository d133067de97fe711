"""HTCondor's tools where a real pool does not come to: what a shell says of them, what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphvine.deploy.batch import JobState
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
    tool(tmp_path, "condor_history", "exit 0")
    tool(tmp_path, "condor_q", """echo '[{"ClusterId": 12, "ProcId": 0, "JobStatus": 2}]'""")
    with pytest.raises(DeployError, match="Permission denied"):
        make_htcondor({"tools": str(tmp_path)}).cancel(["12.0"])
    tool(tmp_path, "condor_q", """echo '[{"ClusterId": 12, "ProcId": 0, "JobStatus": 3}]'""")
    make_htcondor({"tools": str(tmp_path)}).cancel(["12.0"])


def test_a_job_that_left_without_a_word_in_its_log_is_gone(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    (tmp_path / "jobs").mkdir()
    tool(tmp_path, "condor_submit", "echo 12.0 - 12.1")
    htcondor = make_htcondor({"tools": str(tmp_path)})
    spec = make_spec(python="/p", connection_file=str(tmp_path / "m.json"))
    jobs = htcondor.submit(spec, 2, tmp_path / "jobs").jobs
    (tmp_path / "jobs" / "jobs.log").write_text(
        "001 (12.000.000) 2026-11-21 09:50:01 Job executing on host: <10.0.0.7:1>\n...\n"
        "001 (12.001.000) 2026-11-21 09:50:01 Job executing on host: <10.0.0.7:1>\n...\n"
    )
    tool(tmp_path, "condor_rm", "echo 'Job 12.0 not found'; exit 1")
    tool(tmp_path, "condor_q", """echo '[{"ClusterId": 12, "ProcId": 1, "JobStatus": 3}]'""")
    htcondor.cancel(jobs)
    assert [told.state for told in htcondor.status(jobs)] == [JobState.GONE, JobState.RUNNING]


LOGGED = "000 (12.000.000) 2026-11-21 09:50:01 Job submitted from host: <10.0.0.7:1>\\n...\\n"
#: Takes one job, as its log tells; says so, or does not.
TAKES = 'd=$(dirname "$(eval echo \\"\\${$#}\\")"); printf "' + LOGGED + '" >> "$d/jobs.log"'


@pytest.mark.parametrize("ending", ["echo 'Welcome to the site'", "exit 1", ":"])
def test_jobs_that_were_submitted_though_it_seemed_to_fail(tmp_path: Path, ending: str) -> None:
    (tmp_path / "m.json").write_text("{}")
    (tmp_path / "jobs").mkdir()
    tool(tmp_path, "condor_submit", f"{TAKES}\n{ending}")
    htcondor = make_htcondor({"tools": str(tmp_path)})
    spec = make_spec(python="/p", connection_file=str(tmp_path / "m.json"))
    assert htcondor.submit(spec, 1, tmp_path / "jobs").jobs == ("12.0",)
    assert [told.state for told in htcondor.status(["12.0"])] == [JobState.PENDING]


def test_jobs_that_were_submitted_after_nobody_waited_any_more(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    tool(tmp_path, "condor_submit", "echo 'the schedd does not answer' >&2; exit 1")
    htcondor = make_htcondor({"tools": str(tmp_path)})
    spec = make_spec(python="/p", connection_file=str(tmp_path / "m.json"))
    with pytest.raises(DeployError, match="does not answer"):
        htcondor.submit(spec, 1, tmp_path / "one")
    (tmp_path / "one" / "jobs.log").write_text(LOGGED.replace("\\n", "\n"))
    tool(tmp_path, "condor_submit", "echo '13.0 - 13.0'")
    assert htcondor.submit(spec, 1, tmp_path / "two").jobs == ("12.0",)
    assert htcondor.submit(spec, 1, tmp_path / "three").jobs == ("13.0",)


def test_a_spooled_submission_that_seemed_to_fail_is_withdrawn(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    (tmp_path / "jobs").mkdir()
    tool(tmp_path, "condor_submit", "exit 1")
    tool(tmp_path, "condor_rm", 'echo "$@" > "${0%/*}/called"')
    spec = make_spec(python="/p", connection_file=str(tmp_path / "m.json"))
    with pytest.raises(DeployError, match="condor_submit failed"):
        make_htcondor({"tools": str(tmp_path), "spool": "yes"}).submit(spec, 1, tmp_path / "jobs")
    description = (tmp_path / "jobs" / "jobs.sub").read_text()
    name = f'GraphvineSubmission == "{tmp_path}/jobs/output"'
    assert (tmp_path / "called").read_text() == f"-constraint {name}\n"
    assert "+" + name.replace("==", "=") in description


def test_a_spooled_job_that_has_ended_leaves_the_queue_though_its_output_cannot_be_had(
    tmp_path: Path,
) -> None:
    (tmp_path / "m.json").write_text("{}")
    (tmp_path / "jobs").mkdir()
    tool(tmp_path, "condor_submit", "echo '12.0 - 12.0'")
    tool(tmp_path, "condor_q", """echo '[{"ClusterId": 12, "ProcId": 0, "JobStatus": 4, "ExitCode": 0}]'""")
    tool(tmp_path, "condor_transfer_data", "exit 1")
    tool(tmp_path, "condor_rm", 'echo "$@" > "${0%/*}/called"')
    htcondor = make_htcondor({"tools": str(tmp_path), "spool": "yes"})
    spec = make_spec(python="/p", connection_file=str(tmp_path / "m.json"))
    assert htcondor.submit(spec, 1, tmp_path / "jobs").jobs == ("12.0",)
    assert [told.state for told in htcondor.status(["12.0"])] == [JobState.FINISHED]
    assert (tmp_path / "called").read_text() == "12.0\n"

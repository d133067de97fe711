"""HTCondor's words: what is submitted, and what its tools print (as version 23.9 prints it)."""

from __future__ import annotations

import pytest

from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.errors import DeployError
from graphvine.deploy.htcondor_text import (
    Files,
    parse_ads,
    parse_analysis,
    parse_submitted,
    render_description,
    surroundings,
)
from graphvine.deploy.spec import make_spec

FILES = Files(
    script="/s/job.sh",
    connection_file="/s/connection.json",
    archive="/s/env.tar.gz",
    log="/s/jobs.log",
    output="/s/output",
    archive_mb=100.0,
)
BARE = Files(script="/s/job.sh", connection_file="/s/connection.json", log="/s/jobs.log", output="/s/output")


def settings(text: str) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)


def test_all_that_is_asked_of_the_worker_is_asked_of_htcondor() -> None:
    spec = make_spec(
        environment="e",
        cores=2.5,
        memory="8GB",
        disk="20GB",
        gpus=1,
        wall_time="2h",
        grace=90,
        account="group_u_CMS.u_zh",
        queue="longlunch",
        requirements='OpSysAndVer == "AlmaLinux9"',
    )
    told = settings(render_description(spec, 50, FILES))
    assert (told["request_cpus"], told["request_memory"], told["request_gpus"]) == ("3", "8192M", "1")
    assert told["request_disk"] == f"{20480 + 600}M"  # and room for what is brought, packed and unpacked
    assert told["periodic_remove"].endswith(" || (JobStatus == 2 && time() - JobCurrentStartDate > 7200)")
    assert (told["+MaxRuntime"], told["+MaxWallTimeMins"]) == ("7200", "120")
    assert told["job_max_vacate_time"] == "90"
    assert told["accounting_group"] == "group_u_CMS.u_zh"
    assert told["+JobFlavour"] == '"longlunch"'
    assert told["requirements"] == 'OpSysAndVer == "AlmaLinux9"'


def test_many_workers_are_one_submission() -> None:
    text = render_description(make_spec(environment="e"), 50, FILES)
    assert text.splitlines()[-1] == "queue 50"
    assert text.count("queue") == 1


def test_what_is_brought_and_what_comes_back() -> None:
    files = Files(**{**{name: getattr(FILES, name) for name in FILES.__struct_fields__}, "token": "/s/token"})
    told = settings(render_description(make_spec(environment="e", token="t"), 1, files))
    assert told["transfer_input_files"] == "/s/connection.json, /s/env.tar.gz, /s/token"
    assert told["encrypt_input_files"] == "connection.json, token"
    assert told["transfer_output_files"] == '""'
    assert told["error"] == "/s/output/$(ClusterId).$(ProcId).err"
    assert told["stream_error"] == "True"


def test_what_is_not_asked_for_is_left_to_the_pool() -> None:
    told = settings(render_description(make_spec(python="/p"), 1, BARE))
    assert "JobCurrentStartDate" not in told["periodic_remove"]
    for name in ("request_memory", "request_disk", "request_gpus", "requirements"):
        assert name not in told
    assert told["universe"] == "vanilla"


def test_the_users_own_lines_come_last() -> None:
    spec = make_spec(
        python="/p", wall_time="1h", directives=["periodic_remove = False", "+AcctGroup = 'cms'"]
    )
    assert settings(render_description(spec, 1, BARE))["periodic_remove"] == "False"


def test_credentials() -> None:
    files = Files(
        script="/s/job.sh", connection_file="/s/c", log="/s/jobs.log", output="/s/output", proxy="/s/x509"
    )
    told = settings(render_description(make_spec(python="/p", proxy="/tmp/x509up"), 1, files))
    assert (told["use_x509userproxy"], told["x509userproxy"]) == ("True", "/s/x509")


def test_images_are_the_pools_business_where_it_can_run_them() -> None:
    spec = make_spec(python="/p", container="docker://alma9")
    told = settings(render_description(spec, 1, BARE))
    assert (told["universe"], told["container_image"]) == ("container", "docker://alma9")
    assert "container_image" not in render_description(spec, 1, BARE, runs_container=False)


def test_a_path_that_htcondor_would_take_for_two_is_refused() -> None:
    files = Files(script="/s/a,b/job.sh", connection_file="/s/c", log="/s/l", output="/s/o")
    with pytest.raises(DeployError, match="comma"):
        render_description(make_spec(python="/p"), 1, files)


def test_a_path_with_a_space_is_refused_where_it_would_be_cut_there() -> None:
    files = Files(script="/my jobs/job.sh", connection_file="/s/c", log="/s/l", output="/s/o")
    render_description(make_spec(python="/p"), 1, files)
    with pytest.raises(DeployError, match="space"):
        render_description(make_spec(python="/p"), 1, files, spools=True)


def test_what_a_script_finds_where() -> None:
    around = surroundings(FILES)
    assert around.archive == '"$_CONDOR_SCRATCH_DIR"/env.tar.gz'
    assert around.connection_file == '"$_CONDOR_SCRATCH_DIR"/connection.json'


# -- what the tools print -----------------------------------------------------------------------------------


def test_which_jobs_were_submitted() -> None:
    assert parse_submitted("12.0 - 12.2\n") == ("12.0", "12.1", "12.2")
    assert parse_submitted("WARNING: something\n7.0 - 7.0\n") == ("7.0",)
    with pytest.raises(DeployError, match="did not say which jobs"):
        parse_submitted("Submitting job(s).\n")


ADS = """
[
{ "ClusterId": 1, "ProcId": 0, "JobStatus": 1, "HoldReason": null },
{ "ClusterId": 1, "ProcId": 1, "JobStatus": 2, "RemoteHost": "slot1_1@node7" },
{ "ClusterId": 1, "ProcId": 2, "JobStatus": 5, "HoldReason": "via condor_hold (by user alice)" },
{ "ClusterId": 1, "ProcId": 3, "JobStatus": 3, "RemoveReason": "via condor_rm",
  "LastRemoteHost": "slot2@node8" },
{ "ClusterId": 1, "ProcId": 4, "JobStatus": 4, "ExitCode": 71, "ExitBySignal": false },
{ "ClusterId": 1, "ProcId": 5, "JobStatus": 4, "ExitBySignal": true, "ExitSignal": 9 },
{ "ClusterId": 1, "ProcId": 6, "JobStatus": 5, "HoldReason": "Spooling input", "HoldReasonCode": 16 }
]
"""


def test_states_by_the_schedd() -> None:
    assert parse_ads("") == {}
    assert list(parse_ads(ADS).values()) == [
        JobStatus("1.0", JobState.PENDING),
        JobStatus("1.1", JobState.RUNNING, host="node7"),
        JobStatus("1.2", JobState.HELD, "via condor_hold (by user alice)"),
        JobStatus("1.3", JobState.REMOVED, "via condor_rm", host="node8"),
        JobStatus("1.4", JobState.FINISHED, exit_code=71),
        JobStatus("1.5", JobState.FINISHED, exit_code=-9),
        JobStatus("1.6", JobState.PENDING),
    ]
    with pytest.raises(DeployError, match="not understood"):
        parse_ads("Error: communication error")


ANALYSIS = """
         Slots
Step    Matched  Condition
-----  --------  ---------
[0]           4  TARGET.Arch == "X86_64"
[3]           0  TARGET.Memory >= RequestMemory

No successful match recorded.
Last failed match: Sat Nov 21 09:49:28 2026

Reason for last match failure: no match found

001.000:  Run analysis summary ignoring user priority.  Of 4 machines,
      4 are rejected by your job's requirements
      0 reject your job because of their own requirements
      0 match and are already running your jobs
      0 match but are serving other users
      0 are able to run your job
"""


def test_why_nothing_starts() -> None:
    assert parse_analysis(ANALYSIS) == (
        "no node meets TARGET.Memory >= RequestMemory; 4 nodes are rejected by your job's requirements; "
        "no match found"
    )
    assert parse_analysis("nothing of use") == ""

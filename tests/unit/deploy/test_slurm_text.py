"""What is said to Slurm, and what it says. The outputs are of Slurm 22.05, and forms of 20 to 24 beside
them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.deploy import slurm_text
from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import make_spec

SQUEUE = """\
17_0|RUNNING|n1|None
17_1|COMPLETING|n2|None
17_2|PENDING|n/a|Resources
17_3|PENDING||JobHeldUser
17_4|COMPLETED|n1|None
17_5|FAILED|n1|NonZeroExitCode
17_6|TIMEOUT|n1|TimeLimit
17_7|OUT_OF_MEMORY|n1|OutOfMemory
17_8|NODE_FAIL|n1|NodeDown
17_9|PREEMPTED|n1|None
17_10|CANCELLED|n1|None
17_11|PENDING||launch failed requeued held
17_12|REQUEUE_HOLD||JobHeldAdmin
17_13|SUSPENDED|n1|None
17_14|PENDING||QOSMaxJobsPerUserLimit
17_15|CONFIGURING|n1|None
17_16|PENDING||ReqNodeNotAvail, UnavailableNodes:n[3-4]
17_17|SOMETHING_NEW|n1|None
17_18|PENDING||job requeued in held state
18|RUNNING|n1|None
"""

SCONTROL = (
    "JobId=19 ArrayJobId=17 ArrayTaskId=5 JobName=graphvine UserId=alice(1000) Priority=1 Requeue=1 "
    "Restarts=0 BatchFlag=1 Reboot=0 ExitCode=3:0 RunTime=00:00:01 JobState=FAILED Reason=NonZeroExitCode "
    "Dependency=(null) NodeList=n1 BatchHost=n1 NumNodes=1 Command=/home/alice/my jobs/job.sh "
    "WorkDir=/home/alice/my jobs StdErr=/home/alice/my jobs/17_5.out StdIn=/dev/null "
    "StdOut=/home/alice/my jobs/17_5.out Power=\n"
    "JobId=20 ArrayJobId=17 ArrayTaskId=6 JobState=CANCELLED Reason=None ExitCode=0:15 BatchHost=n2 "
    "StdOut=/home/alice/17_6.out\n"
    "JobId=17 ArrayJobId=17 ArrayTaskId=7-9,12 ArrayTaskThrottle=2 JobState=PENDING Reason=Priority "
    "ExitCode=0:0\n"
    "JobId=30 JobState=COMPLETED Reason=None ExitCode=0:0 BatchHost=n3\n"
)

SACCT = """\
17_5|FAILED|3:0|n1
17_5.batch|FAILED|3:0|n1
17_6|CANCELLED by 1000|0:15|n2
17_7|TIMEOUT|0:0|n1
17_[8-10]|CANCELLED by 0|0:0|None assigned
17_11|OUT_OF_MEMORY|0:125|n1
17_12|NODE_FAIL|1:0|n2
17_13|RUNNING|0:0|n2
"""


def test_states_of_squeue() -> None:
    told = slurm_text.parse_squeue(SQUEUE)
    states = {int(job[3:]): status.state.value for job, status in told.items() if "_" in job}
    assert states == {
        0: "running",
        1: "running",
        2: "pending",
        3: "held",
        4: "finished",
        5: "finished",
        6: "removed",
        7: "removed",
        8: "removed",
        9: "removed",
        10: "removed",
        11: "held",
        12: "held",
        13: "running",
        14: "pending",
        15: "pending",
        16: "pending",
        17: "running",
        18: "held",
    }
    assert told["18"].state is JobState.RUNNING


def test_reasons_of_squeue() -> None:
    told = slurm_text.parse_squeue(SQUEUE)
    assert told["17_0"] == JobStatus("17_0", JobState.RUNNING, "", None, "n1")
    assert told["17_2"].reason == "Resources (no node is free)"
    assert told["17_2"].host == ""
    assert told["17_3"].reason == "JobHeldUser (held by its user)"
    assert told["17_6"].reason == "TIMEOUT: its wall time was over"
    assert "memory" in told["17_7"].reason
    assert told["17_11"].reason == "launch failed requeued held"
    assert told["17_13"].reason == "suspended"
    assert told["17_15"].reason == "CONFIGURING"
    assert told["17_16"].reason.startswith("ReqNodeNotAvail, UnavailableNodes:n[3-4] (a node that it needs")
    assert told["17_17"].reason == "something_new"


def test_squeue_says_what_cluster_it_asked_and_warns() -> None:
    text = "CLUSTER: far\n17_0|RUNNING|n1|None\nsqueue: warning: something | else\n"
    assert list(slurm_text.parse_squeue(text)) == ["17_0"]


def test_pending_elements_that_were_not_taken_apart() -> None:
    told = slurm_text.parse_squeue("17_[3-5,8%2]|PENDING|n/a|Priority\n")
    assert list(told) == ["17_3", "17_4", "17_5", "17_8"]
    assert told["17_8"].job == "17_8"


def test_exit_codes_of_scontrol() -> None:
    told = slurm_text.parse_scontrol(SCONTROL)
    assert told["17_5"] == JobStatus("17_5", JobState.FINISHED, "exit code 3", 3, "n1")
    assert told["17_6"] == JobStatus("17_6", JobState.REMOVED, "cancelled", -15, "n2")
    assert [job for job in told if told[job].state is JobState.PENDING] == ["17_7", "17_8", "17_9", "17_12"]
    assert told["30"] == JobStatus("30", JobState.FINISHED, "", 0, "n3")
    assert "19" not in told


def test_where_jobs_write_of_scontrol() -> None:
    paths = slurm_text.parse_output_paths(SCONTROL)
    assert paths == {"17_5": "/home/alice/my jobs/17_5.out", "17_6": "/home/alice/17_6.out"}


def test_ends_of_sacct() -> None:
    told = slurm_text.parse_sacct(SACCT)
    assert told["17_5"] == JobStatus("17_5", JobState.FINISHED, "exit code 3", 3, "n1")
    assert told["17_6"].reason == "cancelled by 1000"
    assert told["17_9"] == JobStatus("17_9", JobState.REMOVED, "cancelled by 0", 0, "")
    assert told["17_11"].state is told["17_12"].state is JobState.REMOVED
    assert told["17_13"].state is JobState.RUNNING
    assert not any("batch" in job for job in told)


def test_a_signal_is_told() -> None:
    told = slurm_text.status_of("1_0", "FAILED", exit_code="0:9")
    assert (told.exit_code, told.reason) == (-9, "killed by signal 9")


@pytest.mark.parametrize(
    ("printed", "array"),
    [
        ("17\n", "17"),
        ("17;far\n", "17"),
        ("sbatch: Your account has 3 hours left\nwelcome\n17\n", "17"),
    ],
)
def test_what_sbatch_printed(printed: str, array: str) -> None:
    assert slurm_text.parse_submitted(printed) == array


@pytest.mark.parametrize("printed", ["", "Submitted batch job\n", "17 18\n"])
def test_sbatch_named_no_job(printed: str) -> None:
    with pytest.raises(DeployError, match="sbatch named no job"):
        slurm_text.parse_submitted(printed)


@given(st.sets(st.tuples(st.integers(1, 3), st.integers(0, 30)), max_size=30))
def test_contracted_names_stand_for_the_same_jobs(pairs: set[tuple[int, int]]) -> None:
    jobs = [f"{array}_{index}" for array, index in sorted(pairs)]
    names = slurm_text.contract(jobs)
    assert len(names) <= 3
    assert [job for name in names for job in slurm_text.expand(name)] == jobs


def test_names_of_jobs() -> None:
    assert slurm_text.contract(["17_1", "17_2", "17_3", "17_9", "18", "17_1"]) == ["18", "17_[1-3,9]"]
    assert slurm_text.expand("17_[0-8:4]") == ["17_0", "17_4", "17_8"]
    assert slurm_text.expand("17_4.batch") == []
    assert slurm_text.arrays_of(["17_1", "18_0", "17_2"]) == ["17", "18"]
    for wrong in ("seventeen", "17.0", "17_1; rm", "", "-a"):
        with pytest.raises(DeployError, match="no name of a Slurm job"):
            slurm_text.array_of(wrong)


def test_all_that_is_asked_for() -> None:
    spec = make_spec(
        cores=3.5,
        memory="8GB",
        disk="20GB",
        gpus=2,
        wall_time="1d",
        grace=90,
        account="hep",
        queue="short",
        requirements="intel&skylake",
        directives=["--exclusive", "#SBATCH --qos=high"],
        name="analysis",
    )
    assert slurm_text.render_directives(spec, "/home/a b/%A_%a.out", "/home/a b") == [
        "#SBATCH --job-name=analysis",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=8192M",
        "#SBATCH --tmp=20480M",
        "#SBATCH --gres=gpu:2",
        "#SBATCH --time=1-00:00:00",
        "#SBATCH --signal=B:TERM@90",
        "#SBATCH --account=hep",
        "#SBATCH --partition=short",
        "#SBATCH --constraint='intel&skylake'",
        "#SBATCH --chdir='/home/a b'",
        "#SBATCH --output='/home/a b/%A_%a.out'",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --exclusive",
        "#SBATCH --qos=high",
    ]


def test_what_is_not_stated_is_not_asked_for() -> None:
    lines = slurm_text.render_directives(make_spec(), "/tmp/o", "/tmp")
    assert [line.split("--")[1].partition("=")[0] for line in lines] == [
        "job-name",
        "nodes",
        "ntasks",
        "cpus-per-task",
        "chdir",
        "output",
        "open-mode",
        "requeue",
    ]


@pytest.mark.parametrize(
    ("wall_s", "grace_s", "warning_s"),
    [(60, 25, None), (60, None, None), (114, 25, None), (115, 25, 25), (180, None, 60), (600, 540, None)],
)
def test_a_short_job_is_not_told_to_end_at_once(
    wall_s: int, grace_s: int | None, warning_s: int | None
) -> None:
    """Slurm may tell it a minute earlier than it is asked to."""
    lines = slurm_text.render_directives(make_spec(wall_time=wall_s, grace=grace_s), "/tmp/o", "/tmp")
    told = [line for line in lines if "signal" in line]
    assert told == ([] if warning_s is None else [f"#SBATCH --signal=B:TERM@{warning_s}"])


def test_what_sbatch_could_not_read() -> None:
    lines = slurm_text.render_directives(make_spec(account="it's"), "/tmp/o", "/tmp")
    assert '#SBATCH --account="it\'s"' in lines
    for account in ("a'b\"c", "a\\b"):
        with pytest.raises(DeployError, match="quotes of both kinds, or a backslash"):
            slurm_text.render_directives(make_spec(account=account), "/tmp/o", "/tmp")


def test_a_percent_sign_in_a_path_is_no_pattern() -> None:
    assert slurm_text.as_pattern("/home/100%") == "/home/100%%"


def test_configuration() -> None:
    text = "Configuration data as of 2026-11-21T09:14:20\nKillWait      = 30 sec\nMaxArraySize  = 1001\n"
    assert slurm_text.parse_config(text) == {"KillWait": "30 sec", "MaxArraySize": "1001"}

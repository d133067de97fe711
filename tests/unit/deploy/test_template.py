"""The templates that come with graphvine, against what these systems print; and how templates are read at
all."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path

import pytest

from graphvine.deploy import template as texts
from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import make_spec
from graphvine.deploy.template import Template, load_template

ALL = ["dirac", "lsf", "pbs", "sge", "torque"]
FULL = make_spec(
    cores=4,
    memory="8GB",
    disk="20GB",
    gpus=2,
    wall_time="90m",
    account="hep",
    queue="short",
    requirements="fast",
    directives=["-X one", "two"],
    name="analysis",
)


def rendered(template: Template, spec: object = None, count: int = 50, **more: str) -> str:
    values = {
        **texts.job_values(template, FULL if spec is None else spec),  # type: ignore[arg-type]
        **texts.submit_values(template.submit, count),
        "directory": "/d",
        "file": f"/d/{template.file}",
        "script": "/d/worker.sh",
        "script_name": "worker.sh",
        "inputs": '"/d/worker.sh", "/d/connection.json"',
        "user": "alice",
        "body": "echo one\necho ${two} {{three}}",
    }
    return texts.render(template.job, values | more, template.prefix)


def asked(template: Template, query: int, text: str, **parts: str) -> dict[str, JobStatus]:
    return texts.parse_status(template, template.status[query], text, parts)


def test_those_that_come_with_graphvine() -> None:
    assert texts.shipped() == ALL


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_stated_leaves_no_trace(name: str) -> None:
    text = rendered(load_template(name), make_spec())
    assert "{{" not in text.replace("{{three}}", "")
    for trace in ("None", "=mb", "= ;", '""', "mem", "gpu", " 0"):
        assert trace not in text.partition("echo")[0].replace("ParameterStart = 0", "")


@pytest.mark.parametrize("name", ["lsf", "pbs", "sge", "torque"])
def test_the_body_is_taken_as_it_is(name: str) -> None:
    assert rendered(load_template(name)).endswith("echo one\necho ${two} {{three}}\n")


# -- PBS ----------------------------------------------------------------------------------------------------

PBS_QSTAT = """\
Job Id: 1234[0].pbs01
    Job_Name = graphvine
    Job_Owner = alice@login1
    job_state = R
    queue = short
    exec_host = node17/0*4
    comment = Job run at Sat Nov 21 at 09:14 on (node17:ncpus=4:mem=8388608kb)
    Variable_List = PBS_O_HOME=/home/alice,PBS_O_LANG=en_US.UTF-8,
\tPBS_O_LOGNAME=alice,PBS_O_QUEUE=short

Job Id: 1234[1].pbs01
    Job_Name = graphvine
    job_state = Q
    comment = Not Running: Insufficient amount of resource: ncpus (R: 4 A: 0 T:
\t 48)

Job Id: 1234[2].pbs01
    job_state = F
    exec_host = node18/1*4
    comment = Job run at Sat Nov 21 at 09:14 on (node18:ncpus=4) and failed
    Exit_status = 1

Job Id: 1234[3].pbs01
    job_state = X
    Exit_status = 271

Job Id: 1234[4].pbs01
    job_state = H

Job Id: 1234[5].pbs01
    job_state = F
    Exit_status = -29

Job Id: 1234[].pbs01
    job_state = B

"""


def test_pbs_directives() -> None:
    lines = rendered(load_template("pbs")).splitlines()
    assert lines[:10] == [
        "#!/bin/sh",
        "#PBS -N analysis",
        "#PBS -l select=1:ncpus=4:mem=8192mb:ngpus=2:fast",
        "#PBS -l walltime=01:30:00",
        "#PBS -q short",
        "#PBS -A hep",
        "#PBS -j oe",
        "#PBS -o /d",
        "#PBS -X one",
        "#PBS two",
    ]


def test_pbs_jobs() -> None:
    template = load_template("pbs")
    assert texts.parse_submitted(template.submit, "1234[].pbs01\n", 3) == [
        f"1234[{i}].pbs01" for i in range(3)
    ]
    assert template.submit.one is not None
    assert texts.parse_submitted(template.submit.one, "note: be nice\n1235.pbs01\n", 1) == ["1235.pbs01"]
    assert texts.parts_of("1234[2].pbs01", template.naming) == {
        "number": "1234",
        "index": "2",
        "server": "pbs01",
    }


def test_pbs_states() -> None:
    told = asked(load_template("pbs"), 0, PBS_QSTAT)
    assert told["1234[0].pbs01"].host == "node17"
    assert told["1234[1].pbs01"] == JobStatus(
        "1234[1].pbs01",
        JobState.PENDING,
        "Not Running: Insufficient amount of resource: ncpus (R: 4 A: 0 T: 48)",
    )
    assert told["1234[2].pbs01"].state is JobState.FINISHED
    assert told["1234[2].pbs01"].exit_code == 1
    assert told["1234[3].pbs01"].exit_code == -15
    assert told["1234[4].pbs01"].state is JobState.HELD
    assert told["1234[5].pbs01"].exit_code is None
    assert "1234[].pbs01" not in told


TORQUE_QSTAT = """\
Job Id: 77[1].torque.example.org
    Job_Name = graphvine-1
    job_state = C
    exec_host = c01/0-3
    exit_status = 0

Job Id: 77[2].torque.example.org
    job_state = E
    exec_host = c02/0+c02/1
"""


def test_torque() -> None:
    template = load_template("torque")
    assert (
        texts.parse_submitted(template.submit, "77[].torque.example.org\n", 2)[1]
        == "77[1].torque.example.org"
    )
    told = asked(template, 0, TORQUE_QSTAT)
    assert told["77[1].torque.example.org"] == JobStatus(
        "77[1].torque.example.org", JobState.FINISHED, "", 0, "c01"
    )
    assert told["77[2].torque.example.org"].state is JobState.RUNNING
    assert "#PBS -l nodes=1:ppn=4:gpus=2:fast" in rendered(template)


# -- LSF ----------------------------------------------------------------------------------------------------

LSF_BJOBS = """\
4321|1|RUN|-|4*hostA|-|-
4321|2|PEND|-|-|New job is waiting for scheduling;|-
4321|3|EXIT|140|4*hostB:4*hostC|-|TERM_RUNLIMIT: job killed after reaching LSF run time limit
4321|4|DONE|-|hostA|-|-
4321|5|PSUSP|-|-|The job was suspended by the user while pending;|-
4321|6|UNKWN|-|hostD.example.org|-|-
4321|7|ZOMBI|-|hostA|-|-
"""


def test_lsf_directives() -> None:
    lines = rendered(load_template("lsf")).splitlines()
    assert lines[:11] == [
        "#!/bin/sh",
        "#BSUB -n 4",
        "#BSUB -R span[hosts=1]",
        "#BSUB -R rusage[mem=8192MB]",
        "#BSUB -M 8192MB",
        "#BSUB -R select[fast]",
        "#BSUB -gpu num=2",
        "#BSUB -W 90",
        "#BSUB -q short",
        "#BSUB -P hep",
        "#BSUB -o /d/system.%J.%I.out",
    ]


def test_lsf_jobs() -> None:
    submit = load_template("lsf").submit
    printed = "Job <4321> is submitted to queue <normal>.\n"
    assert texts.parse_submitted(submit, printed, 2) == ["4321[1]", "4321[2]"]
    assert submit.stdin


def test_lsf_states() -> None:
    told = asked(load_template("lsf"), 0, LSF_BJOBS)
    assert told["4321[1]"] == JobStatus("4321[1]", JobState.RUNNING, "", None, "hostA")
    assert told["4321[2]"] == JobStatus("4321[2]", JobState.PENDING, "New job is waiting for scheduling;")
    assert told["4321[3]"] == JobStatus(
        "4321[3]",
        JobState.FINISHED,
        "TERM_RUNLIMIT: job killed after reaching LSF run time limit",
        140,
        "hostB",
    )
    assert told["4321[4]"].state is JobState.FINISHED
    assert told["4321[5]"].state is JobState.HELD
    assert told["4321[6]"] == JobStatus("4321[6]", JobState.RUNNING, "", None, "hostD.example.org")
    assert told["4321[7]"].state is JobState.REMOVED


# -- Grid Engine --------------------------------------------------------------------------------------------

SGE_QSTAT = """\
job-ID     prior   name       user         state submit/start at     queue                          slots ja-task-ID
--------------------------------------------------------------------------------------------------------------------
       987 0.55500 graphvine  alice        r     11/21/2026 09:14:20 all.q@node01.example.org           4 1
       987 0.55500 graphvine  alice        Eqw   11/21/2026 09:14:20                                    4 2
       987 0.55500 graphvine  alice        qw    11/21/2026 09:14:20                                    4 3
       987 0.00000 graphvine  alice        hqw   11/21/2026 09:14:20                                    4 4
       987 0.55500 graphvine  alice        dr    11/21/2026 09:14:20 long.q@node02                      4 5
"""  # noqa: E501 -- as wide as it is

SGE_QSTAT_J = """\
==============================================================
job_number:                 987
owner:                      alice
job-array tasks:            1-5:1
error reason    2:          11/21/2026 09:14:25 [1000:4242]: can't open output file "/d/x": Permission denied
scheduling info:            queue instance "all.q@node03" dropped because it is full
"""

SGE_QACCT = """\
==============================================================
qname        all.q
hostname     node01.example.org
jobnumber    987
taskid       6
failed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit
exit_status  137
==============================================================
qname        all.q
hostname     node02.example.org
jobnumber    987
taskid       7
failed       0
exit_status  0
"""


def test_sge_directives() -> None:
    template = load_template("sge")
    lines = rendered(template).splitlines()
    assert lines[:10] == [
        "#!/bin/sh",
        "#$ -N analysis",
        "#$ -S /bin/sh",
        "#$ -pe smp 4",
        "#$ -l h_vmem=2048M",
        "#$ -l gpu=2",
        "#$ -l h_rt=01:30:00",
        "#$ -l fast",
        "#$ -q short",
        "#$ -P hep",
    ]


def test_sge_jobs() -> None:
    template = load_template("sge")
    assert texts.parse_submitted(template.submit, "987.1-2:1\n", 2) == ["987.1", "987.2"]


def test_sge_states() -> None:
    told = asked(load_template("sge"), 0, SGE_QSTAT)
    assert told["987.1"] == JobStatus("987.1", JobState.RUNNING, "", None, "node01")
    assert [told[f"987.{i}"].state.value for i in (2, 3, 4, 5)] == ["held", "pending", "held", "running"]
    assert told["987.5"].host == "node02"
    assert told["987.3"].host == ""


def test_sge_says_why() -> None:
    template = load_template("sge")
    told = asked(template, 1, SGE_QSTAT_J, number="987", index="9")
    assert list(told) == ["987.2"]
    assert told["987.2"].reason.endswith("Permission denied")
    assert told["987.2"].state is JobState.HELD
    ends = asked(template, 2, SGE_QACCT)
    assert ends["987.6"].reason == "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit"
    assert ends["987.6"].exit_code == 137
    assert ends["987.7"] == JobStatus("987.7", JobState.FINISHED, "", 0, "node02")


def test_one_question_for_each_array() -> None:
    template = load_template("sge")
    commands = texts.render_commands(
        template.status[1].command, ["987.1", "987.2", "988.1"], template.naming, {"user": "alice"}
    )
    assert [command for command, _ in commands] == [["qstat", "-j", "987"], ["qstat", "-j", "988"]]


# -- DIRAC --------------------------------------------------------------------------------------------------

DIRAC_OLD = """\
JobID=55 Status=Waiting; MinorStatus=Pilot Agent Submission; Site=ANY;
JobID=56 Status=Running; MinorStatus=Application; Site=LCG.CERN.cern;
"""
DIRAC_NEW = """\
JobID=57 ApplicationStatus=Unknown; MinorStatus=Job stalled: pilot not running; Status=Failed; Site=ANY;
JobID=58 ApplicationStatus=Executing; MinorStatus=Marked for termination; Status=Killed; Site=ANY;
"""


def test_dirac_job() -> None:
    text = rendered(load_template("dirac"))
    for line in (
        'Executable = "worker.sh";',
        'InputSandbox = { "/d/worker.sh", "/d/connection.json" };',
        "NumberOfProcessors = 4;",
        "CPUTime = 21600;",
        "Parameters = 50;",
        'Tags = {"fast"};',
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("printed", ["JobID = [55, 56, 57]\n", "JobID = [55,56, 57] \n"])
def test_dirac_jobs(printed: str) -> None:
    assert texts.parse_submitted(load_template("dirac").submit, printed, 3) == ["55", "56", "57"]
    assert texts.parse_submitted(load_template("dirac").submit, "JobID = 55\n", 1) == ["55"]


def test_dirac_states() -> None:
    told = asked(load_template("dirac"), 0, DIRAC_OLD + DIRAC_NEW)
    assert told["55"] == JobStatus("55", JobState.PENDING, "Pilot Agent Submission")
    assert told["56"] == JobStatus("56", JobState.RUNNING, "Application", None, "LCG.CERN.cern")
    assert told["57"].state is JobState.FINISHED
    assert told["57"].reason == "Job stalled: pilot not running"
    assert told["58"].state is JobState.REMOVED


# -- a user's own -------------------------------------------------------------------------------------------

OWN = """
name = "own"
naming = '(?P<number>\\d+)'
job_id = "$OWN_ID"
job = "{{body}}"

[submit]
command = ["own-submit", "{{file}}"]
id = '(?P<jobs>\\d+)'

[cancel]
command = ["own-cancel", "{{job}}"]

[[status]]
command = ["own-list", "{{jobs}}"]
job = "{{id}}"
fields = { id = '(\\d+) ', state = ' (\\w+)' }

[states]
waits = "pending"
"""


def test_a_user_s_own() -> None:
    template = texts.parse_template(OWN.encode(), "own.toml")
    told = asked(template, 0, "1 waits\n2 dances\nnonsense\n")
    assert told["1"].state is JobState.PENDING
    assert told["2"].state is JobState.RUNNING, "a word that nobody knows"
    assert len(told) == 2


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("waits = ", "waits = 3 #", "Expected `str`"),
        ('"pending"', '"waiting"', "'waiting' is none of finished"),
        ("(?P<jobs>\\d+)", "\\d+", "say how jobs are named"),
        ("(\\d+) '", "(\\d+ '", "is no pattern"),
        ("(\\d+) '", "\\d+ '", "the pattern of id has no group"),
        ('name = "own"', "", "missing required field `name`"),
        ("job_id", "jobid", "unknown field"),
        ("[submit]", "[submit", "is no template"),
    ],
)
def test_what_is_wrong_with_it_is_said(old: str, new: str, complaint: str) -> None:
    assert old in OWN
    with pytest.raises(DeployError, match=r"own\.toml is no template") as caught:
        texts.parse_template(OWN.replace(old, new).encode(), "own.toml")
    assert complaint in str(caught.value)


def test_no_such_template() -> None:
    with pytest.raises(DeployError, match="no template 'slrum'"):
        load_template("slrum")
    with pytest.raises(DeployError, match=r"cannot read the template /nowhere/own\.toml: No such file"):
        load_template("/nowhere/own.toml")


def test_values_in_texts() -> None:
    values = {"a": "1", "none": "", "text": "{{a}}"}
    text = "\n{{a}}{{x|none|y}}{{x|a|y}}\nleft out {{none}}\n${a} { {{text}} } {{{a}}}\n"
    assert texts.render(text, values) == "1x1y\n${a} { {{a}} } {1}\n"
    assert texts.render_command(["x", "{{none}}", "{{jobs}}", "-{{a}}"], values, ["j", "k"]) == [
        "x",
        "j",
        "k",
        "-1",
    ]
    with pytest.raises(DeployError, match=r"names \{\{b\}\}, which is none of a, none, text"):
        texts.render("{{b}}", values)


def test_many_jobs_are_asked_for_in_portions() -> None:
    jobs = [str(i) for i in range(texts.JOBS_AT_ONCE + 1)]
    commands = texts.render_commands(["ask", "{{jobs}}"], jobs, r"\d+", {})
    assert [len(command) for command, _ in commands] == [texts.JOBS_AT_ONCE + 1, 2]


def test_the_one_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "deploy.md").read_text()
    block = page.partition("A complete one:\n")[2].partition("\n- A line")[0]
    template = texts.parse_template(textwrap.dedent(block).encode(), "ours.toml")
    assert texts.parse_submitted(template.submit, "accepted as 12", 2) == ["12.0", "12.1"]
    told = asked(template, 0, "12.0 stopped by hand\n12.1 done - exit=3\n")
    assert told["12.0"] == JobStatus("12.0", JobState.HELD, "by hand")
    assert told["12.1"].exit_code == 3
    assert rendered(template, make_spec(cores=2)).startswith("#!/bin/sh\n#Q cores=2\necho one")


@pytest.mark.parametrize("system", ["pbs", "torque", "sge", "lsf"])
def test_words_with_blanks_stay_one_word(system: str) -> None:
    text = rendered(load_template(system), account="my group", directory="/home/a b's", requirements="x y")
    options = [
        line.partition(" ")[2] for line in text.splitlines() if line.startswith(("#PBS", "#$", "#BSUB"))
    ]
    words = [word for option in options for word in shlex.split(option)]
    assert "my group" in words
    assert any(word.startswith("/home/a b's") for word in words)
    assert ("select[x y]" in words) == (system == "lsf")
    assert ("x" in words) == (system == "sge")

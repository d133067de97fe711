"""The job's script on a bare node: each shell runs it, with an environment that tells what it sees."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from graphvine.deploy.script import EXIT_CODES, Surroundings, render_script
from graphvine.deploy.spec import WorkerSpec, make_spec

#: In place of an interpreter: tells how it was called, for `python -m graphvine.worker`.
TELLER = """#!/bin/sh
[ "$1" != -S ] || exit 0
echo "arguments: $*"
echo "here: $(pwd)"
echo "pid: $$"
env
[ -n "$HANGS" ] || exit 0
sleep 100 &
trap 'kill $!; echo told; exit 3' TERM
echo hanging > "$HANGS"
wait
"""

#: Words of bash that other shells don't have.
ACTIVATION = "words=(a 'b c'); export ROOTSYS=$CONDA_PREFIX/root W=${words[1]} U=theirs X=y"

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


class Node:
    """A bare node: a scratch directory, and what was brought there."""

    def __init__(self, root: Path, shell: str) -> None:
        self.root = root
        path = str(shutil.which(shell))
        self.shell = [path, "sh"] if shell == "busybox" else [path]
        self.scratch = root / "scratch dir"
        self.scratch.mkdir()
        self.variables = {"SCRATCH": str(self.scratch)}
        self.edit: Callable[[str], str] = str
        """For a signal at a certain point of the script."""
        (self.scratch / "manager.json").write_text("{}")
        self.around = Surroundings(
            connection_file='"$SCRATCH/manager.json"', scratch='"$SCRATCH"', archive='"$SCRATCH/env.tar.gz"'
        )

    def tell(self, **surroundings: str | bool) -> None:
        """What the batch system tells its jobs, beside (or in place of) what every one is told here."""
        self.around = msgspec.structs.replace(self.around, **surroundings)

    def bring(self, files: dict[str, str] | None = None, top: str = "") -> None:
        with tarfile.open(self.scratch / "env.tar.gz", "w:gz") as tar:
            for name, text in {"bin/python": TELLER, **(files or {})}.items():
                info = tarfile.TarInfo(top + name)
                info.mode, info.size = 0o755, len(text)
                tar.addfile(info, io.BytesIO(text.encode()))

    def start(self, spec: WorkerSpec) -> subprocess.Popen[str]:
        script = self.root / "job.sh"
        script.write_text(self.edit(render_script(spec, self.around)))
        return subprocess.Popen(
            [*self.shell, str(script)],
            env=self.variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, spec: WorkerSpec) -> tuple[int, str]:
        with self.start(spec) as process:
            said = process.communicate()[1]
        return process.returncode, said


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    return Node(tmp_path, request.param)


BRINGS = WorkerSpec(archive="env.tar.gz", cores=2.0)


def test_without_path_and_home_the_worker_starts_from_what_was_brought(node: Node) -> None:
    node.bring()
    code, said = node.run(BRINGS)
    assert code == 0
    prefix = node.scratch / "graphvine-environment"
    assert (
        f"arguments: -m graphvine.worker --connection-file {node.scratch}/manager.json "
        f"--workdir {node.scratch} --cores 2\n" in said
    )
    assert f"here: {node.scratch}\n" in said
    path = next(line for line in said.splitlines() if line.startswith("PATH="))
    assert path.startswith(f"PATH={prefix}/bin:")  # the rest is the shell's own default, or ours
    assert "/usr/bin" in path
    for line in (
        f"HOME={node.scratch}",
        f"TMPDIR={node.scratch}",
        f"VIRTUAL_ENV={prefix}",
        "PYTHONNOUSERSITE=1",
    ):
        assert f"\n{line}\n" in said
    assert (node.scratch / "env.tar.gz").exists()


def test_the_worker_takes_the_shells_place(node: Node) -> None:
    node.bring()
    with node.start(BRINGS) as process:
        said = process.communicate()[1]
    assert f"pid: {process.pid}\n" in said


def test_an_environment_in_a_directory_of_its_own(node: Node) -> None:
    node.bring(top="analysis/")
    assert f"\nVIRTUAL_ENV={node.scratch}/graphvine-environment/analysis\n" in node.run(BRINGS)[1]


def test_the_jobs_own_copy_of_the_archive_is_removed(node: Node) -> None:
    node.bring()
    node.tell(archive_is_a_copy=True)
    assert node.run(BRINGS)[0] == 0
    assert not (node.scratch / "env.tar.gz").exists()


def test_variables_that_lead_a_python_astray_are_gone(node: Node) -> None:
    node.bring()
    node.variables |= {
        "PYTHONPATH": "/nowhere",
        "PYTHONHOME": "/nowhere",
        "HOME": "/home/of/mine",
        "PATH": "/bin",
    }
    said = node.run(BRINGS)[1]
    assert "PYTHONPATH=" not in said
    assert "PYTHONHOME=" not in said
    assert "\nHOME=/home/of/mine\n" in said
    assert "graphvine-environment/bin:/bin\n" in said


def test_a_conda_environment_is_mended_and_activated_and_the_users_lines_count_more(node: Node) -> None:
    if shutil.which("bash") is None:
        pytest.skip("activation scripts need bash")
    python = TELLER.replace(
        "echo", 'case "$1" in *conda-unpack) echo "unpacked by $1"; exit 0;; esac; echo', 1
    )
    node.bring(
        {
            "bin/python": python,
            "bin/conda-unpack": "x",
            "conda-meta/history": "",
            "etc/conda/activate.d/root.sh": ACTIVATION,
        }
    )
    spec = make_spec(environment="env", variables={"U": "mine"}, prologue=["X=z$W"])
    code, said = node.run(spec)
    prefix = node.scratch / "graphvine-environment"
    assert code == 0
    assert f"unpacked by {prefix}/bin/conda-unpack\n" in said
    for line in (f"CONDA_PREFIX={prefix}", f"ROOTSYS={prefix}/root", "W=b c", "U=mine", "X=zb c"):
        assert f"\n{line}\n" in said


def test_what_the_job_asked_for_is_what_the_worker_offers(node: Node) -> None:
    node.bring()
    spec = make_spec(
        environment="e", cores=4, memory="8GB", disk="20GB", wall_time="2h", idle=60, features=["big"]
    )
    node.tell(job='"12.$((1 + 2))"', memory_mb="77")
    words = next(line for line in node.run(spec)[1].splitlines() if line.startswith("arguments")).split()
    told = dict(zip(words[3::2], words[4::2], strict=True))
    assert told["--job"] == "12.3"
    assert (told["--cores"], told["--memory"], told["--disk"]) == ("4", "8192", "20480")
    assert (told["--timeout"], told["--feature"]) == ("60", "big")
    assert 7200 - 300 < int(told["--wall-time"]) <= 7200


def test_what_the_job_left_open_is_what_the_system_granted(node: Node) -> None:
    node.bring()
    node.tell(memory_mb="77")
    assert "--memory 77" in node.run(BRINGS)[1]


@pytest.mark.parametrize(
    ("granted", "grace"), [("600", "595"), ("10 * 60", "595"), ("10", "5"), ("1", "1"), ("", None)]
)
def test_a_worker_knows_how_long_the_system_waits(node: Node, granted: str, grace: str | None) -> None:
    node.bring()
    node.tell(grace_s=f"$(echo '{granted}')")
    said = node.run(BRINGS)[1]
    assert f"--grace {grace} " in said if grace else "--grace" not in said


def test_who_says_how_long_is_believed(node: Node) -> None:
    node.bring()
    node.tell(grace_s="$(echo 600)")
    said = node.run(make_spec(environment="e", grace=77))[1]
    assert "--grace 77\n" in said
    assert "600" not in said


def test_credentials_are_files_that_variables_name(node: Node) -> None:
    node.bring()
    node.tell(proxy='"$SCRATCH/x509"', token='"$SCRATCH/token"')
    said = node.run(make_spec(environment="e", proxy="/mine/x509", token="/mine/token"))[1]
    assert f"\nX509_USER_PROXY={node.scratch}/x509\n" in said
    assert f"\nBEARER_TOKEN_FILE={node.scratch}/token\n" in said


def test_a_job_without_gpus_sees_none(node: Node) -> None:
    node.bring()
    node.variables |= {"_CONDOR_AssignedGPUs": "10000", "CUDA_VISIBLE_DEVICES": "10000"}
    assert "\nCUDA_VISIBLE_DEVICES=\n" in node.run(BRINGS)[1]


@pytest.mark.parametrize(
    ("gpus", "said", "seen"),
    [(0, {}, ""), (0, {"CUDA_VISIBLE_DEVICES": "2"}, "2"), (1, {"CUDA_VISIBLE_DEVICES": "GPU-1"}, "GPU-1")],
)
def test_a_job_sees_the_gpus_that_it_was_given(
    node: Node, gpus: int, said: dict[str, str], seen: str
) -> None:
    node.bring()
    node.variables |= said
    assert f"\nCUDA_VISIBLE_DEVICES={seen}\n" in node.run(make_spec(environment="e", gpus=gpus))[1]


def test_gpus_that_the_system_names_otherwise_are_left_alone(node: Node) -> None:
    node.bring()
    node.variables |= {"ROCR_VISIBLE_DEVICES": "0"}
    assert "\nCUDA_VISIBLE_DEVICES=" not in node.run(BRINGS)[1]


def test_tokens_that_htcondor_keeps_fresh_are_found(node: Node, tmp_path: Path) -> None:
    node.bring()
    (tmp_path / "cms.use").write_text("token")
    node.variables["_CONDOR_CREDS"] = str(tmp_path)
    assert f"\nBEARER_TOKEN_FILE={tmp_path}/cms.use\n" in node.run(BRINGS)[1]


def test_without_a_scratch_directory_one_is_made_and_removed(node: Node, tmp_path: Path) -> None:
    node.bring()
    node.variables["TMPDIR"] = str(tmp_path / "tmp")
    os.mkdir(tmp_path / "tmp")
    node.tell(scratch="")
    code, said = node.run(BRINGS)
    assert code == 0
    assert f"here: {tmp_path}/tmp/graphvine-job-" in said
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize(
    "variables", [{"TMPDIR": "/proc/absent"}, {"TMPDIR": "/proc", "PATH": "/nonexistent"}]
)
def test_what_was_right_where_it_was_submitted_is_not_trusted(node: Node, variables: dict[str, str]) -> None:
    node.bring()
    node.variables |= variables
    node.tell(scratch="")
    code, said = node.run(BRINGS)
    here = next(line for line in said.splitlines() if line.startswith("here: "))
    assert (code, here.startswith("here: /tmp/graphvine-job-")) == (0, True)
    assert not os.path.exists(here.removeprefix("here: "))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_then_signals_are_handed_on_and_the_exit_code_is_the_workers(
    node: Node, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGUSR2 is Grid Engine's warning, and, as a signal of its own, nothing that workers know."""
    node.bring()
    os.mkdir(tmp_path / "tmp")
    os.mkfifo(tmp_path / "hangs")
    node.variables |= {"TMPDIR": str(tmp_path / "tmp"), "HANGS": str(tmp_path / "hangs")}
    node.tell(scratch="")
    with node.start(BRINGS) as process:
        (tmp_path / "hangs").read_text()
        job = psutil.Process(process.pid)
        for one in [job] if number == signal.SIGTERM else [*job.children(), job]:
            one.send_signal(number)
        said = process.communicate()[1]
    assert said.endswith("told\n")
    assert process.returncode == 3
    assert os.listdir(tmp_path / "tmp") == []


def test_no_signal_is_lost_while_the_worker_is_being_started(node: Node, tmp_path: Path) -> None:
    node.bring()
    os.mkdir(tmp_path / "tmp")
    os.mkfifo(tmp_path / "hangs")
    node.variables |= {"TMPDIR": str(tmp_path / "tmp"), "HANGS": str(tmp_path / "hangs")}
    node.tell(scratch="")
    forked = "    gv_child=$!\n"
    node.edit = lambda script: script.replace(forked, "    kill -TERM $$\n" + forked)
    for _ in range(5):
        with node.start(BRINGS) as process:
            try:
                process.communicate(timeout=60)
            finally:
                for one in psutil.Process().children(recursive=True):
                    one.kill()
        assert process.returncode == 143
    assert os.listdir(tmp_path / "tmp") == []


def test_what_a_killed_job_left_is_removed_by_the_next_one(node: Node, tmp_path: Path) -> None:
    node.bring()
    for name in ("tmp", "tmp/graphvine-job-elsewhere.1.x", "tmp/others"):
        os.mkdir(tmp_path / name)
    os.mkfifo(tmp_path / "hangs")
    node.variables |= {"TMPDIR": str(tmp_path / "tmp"), "HANGS": str(tmp_path / "hangs")}
    node.tell(scratch="")
    with node.start(BRINGS) as lives:
        (tmp_path / "hangs").read_text()
        with node.start(BRINGS) as killed:
            (tmp_path / "hangs").read_text()
            worker = psutil.Process(killed.pid).children(recursive=True)
            killed.kill()
            killed.wait()
            for process in worker:
                process.kill()
        assert len(os.listdir(tmp_path / "tmp")) == 4
        del node.variables["HANGS"]
        assert node.run(BRINGS)[0] == 0
        left = sorted(os.listdir(tmp_path / "tmp"))
        assert left == [
            "graphvine-job-elsewhere.1.x",
            next(name for name in left if f".{lives.pid}." in name),
            "others",
        ]
        lives.terminate()
        lives.communicate()


def test_a_python_that_the_node_has_may_come_from_the_users_own_lines(node: Node, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mypython").write_text(TELLER)
    (tmp_path / "site" / "mypython").chmod(0o755)
    node.variables["PYTHONPATH"] = "/from/the/site"
    spec = make_spec(python="mypython", prologue=["set -eu", f"PATH=$PATH:{tmp_path}/site"])
    code, said = node.run(spec)
    assert code == 0
    assert "\nPYTHONPATH=/from/the/site\n" in said


# -- what is missing ----------------------------------------------------------------------------------------


def test_an_environment_that_did_not_arrive(node: Node) -> None:
    code, complained = node.run(BRINGS)
    assert code == 71
    assert complained.startswith(f"graphvine: job on {os.uname().nodename}: the environment did not arrive: ")
    assert code in EXIT_CODES


def test_a_damaged_environment(node: Node) -> None:
    node.bring({"lib/large": "x" * 100_000})
    archive = node.scratch / "env.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    code, complained = node.run(BRINGS)
    assert code == 71
    assert "can't be unpacked in" in complained


def test_a_connection_file_that_did_not_arrive(node: Node) -> None:
    node.bring()
    (node.scratch / "manager.json").unlink()
    code, complained = node.run(BRINGS)
    assert code == 74
    assert "the connection file did not arrive" in complained


def test_no_scratch_directory(node: Node) -> None:
    node.variables["SCRATCH"] = "/proc/absent"
    code, complained = node.run(BRINGS)
    assert (code, "no scratch directory: /proc/absent" in complained) == (72, True)


@pytest.mark.parametrize(("clock", "left"), [(-100, ""), (10_000, "--wall-time 60 ")])
def test_wall_time_and_a_clock_that_is_set_meanwhile(node: Node, clock: int, left: str) -> None:
    node.bring()
    brings = make_spec(environment="e", wall_time=60, prologue=f"gv_began=$((gv_began + {clock}))")
    code, said = node.run(brings)
    assert code == (0 if left else 75)
    assert (left or "s went by before the worker could start, of 60 s") in said


def test_an_interpreter_that_may_not_be_run(node: Node) -> None:
    (node.root / "interpreter").write_text("")
    python = node.root / "python"
    python.write_text(f"#!{node.root}/interpreter\n")
    python.chmod(0o755)
    code, said = node.run(make_spec(python=str(python)))
    assert (code, f"{python} may not be run from there (is it on a file system mounted" in said) == (73, True)


def test_no_tar(node: Node) -> None:
    node.bring()
    bare = node.root / "bin"
    bare.mkdir()
    for tool in ("date", "uname", "sh"):
        (bare / tool).symlink_to(shutil.which(tool) or tool)
    node.variables["PATH"] = str(bare)
    code, complained = node.run(BRINGS)
    assert (code, "there is no tar on PATH" in complained) == (70, True)


@pytest.mark.parametrize("python", ["/no/such/python", "no-such-python"])
def test_no_interpreter(node: Node, python: str) -> None:
    code, complained = node.run(make_spec(python=python))
    assert (code, f"there is no interpreter {python}" in complained) == (73, True)


def test_an_interpreter_that_does_not_start(node: Node) -> None:
    node.bring({"bin/python": "#!/bin/sh\necho 'version GLIBC_9.9 not found' >&2; exit 1\n"})
    code, complained = node.run(BRINGS)
    assert code == 73
    assert "GLIBC_9.9" in complained
    assert "does not start here" in complained


# -- containers ---------------------------------------------------------------------------------------------

#: In place of apptainer: tells what it is asked for, and runs the command where it is.
RUNNER = """#!/bin/sh
echo "container: $*"
while [ "$1" != /bin/sh ]; do shift; done
exec "$@"
"""


def test_the_whole_script_runs_in_the_image(node: Node) -> None:
    node.bring()
    tools = node.root / "tools"
    tools.mkdir()
    (tools / "apptainer").write_text(RUNNER)
    (tools / "apptainer").chmod(0o755)
    node.variables["PATH"] = f"{tools}:/usr/bin:/bin"
    (node.root / "shared").mkdir()
    (node.scratch / "manager.json").rename(node.root / "shared" / "manager.json")
    node.variables["SHARED"] = str(node.root / "shared")
    node.tell(connection_file='"$SHARED/manager.json"')
    code, said = node.run(make_spec(environment="e", container="/images/my image.sif", gpus=1))
    assert code == 0
    head = said.splitlines()[0]
    scratch = node.scratch
    assert head.startswith(f"container: exec --nv --bind {scratch} --pwd {scratch} --bind {node.root}/shared")
    assert head.endswith(f" /images/my image.sif /bin/sh {scratch}/graphvine-job.sh inside {scratch}")
    assert f"--connection-file {node.root}/shared/manager.json" in said


def test_no_container_runtime(node: Node) -> None:
    node.bring()
    bare = node.root / "bin"
    bare.mkdir()
    for tool in ("date", "uname", "sh"):
        (bare / tool).symlink_to(shutil.which(tool) or tool)
    node.variables["PATH"] = str(bare)
    code, complained = node.run(make_spec(environment="e", container="image.sif"))
    assert (code, "neither apptainer nor singularity" in complained) == (70, True)

"""Jobs of one user that share a copy of the environment they bring: the job's script, in each shell, with the
locks and the rules of the node's cache."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

import graphvine
from graphvine.deploy.script import Surroundings, render_script
from graphvine.deploy.spec import make_spec
from graphvine.envs import cache as caches
from graphvine.envs import writer
from graphvine.envs.cache import BEGUN
from graphvine.envs.front import end_of
from graphvine.envs.items import data_item
from graphvine.envs.metadata import MEMBER, Metadata, encode

NAME = "env-0123456789abcdef"
#: In place of an environment's interpreter: a real one for all but the worker, in whose place it tells where
#: it is, and hangs if it is to.
PYTHON = f"""#!/bin/sh
export PYTHONPATH={Path(graphvine.__file__).parents[1]}
case "$1" in
-I) shift; exec {sys.executable} "$@" ;;
-S) exit 0 ;;
esac
echo "prefix: $VIRTUAL_ENV"
echo "cache: $GRAPHVINE_CACHE_DIR"
[ -z "$HANGS" ] || echo hanging >"$HANGS"
[ -z "$ENDS" ] || read -r word <"$ENDS"
"""
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock (util-linux)")


class Node:
    """Where jobs run, one scratch directory each, that bring the same archive."""

    def __init__(self, root: Path, shell: str) -> None:
        self.root = root
        self.cache = root / "cache"
        self.archive = root / "env.tar.gz"
        self._shell = shell
        self.variables = {"PATH": os.environ["PATH"], "GRAPHVINE_CACHE_DIR": str(self.cache)}
        (root / "manager.json").write_text("{}")
        self.pack({"bin/python": PYTHON})

    def pack(self, files: dict[str, str]) -> None:
        with tarfile.open(self.archive, "w:gz") as tar:
            for name, text in files.items():
                info = tarfile.TarInfo(name)
                info.mode, info.size = 0o755, len(text)
                tar.addfile(info, io.BytesIO(text.encode()))

    def script(self, **options: object) -> str:
        spec = make_spec(environment=str(self.archive), **options)  # type: ignore[arg-type]
        around = Surroundings(
            connection_file=f'"{self.root}/manager.json"', archive=f'"{self.archive}"', scratch='"$SCRATCH"'
        )
        return render_script(msgspec.structs.replace(spec, archive_name=NAME), around)

    def start(self, job: str, script: str = "", **variables: str) -> subprocess.Popen[str]:
        scratch = self.root / job
        scratch.mkdir()
        (scratch / "job.sh").write_text(script or self.script())
        return subprocess.Popen(
            [self._shell, str(scratch / "job.sh")],
            env={**self.variables, "SCRATCH": str(scratch), **variables},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, job: str, script: str = "", **variables: str) -> str:
        with self.start(job, script, **variables) as process:
            said = process.communicate()[1]
        assert process.returncode == 0, said
        return said

    @property
    def shared(self) -> str:
        """What a job says that shares."""
        return f"prefix: {self.cache / NAME}\ncache: {self.cache}\n"

    def alone(self, job: str) -> str:
        """What a job says among other things that does not."""
        return f"prefix: {self.root / job}/graphvine-environment\n"


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    return Node(tmp_path, request.param)


def test_jobs_that_start_at_once_unpack_it_once(node: Node) -> None:
    jobs = [node.start(f"job{number}") for number in range(4)]
    said = [job.communicate()[1] for job in jobs]
    assert said == [node.shared] * 4
    assert not any((node.root / f"job{number}/graphvine-environment").exists() for number in range(4))
    assert sorted(path.name for path in node.cache.iterdir()) == [
        *(NAME, f"{NAME}.json", f"{NAME}.lock", f"{NAME}.use")
    ]


def test_a_later_job_and_workers_find_it(node: Node) -> None:
    node.run("first")
    node.archive.write_bytes(b"this is no archive")
    assert node.run("second") == node.shared
    held = caches.hold(NAME, str(node.cache))
    assert held is not None
    with held:
        assert held.prefix == str(node.cache / NAME)
        assert held.python.startswith("3.")


def test_it_is_not_removed_while_a_job_runs(node: Node) -> None:
    for name in ("hangs", "ends"):
        os.mkfifo(node.root / name)
    with node.start("job", HANGS=str(node.root / "hangs"), ENDS=str(node.root / "ends")) as job:
        (node.root / "hangs").read_text()
        caches.make_room(str(node.cache), 0, 0, keep="")
        assert (node.cache / NAME).is_dir()
        (node.root / "ends").write_text("end\n")
        job.communicate()
    caches.make_room(str(node.cache), 0, 0, keep="")
    assert list(node.cache.iterdir()) == []


def test_what_a_killed_job_left_half_made_is_made_anew(node: Node) -> None:
    node.cache.mkdir(mode=0o700)
    for name in (f"{NAME}.making", NAME):
        (node.cache / name / "bin").mkdir(parents=True)
        (node.cache / name / "bin/python").write_text("not all of it")
    (node.cache / f"{NAME}.lock").touch()
    assert node.run("job") == node.shared
    assert not (node.cache / f"{NAME}.making").exists()


def with_tool(node: Node, name: str, before: str) -> str:
    """A PATH on which a tool does something before it does what it is for."""
    tools = node.root / "tools"
    tools.mkdir()
    (tools / name).write_text(f'#!/bin/sh\n{before}\nexec {shutil.which(name)} "$@"\n')
    (tools / name).chmod(0o755)
    return f"{tools}:{node.variables['PATH']}"


def test_who_waits_for_a_job_that_is_killed_goes_on(node: Node) -> None:
    os.mkfifo(node.root / "hangs")
    os.mkfifo(node.root / "never")
    path = with_tool(node, "tar", f'echo hanging >"{node.root}/hangs"; read -r word <"{node.root}/never"')
    with node.start("killed", PATH=path) as killed:
        (node.root / "hangs").read_text()
        assert (node.cache / f"{NAME}.making").is_dir()
        with node.start("waits") as waits:
            os.killpg(killed.pid, signal.SIGKILL)
            assert waits.communicate()[1] == node.shared
        killed.communicate()


def test_a_job_that_waits_ends_when_it_is_told_to(node: Node) -> None:
    for name in ("hangs", "ends", "waits"):
        os.mkfifo(node.root / name)
    path = with_tool(node, "tar", f'echo hanging >"{node.root}/hangs"; read -r word <"{node.root}/ends"')
    with node.start("unpacks", PATH=path) as unpacks:
        (node.root / "hangs").read_text()
        (node.root / "tools/tar").rename(node.root / "tar")
        shutil.rmtree(node.root / "tools")
        path = with_tool(node, "flock", f'echo waiting >"{node.root}/waits"')
        script = node.script().replace('gv_scratch="$SCRATCH"', "gv_scratch=")
        with node.start("waits-too", script, PATH=path, TMPDIR=str(node.root / "waits-too")) as waits:
            (node.root / "waits").read_text()
            waits.send_signal(signal.SIGTERM)
            waits.communicate()
        assert waits.returncode == 143
        assert os.listdir(node.root / "waits-too") == ["job.sh"]
        (node.root / "ends").write_text("go on\n")
        assert unpacks.communicate()[1] == node.shared


def test_after_a_reboot_it_is_made_anew_but_not_under_those_who_use_it(node: Node) -> None:
    node.run("first")
    place = caches.Place(str(node.cache), NAME)
    marker = place.read()
    assert marker is not None
    marker.boot = "another"
    place.write(marker)
    held = caches._lock_use(place, caches.fcntl.LOCK_SH)
    try:
        assert node.alone("second") in node.run("second")
    finally:
        os.close(held)
    assert node.run("third") == node.shared
    marker = place.read()
    assert marker is not None
    assert marker.boot == caches.boot_id()


def test_above_the_cap_others_go(node: Node) -> None:
    node.run("first")
    os.rename(node.cache / f"{NAME}.json", node.cache / "env-old.json")
    for suffix in ("", ".lock", ".use"):
        os.rename(node.cache / f"{NAME}{suffix}", node.cache / f"env-old{suffix}")
    script = node.script(variables={"GRAPHVINE_CACHE_MB": "0.0001"})
    assert node.run("second", script) == node.shared
    assert not (node.cache / "env-old").exists()


@pytest.mark.parametrize("wrong", ["writable by the group", "a link", "not to be made"])
def test_a_cache_that_others_might_write_to_is_not_used(node: Node, wrong: str) -> None:
    if wrong == "writable by the group":
        node.cache.mkdir()
        node.cache.chmod(0o770)
    elif wrong == "a link":
        (node.root / "elsewhere").mkdir(mode=0o700)
        node.cache.symlink_to(node.root / "elsewhere")
    else:
        node.cache.touch()
    assert node.alone("job") in node.run("job")
    assert not (node.cache / NAME).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a directory away")
def test_a_cache_of_another_user_is_not_used(node: Node) -> None:
    node.cache.mkdir(mode=0o700)
    os.chown(node.cache, 12345, 12345)
    assert node.alone("job") in node.run("job")
    assert list(node.cache.iterdir()) == []


@pytest.mark.parametrize("missing", ["flock", "room"])
def test_what_a_node_lacks(node: Node, missing: str) -> None:
    tools = node.root / "tools"
    tools.mkdir()
    for tool in os.listdir("/usr/bin"):
        if tool != missing:
            (tools / tool).symlink_to(f"/usr/bin/{tool}")
    if missing == "room":
        (tools / "df").unlink()
        (tools / "df").write_text("#!/bin/sh\necho Filesystem; echo '/dev/x 1000 999 1 100% /'\n")
        (tools / "df").chmod(0o755)
    said = node.run("job", PATH=str(tools))
    assert node.alone("job") in said
    assert ("unpacked for this job alone" in said) == (missing == "room")
    assert not (node.cache / NAME).exists()


def test_a_damaged_archive_leaves_nothing(node: Node) -> None:
    node.archive.write_bytes(node.archive.read_bytes()[:-20])
    with node.start("job") as job:
        said = job.communicate()[1]
    assert job.returncode == 71
    assert "can't be unpacked in" in said
    assert sorted(path.name for path in node.cache.iterdir()) == [f"{NAME}.lock", f"{NAME}.use"]


# -- archives with a front -----------------------------------------------------------------------------------

#: In place of a worker that unpacks the rest: tells what it was told.
TELLS_REST = PYTHON.replace(
    'echo "prefix', 'while [ "$1" != --rest ]; do shift; done; shift; echo "rest: $2 $3 $4 $5"; echo "prefix'
)
#: As a worker does that has unpacked it.
TELLS_REST += """[ -z "$GIVES_BACK" ] || { exec 8>&-; flock -w 20 "$GIVES_BACK" echo nobody has its lock; }
"""


def with_front(node: Node) -> int:
    """Pack an archive with a front, and say how much of it that is."""
    (front, rest) = (
        data_item("bin/python", TELLS_REST.encode(), 0o755),
        data_item("lib/more", b"more", 0o644),
    )
    begin = writer.compressed([front], lambda item: None)
    description = Metadata(front_bytes=len(begin), files=2, unpacked_bytes=front.size + rest.size)
    before = writer.compressed([data_item(MEMBER, encode(description))], lambda item: None) + begin
    writer.write(str(node.archive), [rest], "gz", lambda item: None, before=before)
    return end_of(str(node.archive))


def script_with_front(node: Node, first: int, **options: object) -> str:
    return node.script(**options).replace("gv_front=\n", f"gv_front={first}\n")


def test_jobs_start_from_the_front_and_one_has_to_unpack_the_rest(node: Node) -> None:
    first = with_front(node)
    for name in ("hangs", "ends"):
        os.mkfifo(node.root / name)
    script = script_with_front(node, first)
    rest = f"rest: {first} {node.cache / NAME} {node.cache / NAME}"
    with node.start("a", script, HANGS=str(node.root / "hangs"), ENDS=str(node.root / "ends")) as begins:
        (node.root / "hangs").read_text()
        assert sorted(os.listdir(node.cache / NAME)) == [BEGUN, MEMBER, "bin"]
        jobs = [node.start(name, script) for name in "bcd"]
        assert [job.communicate()[1] for job in jobs] == [f"{rest} \n{node.shared}"] * 3
        # Who does not know of fronts waits.
        with pytest.raises(BlockingIOError):
            caches.lock(caches.Place(str(node.cache), NAME), exclusive=False, wait=False)
        (node.root / "ends").write_text("end\n")
        assert begins.communicate()[1] == f"{rest} 8\n{node.shared}"
    # It ended before the rest was there: the next one begins anew.
    assert node.run("e", script) == f"{rest} 8\n{node.shared}"


def test_the_script_that_stays_keeps_no_lock(node: Node) -> None:
    first = with_front(node)
    script = script_with_front(node, first).replace('gv_scratch="$SCRATCH"', "gv_scratch=")
    said = node.run("job", script, TMPDIR=str(node.root / "job"), GIVES_BACK=f"{node.cache / NAME}.lock")
    assert f"rest: {first} " in said
    assert "nobody has its lock" in said


def test_a_front_without_a_cache(node: Node) -> None:
    first = with_front(node)
    own = f"{node.root}/job/graphvine-environment"
    said = node.run("job", script_with_front(node, first, node_cache=False))
    assert said.startswith(f"rest: {first} {own}  \n{node.alone('job')}")


def test_a_front_that_does_not_do_is_not_used(node: Node) -> None:
    with_front(node)
    node.pack({"bin/python": PYTHON})
    said = node.run("job", script_with_front(node, 20))
    assert said.endswith(node.shared)


def test_who_runs_lines_of_his_own_has_all_of_it_before(node: Node) -> None:
    spec = make_spec(environment=str(node.archive), prologue="true")
    around = Surroundings(connection_file="c", archive="a", scratch="s")
    for prologue, front in ((("true",), ""), ((), "1234")):
        changed = msgspec.structs.replace(spec, archive_front=1234, prologue=prologue)
        assert f"\ngv_front={front}\n" in render_script(changed, around)


def test_an_archive_that_was_cut_short_between_two_files_is_not_taken(node: Node) -> None:
    with_front(node)
    node.archive.write_bytes(node.archive.read_bytes()[: end_of(str(node.archive))])
    said = node.run("job", node.script().replace("graphvine.worker", "--rest"))
    assert "was cut short" in said
    assert not (node.cache / NAME).exists()


def test_jobs_may_be_told_to_leave_nothing(node: Node) -> None:
    said = node.run("job", node.script(node_cache=False))
    assert said == f"{node.alone('job')}cache: {node.root}/job/graphvine-cache\n"
    assert not node.cache.exists()


def test_by_default_it_lies_below_tmp_for_jobs_of_the_one_who_submitted_them(node: Node) -> None:
    del node.variables["GRAPHVINE_CACHE_DIR"]
    common = f"/tmp/graphvine-{os.getuid()}"
    script = node.script()
    assert f"gv_name={NAME}\n" in script
    script = script.replace(NAME, f"{NAME}-{node.root.name}")
    mine = next(line for line in script.splitlines() if line.startswith("gv_user="))
    assert (
        node.run("other", script.replace(mine, "gv_user=somebody-else")) == f"{node.alone('other')}cache: \n"
    )
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", "/tmp"], capture_output=True, text=True, check=True
    ).stdout
    if kind.strip() == "tmpfs":
        pytest.skip("/tmp is memory here")
    try:
        said = node.run("job", script)
        assert said == f"prefix: {common}/{NAME}-{node.root.name}\ncache: {common}\n"
    finally:
        caches.drop(f"{NAME}-{node.root.name}", common)

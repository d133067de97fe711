"""A real HTCondor pool on this machine's loopback: every daemon, one node of several slots, one plain user.

The schedd takes no jobs from root, so root starts all of it as another user: pools, submissions, and the
scripts that have managers. What those need lies where that user can read it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from tests.cluster import install_apptainer, install_htcondor

_READY_S = 60
_STOP_S = 30.0
_CLEAN_S = 120.0

_CONFIGURATION = """
RELEASE_DIR = {root}/usr
LOCAL_DIR = {home}
BIN = {root}/usr/bin
SBIN = {root}/usr/sbin
LIB = {root}/usr/lib/condor
LIBEXEC = {root}/usr/libexec/condor
SHARE = {root}/usr/share/condor
ETC = {home}/etc
LOG = {home}/log
LOCK = {home}/lock
RUN = {home}/run
SPOOL = {home}/spool
EXECUTE = {home}/execute
DAEMON_SOCKET_DIR = {home}/sock
REQUIRE_LOCAL_CONFIG_FILE = False
LOCAL_CONFIG_DIR =
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD
SHUTDOWN_GRACEFUL_TIMEOUT = 10

CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:{port}
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
ENABLE_IPV6 = False

# Everybody who may use this directory is the one user.
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
SEC_CLIENT_AUTHENTICATION_METHODS = FS
# For Python bindings that are newer than the daemons.
SEC_FS_ENFORCE_CHANNEL_BINDING = False
FS_LOCAL_DIR = {home}/fs
SEC_PASSWORD_DIRECTORY = {home}/passwords.d
SEC_TOKEN_DIRECTORY = {home}/tokens.d
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
ALLOW_ADMINISTRATOR = *

# In place of one in /tmp.
STARTER_JOB_ENVIRONMENT = "GRAPHVINE_CACHE_DIR={home}/cache"

# No powers that a plain user does not have.
MOUNT_UNDER_SCRATCH =
PER_JOB_NAMESPACES = False
USE_PROCD = False
BASE_CGROUP =

# What only its names are needed of.
MACHINE_RESOURCE_GPUs = GPU-11111111, GPU-22222222

NUM_CPUS = {cores}
MEMORY = {memory_mb}
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
NUM_SLOTS_TYPE_1 = 1
START = True
SUSPEND = False
PREEMPT = False
KILL = False
RUNBENCHMARKS = 0

# A pool of thousands waits; this one does not have to.
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
SCHEDD_INTERVAL = 1
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 2
JOB_START_COUNT = 100
JOB_START_DELAY = 0
PERIODIC_EXPR_INTERVAL = 2
MachineMaxVacateTime = 4 * 5

SINGULARITY = {apptainer}

# Whether a proxy was renewed; ten minutes, by default.
SHADOW_CHECKPROXY_INTERVAL = 1
# As a file, not as a proxy of the proxy: these daemons, run so far from home, can't make that.
DELEGATE_JOB_GSI_CREDENTIALS = False
"""


def plain_user() -> pwd.struct_passwd:
    """The user who submits: this one, or, for root, the first person this machine knows."""
    if os.getuid():
        return pwd.getpwuid(os.getuid())
    people = [entry for entry in pwd.getpwall() if 1000 <= entry.pw_uid < 60000]
    return people[0] if people else pwd.getpwnam("nobody")


class Pool:
    """``home``: a directory of the user's; what a test writes for jobs goes there, too."""

    def __init__(self, root: Path, home: Path, cores: int, memory_mb: int) -> None:
        self.home = home
        self.user = plain_user()
        self.bin = root / "usr/bin"
        self.python = home / "python" / "bin" / "python"
        """The user's own interpreter, with graphvine."""
        self.archive = home / "none"
        """The same, packed."""
        self._root = root
        self._settings = {
            "root": root,
            "home": home,
            "cores": cores,
            "memory_mb": memory_mb,
            "port": _port(),
            "apptainer": install_apptainer.program() or "/usr/bin/apptainer",
        }
        self.variables = {
            "CONDOR_CONFIG": str(home / "condor_config"),
            "HOME": str(home),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "TMPDIR": str(home / "tmp"),
            "LOGNAME": self.user.pw_name,
            "USER": self.user.pw_name,
        }
        self._master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for part in (
            "log",
            "lock",
            "run",
            "spool",
            "execute",
            "etc",
            "sock",
            "tmp",
            "passwords.d",
            "tokens.d",
        ):
            (self.home / part).mkdir(mode=0o700 if part.endswith(".d") else 0o755)
        (self.home / "fs").mkdir()
        (self.home / "fs").chmod(0o1777)
        (self.home / "condor_config").write_text(_CONFIGURATION.format(**self._settings))
        self.give(self.home)
        self._master = self.spawn([str(self._root / "usr/sbin/condor_master"), "-f"])
        ready = 'IsReady && STARTD_State =?= "Ready" && SCHEDD =?= "Alive"'
        self.run(["condor_who", f"-wait:{_READY_S}", ready])
        # Daemons that are up have not all told the collector of themselves.
        deadline = time.monotonic() + _READY_S
        while not self.run(["condor_status", "-schedd", "-af", "Name"]).strip():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def stop(self) -> None:
        """End the daemons, with whatever they run."""
        if self._master is None:
            return
        family = [
            psutil.Process(self._master.pid),
            *psutil.Process(self._master.pid).children(recursive=True),
        ]
        self._master.send_signal(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._master.wait(_STOP_S)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._master.wait()

    # -- as the user --------------------------------------------------------------------------------------

    def spawn(
        self, command: Sequence[str], variables: Mapping[str, str] | None = None, **how: object
    ) -> subprocess.Popen[bytes]:
        """Start a command as the user, with nothing of this process's environment."""
        who: dict[str, object] = {}
        if not os.getuid():
            who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return subprocess.Popen(
            command,
            env={**self.variables, **(variables or {})},
            cwd=self.home,
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, **who, **how},  # type: ignore[call-overload]
        )

    def run(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
        """What it printed. Raises AssertionError with all it said when it fails."""
        with self.spawn(command, variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            said = process.communicate(timeout=240)[0].decode()
        assert process.returncode == 0, f"{command[0]} failed with exit code {process.returncode}:\n{said}"
        return said

    def jobs(self, constraint: str = "JobStatus != 3 && JobStatus != 4") -> list[str]:
        """Those in the queue; by default not those that are about to leave it, removed or completed."""
        ids = ["-format", "%d.", "ClusterId", "-format", "%d\n", "ProcId"]
        return self.run(["condor_q", "-allusers", "-constraint", constraint, *ids]).split()

    def await_empty(self) -> None:
        """Until no job is in the queue: the schedd takes a moment. Raises AssertionError."""
        deadline = time.monotonic() + _STOP_S
        while left := self.jobs("true"):
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.1)

    def schedd(self) -> str:
        """Its name."""
        return self.run(["condor_status", "-schedd", "-af", "Name"]).split()[0]

    def processes(self) -> set[int]:
        """Of the user, all that are there."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.uids().real == self.user.pw_uid and process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process.pid)
        return found

    def drain(self, before: set[int]) -> tuple[list[str], list[str]]:
        """Jobs and processes that a test left; both are gone then."""
        left = self.jobs()
        if left:
            self.run(["condor_rm", "-all"])
        # HTCondor removes the scratch directory of a job before it lets go of it.
        deadline = time.monotonic() + _CLEAN_S
        while (stray := self._strays(before)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in stray:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return left, [f"{process.pid}: {process.info}" for process in stray]

    def _strays(self, before: set[int]) -> list[psutil.Process]:
        """New processes of the user's that are no part of HTCondor."""
        found = []
        for process in psutil.process_iter(["cmdline", "exe"]):
            with contextlib.suppress(psutil.Error):
                if process.uids().real != self.user.pw_uid or process.pid in before:
                    continue
                if "condor" not in (process.info["exe"] or "condor") or self._is_starter(process):
                    found.append(process)
        return found

    def _is_starter(self, process: psutil.Process) -> bool:
        return process.name() in ("condor_starter", "condor_shadow")

    def give(self, path: Path) -> None:
        """Make it the user's own, with all that is in it."""
        if os.getuid():
            return
        for place in (path, *path.rglob("*")):
            os.chown(place, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def logs(self) -> str:
        """The end of each daemon's log, for a test that failed."""
        parts = []
        for path in sorted((self.home / "log").glob("*Log*")):
            parts.append(f"--- {path.name}\n" + path.read_text(errors="replace")[-3000:])
        return "\n".join(parts)


@contextlib.contextmanager
def running_pool(cores: int = 8, memory_mb: int = 16_000) -> Iterator[Pool]:
    """A pool for as long as the context lasts. Its home has a short path: sockets lie in it."""
    root = install_htcondor.root()
    assert root is not None
    home = Path(tempfile.mkdtemp(prefix="gv-condor-", dir="/tmp"))
    home.chmod(0o755)
    pool = Pool(root, home, cores, memory_mb)
    try:
        pool.start()
        yield pool
    finally:
        pool.stop()
        shutil.rmtree(home, ignore_errors=True)


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""A real Slurm on this machine: a controller and some virtual nodes, of loopback only, without root's help or
munge.

Nothing of it is a service of the machine: its processes are ours, and end with the pool.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

DAEMONS = ("slurmctld", "slurmd")
TOOLS = ("sbatch", "squeue", "scontrol", "scancel", "sinfo")
NODES = 4
CORES = 6
MEMORY_MB = 8000
#: Slurm's own default; tidying up after a large environment takes a while.
KILL_WAIT_S = 30
_PATIENCE_S = 30.0

CONFIGURATION = """\
ClusterName=graphvine
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/%n.log
# Without it they listen on every address there is.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
PlugStackConfig=/dev/null
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
# More cores than the machine may have.
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=30
InactiveLimit=0
KillWait={kill_wait_s}
MinJobAge=300
MaxArraySize=101
OverTimeLimit=0
GresTypes=gpu
"""
NODE = (
    "NodeName=n{index} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} "
    "RealMemory={memory_mb} TmpDisk=100000 Feature={feature}{gres} State=UNKNOWN\n"
)


class SlurmPool:
    """``directory``: logs are below it. The tools find the pool by SLURM_CONF."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.configuration = directory / "slurm.conf"
        self.kept: set[str] = set()
        """Jobs of several tests, which nobody minds."""

    def run(self, *command: str) -> str:
        """What a tool of Slurm's printed. Raises CalledProcessError."""
        environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        return subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout

    def jobs(self) -> list[str]:
        """Jobs that are in the queue, or still ending."""
        listed = self.run("squeue", "--noheader", "--array", "--format=%i").split()
        return [job for job in listed if job not in self.kept]

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted((self.directory / "log").iterdir())
        )

    def drain(self) -> list[str]:
        """End all jobs, and wait until they are gone; which there were."""
        left = self.jobs()
        if left:
            self.run("scancel", "--quiet", *left)
        await_true(lambda: not self.jobs(), "all jobs are gone")
        return left


def why_not() -> str:
    """What is missing for a Slurm here; "" if nothing is."""
    missing = [name for name in (*DAEMONS, *TOOLS) if find(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def find(name: str) -> str | None:
    """Daemons are in directories that not every user has on PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def pool(
    around: Callable[[Path], AbstractContextManager[dict[str, str]]] | None = None,
) -> Iterator[SlurmPool]:
    """A Slurm that takes jobs. ``around``: what lives as long as it does, in its directory, and the settings
    that this needs. Raises RuntimeError with its logs if it does not."""
    with tempfile.TemporaryDirectory(prefix="graphvine-slurm-") as name, contextlib.ExitStack() as stack:
        made = SlurmPool(Path(name))
        for part in ("log", "run"):
            (made.directory / part).mkdir()
        _configure(made, stack.enter_context(around(made.directory)) if around is not None else {})
        processes: list[subprocess.Popen[bytes]] = []
        try:
            _start(made, processes)
            try:
                await_true(lambda: _idle(made) == NODES, "its nodes are idle", processes)
            except RuntimeError as error:
                raise RuntimeError(f"Slurm did not start: {error}\n{made.logs()}") from error
            yield made
            made.kept.clear()
            made.drain()
        finally:
            _stop(processes)


def _configure(made: SlurmPool, settings: dict[str, str]) -> None:
    base, host = made.directory, socket.gethostname().partition(".")[0]
    for name in ("state", "spool", *(f"spool/n{index}" for index in range(1, NODES + 1))):
        (base / name).mkdir()
    ports = free_ports(NODES + 1)
    user = pwd.getpwuid(os.getuid()).pw_name
    text = CONFIGURATION.format(host=host, port=ports[0], user=user, base=base, kill_wait_s=KILL_WAIT_S)
    for key, value in settings.items():
        text = re.sub(rf"^{key}=.*\n", "", text, flags=re.MULTILINE) + f"{key}={value}\n"
    for index in range(1, NODES + 1):
        text += NODE.format(
            index=index,
            host=host,
            port=ports[index],
            cores=CORES,
            memory_mb=MEMORY_MB,
            feature="odd" if index % 2 else "even",
            gres=" Gres=gpu:1" if index == 1 else "",
        )
    text += f"PartitionName=long Nodes=n[1-{NODES}] Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=100\n"
    text += f"PartitionName=short Nodes=n[1-{NODES}] MaxTime=10 State=UP DefMemPerCPU=100\n"
    made.configuration.write_text(text)
    (base / "gres.conf").write_text("NodeName=n1 Name=gpu File=/dev/zero\n")


def free_ports(count: int) -> list[int]:
    """Held all at once, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(made: SlurmPool, processes: list[subprocess.Popen[bytes]]) -> None:
    controller, node = find("slurmctld"), find("slurmd")
    assert controller is not None
    assert node is not None
    # As a node would: jobs see nothing of the test's own environment but what they bring along.
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "SLURM_CONF": str(made.configuration),
    }
    commands = [[controller, "-D", "-i"]]
    commands += [[node, "-D", "-N", f"n{index}"] for index in range(1, NODES + 1)]
    for command in commands:
        with open(made.directory / "log" / "daemons.out", "ab") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            )


def _idle(made: SlurmPool) -> int:
    with contextlib.suppress(subprocess.CalledProcessError):
        states = made.run("sinfo", "--noheader", "--Node", "--partition=long", "--format=%t").split()
        return states.count("idle")
    return 0


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_true(
    condition: Callable[[], bool],
    what: str,
    processes: list[subprocess.Popen[bytes]] | None = None,
    within_s: float = _PATIENCE_S,
) -> None:
    """Slurm tells nobody when something happens: ask until it has. Raises RuntimeError."""
    end = time.monotonic() + within_s
    while not condition():
        if processes and any(process.poll() is not None for process in processes):
            raise RuntimeError("a daemon has ended")
        if time.monotonic() > end:
            raise RuntimeError(f"not within {within_s:g} s: {what}")
        time.sleep(0.1)

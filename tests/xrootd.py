"""A real xrootd server, with http beside it, on a host of its own.

The server listens on every address it finds, so it is given a network namespace in which it finds one only:
that of a link to here. The namespace and the link go with the server's process, however the tests end.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PORT = 1094
HTTP_PORT = 8080
#: It refuses to run as root.
NOBODY = 65534

CONFIGURATION = """
all.export /data r/o
oss.localroot {root}
all.adminpath {root}/admin
all.pidpath {root}/admin
xrd.port {port}
xrd.network nodnr
xrd.protocol XrdHttp:{http_port} libXrdHttp.so
"""


class XrootdServer:
    """``directory``: what is put there is served as ``/data``."""

    def __init__(self, directory: Path, address: str, process: subprocess.Popen[str]) -> None:
        self.directory = directory
        self._address = address
        self._process = process

    def root_url(self, name: str) -> str:
        return f"root://{self._address}:{PORT}//data/{name}"

    def http_url(self, name: str) -> str:
        return f"http://{self._address}:{HTTP_PORT}/data/{name}"

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It takes connections and says nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def why_not() -> str:
    """What is missing for a server here; "" if nothing is."""
    if os.geteuid() != 0:
        return "an xrootd server needs root, to give it a network of its own"
    missing = [name for name in ("xrootd", "ip", "unshare", "setpriv") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@contextmanager
def serving() -> Iterator[XrootdServer]:
    """A server, ready. Raises RuntimeError with what it said if it doesn't start."""
    # Not below pytest's directories, which only their owner may enter.
    with tempfile.TemporaryDirectory(prefix="graphvine-xrootd-") as root:
        directory = Path(root, "data")
        for made in (directory, Path(root, "admin")):
            made.mkdir()
        configuration = Path(root, "configuration")
        configuration.write_text(CONFIGURATION.format(root=root, port=PORT, http_port=HTTP_PORT))
        for path in (Path(root), Path(root, "admin")):
            os.chown(path, NOBODY, NOBODY)
        process = _start(configuration)
        try:
            address = _link(process)
            _await_ready(process)
            yield XrootdServer(directory, address, process)
        finally:
            process.terminate()
            process.communicate()


def _start(configuration: Path) -> subprocess.Popen[str]:
    """The server's process in its own network; it begins once it is told so."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=KILL"]
    # "in" tells that the namespace is there, "out" that the link is.
    line = 'echo in; read -r out && exec xrootd -c "$0" 2>&1'
    process = subprocess.Popen(
        ["unshare", "--net", *user, "sh", "-c", line, str(configuration)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def _link(process: subprocess.Popen[str]) -> str:
    """Join the server's network to this one; its address there."""
    # Four addresses of a range that is set aside for tests; by the process, as others may be testing too.
    base = int(ipaddress.IPv4Address("198.18.0.0")) + process.pid % 2**15 * 4
    here, there = (str(ipaddress.IPv4Address(base + last)) for last in (1, 2))
    name = f"gvx{process.pid}"
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
    _run("ip", "addr", "add", f"{here}/30", "dev", name)
    _run("ip", "link", "set", name, "up")
    inside = ("nsenter", f"--net=/proc/{process.pid}/ns/net", "ip")
    _run(*inside, "link", "set", "lo", "up")
    _run(*inside, "addr", "add", f"{there}/30", "dev", "eth0")
    _run(*inside, "link", "set", "eth0", "up")
    return there


def _await_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("out\n")
    process.stdin.flush()
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("------ xrootd ") and line.endswith(" initialization completed.\n"):
            return
    raise RuntimeError("".join(["the xrootd server did not start:\n", *said]))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

"""A real accounting database for a Slurm of the tests: slurmdbd, and a MariaDB that nobody but it reaches."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.slurm_pool import await_true, find, free_ports

PROGRAMS = ("mariadbd", "mariadb-install-db", "slurmdbd", "sacct")
_STOP_S = 20.0

CONFIGURATION = """\
AuthType=auth/none
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=accounts
LogFile={base}/log/slurmdbd.log
PidFile={base}/run/slurmdbd.pid
CommunicationParameters=NoInAddrAny
"""


def why_not() -> str:
    """What is missing for it here; "" if nothing is."""
    missing = [name for name in PROGRAMS if find(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@contextlib.contextmanager
def accounts(base: Path) -> Iterator[dict[str, str]]:
    """A database that answers, for as long as the context lasts: what slurm.conf has to say of it."""
    (port,) = free_ports(1)
    user = pwd.getpwuid(os.getuid()).pw_name
    socket = base / "run" / "mariadb.sock"
    with _running([*_database(base, user), f"--socket={socket}"], base, {}) as database:
        await_true(socket.exists, "the database answers", [database])
        configuration = base / "slurmdbd.conf"
        configuration.write_text(CONFIGURATION.format(port=port, user=user, base=base))
        configuration.chmod(0o600)
        daemon = [str(find("slurmdbd")), "-D"]
        # MariaDB's client library takes its socket from there.
        variables = {"SLURM_CONF": str(base / "slurm.conf"), "MYSQL_UNIX_PORT": str(socket)}
        with _running(daemon, base, variables) as slurmdbd:
            log = base / "log" / "slurmdbd.log"
            await_true(lambda: log.exists() and "started" in log.read_text(), "slurmdbd answers", [slurmdbd])
            yield {
                "AccountingStorageType": "accounting_storage/slurmdbd",
                "AccountingStorageHost": "127.0.0.1",
                "AccountingStoragePort": str(port),
                # Only accounting remembers what has ended.
                "MinJobAge": "2",
            }


def _database(base: Path, user: str) -> list[str]:
    """An empty one, and what starts it."""
    data = base / "database"
    options = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
    make = [str(find("mariadb-install-db")), *options, "--auth-root-authentication-method=socket"]
    subprocess.run([*make, "--skip-test-db"], check=True, capture_output=True)
    return [str(find("mariadbd")), *options, "--skip-networking", f"--pid-file={base}/run/mariadb.pid"]


@contextlib.contextmanager
def _running(command: list[str], base: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", **variables}
    with open(base / "log" / "accounts.out", "ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""Puts a real Apptainer into one directory, for the tests: install_apptainer.py [DIRECTORY]

Debian has it in no release yet, only in unstable. It needs no root and no setuid program: it makes containers
in user namespaces. Where an ``apptainer`` is on PATH already, the tests take that one and this does nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.cluster import debian

SUITE = "sid"
PROGRAMS = ("usr/bin", f"{debian.LIBRARIES}/apptainer/bin")
#: It takes its own place for the prefix; its starter, which lies deeper, does so, too.
PREFIXES = ("usr", "usr/lib")
SESSIONS = "var/lib/apptainer/mnt/session"
NOT_NEEDED = ("ca-certificates", "containernetworking", "uidmap", "openssl")


def directory() -> Path:
    """Where it is installed, or will be."""
    told = os.environ.get("GRAPHVINE_TEST_APPTAINER")
    return Path(told) if told else Path(f"/var/tmp/graphvine-test-apptainer-{os.getuid()}")


def program() -> Path | None:
    """None where there is none."""
    found = shutil.which("apptainer")
    if found is not None:
        return Path(found)
    here = directory()
    return here / "usr/bin/apptainer" if (here / "complete").exists() else None


def main() -> None:
    if len(sys.argv) > 1:
        os.environ["GRAPHVINE_TEST_APPTAINER"] = sys.argv[1]
    found = program()
    if found is None:
        here = directory()
        debian.unpack("apptainer", SUITE, here, NOT_NEEDED)
        debian.use_own_libraries(here, [debian.LIBRARIES], PROGRAMS)
        for prefix in PREFIXES:
            (here / prefix / SESSIONS).mkdir(parents=True)
            (here / prefix / "etc").symlink_to(here / "etc")
        (here / "complete").touch()
        found = here / "usr/bin/apptainer"
    subprocess.run([found, "--version"], check=True)


if __name__ == "__main__":
    main()

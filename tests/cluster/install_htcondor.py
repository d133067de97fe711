"""Puts a real HTCondor into one directory, for the tests: install_htcondor.py [DIRECTORY]

Debian 12 has no HTCondor; Debian 13 has. Where a ``condor_master`` is on PATH already, the tests take that
and this does nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.cluster import debian

SUITE = "trixie"
PLACES = (debian.LIBRARIES, f"{debian.LIBRARIES}/condor", "usr/lib/condor", "usr/lib")
PROGRAMS = ("usr/bin", "usr/sbin", "usr/libexec/condor")


def directory() -> Path:
    """Where it is installed, or will be."""
    told = os.environ.get("GRAPHVINE_TEST_HTCONDOR")
    return Path(told) if told else Path(f"/var/tmp/graphvine-test-htcondor-{os.getuid()}")


def root() -> Path | None:
    """The directory that holds ``usr/sbin/condor_master``; None where there is no HTCondor."""
    found = shutil.which("condor_master", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is not None:
        return Path(found).resolve().parents[2]
    here = directory()
    return here if (here / "complete").exists() else None


def main() -> None:
    if len(sys.argv) > 1:
        os.environ["GRAPHVINE_TEST_HTCONDOR"] = sys.argv[1]
    here = root()
    if here is None:
        here = directory()
        debian.unpack("condor", SUITE, here)
        debian.use_own_libraries(here, PLACES, PROGRAMS)
        (here / "complete").touch()
    subprocess.run([here / "usr/bin/condor_version"], check=True)


if __name__ == "__main__":
    main()

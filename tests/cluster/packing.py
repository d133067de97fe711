"""An environment with graphvine, what graphvine needs, and nothing else: small, so that jobs start soon."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import graphvine


def pack_graphvine(directory: Path) -> Path:
    """The archive, as tar.gz."""
    prefix = directory / "small"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    packages = next((prefix / "lib").glob("python*/site-packages"))
    # The sources that are tested, wherever they were installed from.
    shutil.copytree(
        Path(graphvine.__file__).parent, packages / "graphvine", ignore=shutil.ignore_patterns("__pycache__")
    )
    described = packages / f"graphvine-{graphvine.__version__}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: graphvine\nVersion: {graphvine.__version__}\n"
    )
    for name in set().union(*map(needed_by, dependencies())):
        copy_distribution(name, packages)
    variables = os.environ | {"GRAPHVINE_CACHE_DIR": str(directory / "cache")}
    command = [
        sys.executable,
        "-m",
        "graphvine.cli",
        "env",
        "pack",
        str(prefix),
        "-o",
        str(directory / "small.tar.gz"),
    ]
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
    return directory / "small.tar.gz"


def dependencies() -> list[str]:
    """What graphvine itself asks for, by name."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    section = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    return re.findall(r'"([A-Za-z0-9_-]+)', section[1])


def needed_by(name: str) -> set[str]:
    """It, and all that it needs, extras not counted."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        try:
            requirements = importlib.metadata.requires(one) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python, or another platform
        found.add(one)
        for requirement in requirements:
            if "extra ==" not in requirement:
                match = re.match(r"[A-Za-z0-9._-]+", requirement)
                assert match is not None
                waiting.append(match[0].lower())
    return found


def copy_distribution(name: str, packages: Path) -> None:
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(distribution.locate_file(file), target)

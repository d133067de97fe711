"""A conda prefix, packed, its original gone: commands and graphs run in it.

conda itself is not needed: its prefix is an interpreter with packages and the records in ``conda-meta``,
which name the files that hold the prefix's path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from dask import delayed

import graphvine as vine
from graphvine.envs.packing import pack
from graphvine.envs.unpack import inspect, unpack_to
from graphvine.manager.manager import Manager

pytest.importorskip("conda_pack", reason="needs conda-pack: pip install 'graphvine[envs]'")

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def m(cache: Path) -> Iterator[Manager]:
    with vine.Manager(local_workers=2) as manager:
        yield manager


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same prefix packed by ``graphvine env pack`` and by ``conda-pack``; by the packer's name."""
    root = tmp_path_factory.mktemp("conda")
    prefix = make_prefix(root)
    found = {"graphvine": str(root / "ours.tar.zst"), "conda-pack": str(root / "theirs.tar.gz")}
    variables = os.environ | {"GRAPHVINE_CACHE_DIR": str(root / "cache")}
    for command in (
        ["graphvine.cli", "env", "pack", str(prefix), "-o", found["graphvine"]],
        ["conda_pack.cli", "-q", "-p", str(prefix), "-o", found["conda-pack"], "--compress-level", "1"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    prefix.rename(root / "gone")
    return found


def make_prefix(root: Path) -> Path:
    """An interpreter of its own, a package of conda's, a script and a text that hold the prefix's path."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "venv")], check=True)
    packed = pack(root / "venv", root / "base.tar.zst")
    prefix = Path(unpack_to(packed.path, str(root / "a-prefix-with-a-rather-long-name")))
    for name in os.listdir(prefix):
        if name.startswith(".graphvine"):
            (prefix / name).unlink()
    files = {
        f"lib/python{VERSION}/site-packages/inside.py": "VALUE = 42\n",
        "etc/where": f"{prefix}\n",
        "bin/say-value": f"#!{prefix}/bin/python\nimport inside, sys\nprint(inside.VALUE, sys.prefix)\n",
    }
    for name, text in files.items():
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(text)
    (prefix / "bin/say-value").chmod(0o755)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").write_text("")
    (prefix / "conda-meta/inside-1.5-0.json").write_bytes(msgspec.json.encode(record(prefix, list(files))))
    return prefix


def record(prefix: Path, files: list[str]) -> dict[str, object]:
    """What conda notes of an installed package."""
    held = [
        {"_path": name, "path_type": "hardlink", "prefix_placeholder": str(prefix), "file_mode": "text"}
        for name in files[1:]
    ]
    return {
        "name": "inside",
        "version": "1.5",
        "build": "0",
        "link": {"source": "", "type": 1},
        "url": "https://example.org/noarch/inside-1.5-0.conda",
        "files": files,
        "paths_data": {"paths": [{"_path": files[0], "path_type": "hardlink"}, *held]},
    }


def looking_around() -> Callable[[int], tuple[int, int, str, str]]:
    """A task's function, local to this one: the environment has nothing that this module imports."""

    def look_around(number: int) -> tuple[int, int, str, str]:
        import sys

        import inside  # type: ignore[import-not-found]

        with open(f"{sys.prefix}/etc/where") as file:
            return number, inside.VALUE, sys.prefix, file.read().strip()

    return look_around


@pytest.mark.parametrize("packer", ["graphvine", "conda-pack"])
def test_commands_and_a_graph(m, archives, cache, packer):
    archive = archives[packer]
    assert (inspect(archive).kind, dict(inspect(archive).packages)["inside"]) == ("conda", "1.5")
    task = vine.Task("say-value; cat $CONDA_PREFIX/etc/where", cores=1)
    task.add_environment(m.declare_poncho(m.declare_file(archive, cache=True), cache=True))
    m.submit(task)
    assert m.wait(120) is task
    assert task.successful(), (task.reason, task.output)
    value, prefix, where = task.output.split()
    assert (value, where) == ("42", prefix)
    assert prefix.startswith(str(cache))

    parts = delayed(list)([delayed(looking_around())(number) for number in range(8)])
    found = m.get(parts.__dask_graph__(), parts.key, environment=archive)
    assert [number for number, *_ in found] == list(range(8))
    ((value, prefix, where),) = {tuple(rest) for _, *rest in found}
    assert (value, where) == (42, prefix)
    assert prefix.startswith(str(cache))

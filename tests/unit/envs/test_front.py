"""Which files of an environment come first in its archive, and where they end."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import graphvine
from graphvine.envs import writer
from graphvine.envs.front import belongs, end_of, files
from graphvine.envs.items import data_item, walk
from graphvine.envs.metadata import MEMBER, Metadata, encode
from graphvine.envs.packing import pack
from graphvine.envs.survey import survey
from graphvine.envs.unpack import inspect


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))


def with_front(path: Path) -> int:
    """An archive with a front; how large that is, with all before it."""
    front = writer.compressed([data_item("bin/python", b"python" * 1000)], lambda item: None)
    description = data_item(MEMBER, encode(Metadata(front_bytes=len(front))))
    before = writer.compressed([description], lambda item: None) + front
    writer.write(str(path), [data_item("rest", b"rest" * 1000)], "gz", lambda item: None, before=before)
    return len(before)


def names(path: Path, begin: int, end: int | None) -> list[str]:
    (path.parent / "part").write_bytes(path.read_bytes()[begin:end])
    with tarfile.open(path.parent / "part", "r:gz") as tar:
        return tar.getnames()


def test_both_parts_are_archives_of_their_own_and_all_is_one(tmp_path: Path) -> None:
    path = tmp_path / "env.tar.gz"
    first = with_front(path)
    assert end_of(str(path)) == first
    assert names(path, 0, first) == [MEMBER, "bin/python"]
    assert names(path, first, None) == ["rest"]
    assert names(path, 0, None) == [MEMBER, "bin/python", "rest"]


@pytest.mark.parametrize("what", ["compressed anew", "cut short", "of others", "none"])
def test_archives_without_a_front(tmp_path: Path, what: str) -> None:
    path = tmp_path / "env.tar.gz"
    first = with_front(path)
    match what:
        case "compressed anew":
            path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())))
        case "cut short":
            path.write_bytes(path.read_bytes()[: first // 2])
        case "of others":
            with tarfile.open(path, "w:gz") as tar:
                tar.add(__file__, "bin/python")
        case "none":
            path.write_bytes(b"nothing of the kind")
    assert end_of(str(path)) == 0


def test_what_a_worker_starts_from(tmp_path: Path) -> None:
    sources = str(Path(graphvine.__file__).parent)
    found = survey(sys.executable, with_python_path=True)
    items = list(walk(sources, "lib/graphvine"))
    front = files(sys.executable, found, items, with_python_path=True)
    assert {f"lib/graphvine/worker/{name}.py" for name in ("__main__", "loop", "zygote", "rest")} <= front
    assert f"lib/graphvine/worker/__pycache__/loop.{found.cache_tag}.pyc" in front
    assert not any(name.startswith(("lib/graphvine/deploy", "lib/graphvine/manager")) for name in front)
    # What has no source there goes with them.
    for name in ("bin/python3", "lib/libz.so.1", "lib/python3/site-packages/hook.pth"):
        assert belongs(data_item(name, b""), front)
        assert not belongs(data_item(name, b""), set())


def test_where_there_is_no_graphvine_there_is_no_front(tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    packages = next((prefix / "lib").glob("python*/site-packages"))
    # Another version, which says something when it is imported.
    (packages / "graphvine" / "worker").mkdir(parents=True)
    (packages / "graphvine" / "worker" / "several.py").write_text("print('hello')")
    packed = pack(prefix, compression="gz")
    assert end_of(packed.path) == 0
    assert inspect(packed.path).front_bytes == 0

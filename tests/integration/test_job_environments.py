"""What a user names as the environment of jobs, as what any node can unpack: real prefixes and archives."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from graphvine import __version__
from graphvine.deploy import environments
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec, make_spec
from graphvine.envs.metadata import Metadata
from graphvine.envs.packing import pack

HERE = "{}.{}".format(*sys.version_info[:2])


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path_factory.getbasetemp() / "job-environments-cache"
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(directory))
    return directory


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that says it has graphvine."""
    prefix = tmp_path_factory.mktemp("venv") / "analysis"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    add_distribution(prefix, __version__)
    return prefix


def add_distribution(prefix: Path, version: str) -> Path:
    packages = prefix / "lib" / f"python{HERE}" / "site-packages"
    found = packages / f"graphvine-{version}.dist-info"
    found.mkdir()
    (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: graphvine\nVersion: {version}\n")
    (packages / "graphvine").mkdir(exist_ok=True)
    (packages / "graphvine" / "__init__.py").touch()
    return found


def names(archive: str) -> set[str]:
    done = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def test_a_prefix_becomes_what_tar_and_gzip_can_unpack(prefix: Path) -> None:
    archive = environments.archive_of(str(prefix))
    assert archive.endswith(".tar.gz")
    assert {"bin/python", f"lib/python{HERE}/os.py"} <= names(archive)
    # Not packed again, as nothing changed.
    inode = os.stat(archive).st_ino
    assert environments.archive_of(str(prefix)) == archive
    assert os.stat(archive).st_ino == inode


def test_packing_for_jobs_is_told_when_it_is_done(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path))
    caplog.set_level(logging.INFO, "graphvine.deploy")
    spec = make_spec(environment=prefix)
    for _ in range(2):
        assert environments.prepared(spec).archive.endswith(".tar.gz")
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"packing environment {prefix} for the jobs: once, until it changes"]


def test_an_archive_of_another_kind_is_compressed_again_once(prefix: Path, tmp_path: Path) -> None:
    packed = pack(prefix, tmp_path / "analysis.tar.zst")
    seen: list[str] = []
    archive = environments.archive_of(packed.path, lambda what, done, size: seen.append(what))
    assert archive.endswith(f"{packed.name}.tar.gz")
    assert seen
    assert "bin/python" in names(archive)
    again = len(seen)
    assert environments.archive_of(packed.path, lambda what, done, size: seen.append(what)) == archive
    assert len(seen) == again


def test_a_gzip_archive_is_brought_as_it_is(prefix: Path, tmp_path: Path) -> None:
    packed = pack(prefix, tmp_path / "analysis.tar.gz")
    assert environments.archive_of(packed.path) == packed.path


def test_a_damaged_archive_is_told(prefix: Path, tmp_path: Path) -> None:
    path = Path(pack(prefix, tmp_path / "analysis.tar.zst").path)
    damaged = tmp_path / "damaged.tar.zst"
    damaged.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DeployError, match=r"damaged\.tar\.zst is damaged"):
        environments.archive_of(str(damaged))


def test_an_environment_without_graphvine_is_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(DeployError, match=f"bare has no graphvine: install graphvine {__version__}"):
        environments.archive_of(str(bare))


def test_an_archive_that_others_made_is_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "theirs.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in (
            "bin/python",
            f"lib/python{HERE}/os.py",
            f"lib/python{HERE}/site-packages/graphvine-{__version__}.dist-info/METADATA",
        ):
            tar.addfile(tarfile.TarInfo(name))
    assert environments.archive_of(str(path)) == str(path)


def test_no_environment_at_all(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="there is no environment at"):
        environments.archive_of(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        (Metadata(python=f"{HERE}.1", packages=(("graphvine", __version__),)), ""),
        (Metadata(packages=(("graphvine", __version__),)), "holds no Python"),
        (Metadata(python="3.1.4", packages=(("graphvine", __version__),)), "has Python 3.1.4, but functions"),
        (Metadata(python=HERE, packages=(("graphvine", "0.0.1"),)), "has graphvine 0.0.1, here it is"),
        (Metadata(python=HERE), "has no graphvine"),
    ],
)
def test_what_does_not_fit(metadata: Metadata, complaint: str) -> None:
    said = environments.complaint_of(metadata, "env.tar.gz")
    assert complaint in said
    assert bool(said) == bool(complaint)


def test_jobs_that_have_a_python_bring_none() -> None:
    spec = WorkerSpec(python="/shared/bin/python")
    assert environments.prepared(spec) is spec


def test_a_spec_with_its_environment_packed(prefix: Path) -> None:
    spec = environments.prepared(WorkerSpec(archive=str(prefix)))
    assert spec.archive == environments.archive_of(str(prefix))
    # By its name nodes and workers know what they have unpacked.
    assert spec.archive_name == pack(spec.archive).name

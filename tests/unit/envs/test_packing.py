"""Packing real environments: they run elsewhere with the originals gone."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import msgspec
import pytest

from graphvine import cli, envs
from graphvine.envs import errors
from graphvine.envs.extract import members
from graphvine.envs.metadata import this_platform
from graphvine.envs.packing import PackedEnvironment, pack
from graphvine.envs.stream import Stream
from graphvine.envs.unpack import inspect, unpack, unpack_to

pytest.importorskip("conda_pack")

_FINDER = """
import sys
from importlib.util import spec_from_file_location
MAPPING = {"hooked": %r}
class _EditableFinder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in MAPPING:
            return spec_from_file_location(name, MAPPING[name] + "/__init__.py")
def install():
    sys.meta_path.append(_EditableFinder)
"""

_REPORT = """
import importlib, json, sys
out = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    out[name] = [module.__file__, getattr(module, "VALUE", None), module.__cached__]
import ssl, sqlite3, ctypes, hashlib, bz2, lzma
import numpy
out["sum"] = int(numpy.arange(5).sum())
with open("/proc/self/maps") as maps:
    out["mapped"] = sorted({line.split()[-1] for line in maps if "/" in line and ".so" in line})
out["path"] = sys.path
out["prefix"] = [sys.prefix, sys.base_prefix]
print(json.dumps(out))
"""


def copy_package(name: str, site_packages: Path) -> None:
    """An installed package, with its libraries and its metadata."""
    found = Path(importlib.util.find_spec(name).origin).parent
    for path in found.parent.iterdir():
        if path.name in (name, f"{name}.libs") or path.name.startswith(f"{name}-"):
            shutil.copytree(path, site_packages / path.name, ignore=shutil.ignore_patterns("tests"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def site_packages_of(environment: Path) -> Path:
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def make_venv(root: Path) -> Path:
    """numpy, msgspec and cloudpickle; editable packages by path and by hook; a script, data, a template."""
    venv = root / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    site = site_packages_of(venv)
    for name in ("numpy", "msgspec", "cloudpickle"):
        copy_package(name, site)
    write(root / "project" / "src" / "editable" / "__init__.py", "VALUE = 'editable'\n")
    write(root / "project" / "src" / "editable" / "data.txt", "data\n")
    write(root / "project" / "src" / "notes.txt", "not a package\n")
    write(site / "_editable_impl_editable.pth", str(root / "project" / "src"))
    write(root / "hooked-sources" / "hooked" / "__init__.py", "VALUE = 'hooked'\n")
    write(site / "__editable___hooked_finder.py", _FINDER % str(root / "hooked-sources" / "hooked"))
    write(site / "__editable__.hooked-0.1.pth", "import __editable___hooked_finder as f; f.install()")
    write(root / "elsewhere" / "by_path.py", "VALUE = 'by path'\n")
    write(site / "elsewhere.pth", f"{root / 'elsewhere'}\nimport sys; sys.marked = True\n")
    write(root / "outside" / "linked.py", "VALUE = 'linked'\n")
    (site / "linked.py").symlink_to(root / "outside" / "linked.py")
    write(site / "broken_template.py", "def {{ name }}(: pass\n")
    script = write(venv / "bin" / "says-where", f"#!{venv}/bin/python\nimport sys\nprint(sys.prefix)\n")
    script.chmod(0o755)
    write(venv / "share" / "thing" / "file", "shared\n")
    return venv


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def use_cache(cache, monkeypatch):
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(cache))
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    return make_venv(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def packed(environment, cache) -> PackedEnvironment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHVINE_CACHE_DIR", str(cache))
        progress: list[tuple[str, int, int]] = []
        made = pack(environment, progress=lambda *now: progress.append(now))
    assert progress[0][0] == "looking at files"
    assert progress[-1][0] == "packing"
    assert progress[-1][1] == progress[-1][2] > 0
    return made


@pytest.fixture(scope="module")
def prefix(packed, environment, cache) -> str:
    """Unpacked at another path; the original, and all it drew on but the interpreter, is gone meanwhile."""
    return unpack(packed.path, packed.name, str(cache))


@pytest.fixture
def hidden(environment):
    """While a test runs, everything the environment was made from is elsewhere."""
    root = environment.parent
    away = root.with_name(root.name + "-away")
    root.rename(away)
    yield root
    away.rename(root)


def run(prefix: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [f"{prefix}/bin/python", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_elsewhere_with_the_original_gone(prefix, hidden):
    names = ["numpy", "msgspec", "cloudpickle", "editable", "hooked", "by_path", "linked"]
    report = msgspec.json.decode(run(prefix, "-c", _REPORT, *names))
    assert report["prefix"] == [prefix, prefix]
    assert report["sum"] == 10
    for name in names:
        file, _, cached = report[name]
        assert file.startswith(prefix)
        assert os.path.exists(cached)
    values = {name: report[name][1] for name in names[3:]}
    assert values == {"editable": "editable", "hooked": "hooked", "by_path": "by path", "linked": "linked"}
    assert all(path == "" or path.startswith(prefix) for path in report["path"])
    # Nothing of any other Python is in the process: interpreter, its library, its extension modules.
    assert [path for path in report["mapped"] if "python" in path and not path.startswith(prefix)] == []


def test_it_runs_where_the_interpreter_it_came_from_is_not(prefix, hidden):
    # The deeper first: once its parent is hidden it is not there.
    gone = sorted({sys.base_prefix, sysconfig.get_config_var("LIBDIR")}, reverse=True)
    if any(path == "/usr" or path.startswith("/usr/lib") for path in gone):
        pytest.skip("this interpreter is the system's: hiding it hides the system")
    script = "".join(
        f"mount -t tmpfs none '{path}' && " for path in gone if os.path.isdir(path) and path not in prefix
    )
    script += f"exec '{prefix}/bin/python' -c 'import ssl, sqlite3, numpy, sys; print(sys.base_prefix)'"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    if done.returncode and ("unshare:" in done.stderr or "permission denied" in done.stderr):
        pytest.skip(f"needs a mount namespace: {done.stderr}")
    assert (done.stdout, done.stderr) == (f"{prefix}\n", "")


def test_scripts_data_and_other_peoples_hooks_come_along(prefix, hidden):
    done = subprocess.run([f"{prefix}/bin/says-where"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == prefix
    linked = hidden.parent / "a link to a script"
    linked.symlink_to(f"{prefix}/bin/says-where")
    assert subprocess.check_output([str(linked)], text=True).strip() == prefix
    linked.unlink()
    assert Path(prefix, "share/thing/file").read_text() == "shared\n"
    assert run(
        prefix, "-c", "import editable, sys, os; print(sys.marked, os.listdir(editable.__path__[0]))"
    ).startswith("True")
    site = site_packages_of(Path(prefix))
    assert (site / "editable" / "data.txt").exists()
    assert not (site / "notes.txt").exists()
    assert not list(site.glob("*editable_*"))
    assert str(hidden) not in "".join(path.read_text() for path in site.glob("*.pth"))


def test_bytecode_is_there_and_is_not_compared_with_its_source(prefix):
    site = site_packages_of(Path(prefix))
    os.utime(site / "editable" / "__init__.py", (1, 1))
    done = subprocess.run(
        [f"{prefix}/bin/python", "-v", "-c", "import editable, numpy, email.message"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert "matches" in done.stderr
    assert "could not" not in done.stderr
    assert "# wrote" not in done.stderr
    assert "bytecode is stale" not in done.stderr
    assert not (site / "__pycache__" / f"broken_template.{sys.implementation.cache_tag}.pyc").exists()
    # The stored digests are true ones: Python accepts them when told to compare.
    run(prefix, "--check-hash-based-pycs", "always", "-c", "import editable, email.message, numpy")


def test_what_the_archive_says_of_itself(packed, prefix):
    found = inspect(packed.path)
    assert found.kind == "venv"
    assert found.python == packed.python == ".".join(map(str, sys.version_info[:3]))
    assert found.platform == packed.platform == this_platform()
    versions = dict(found.packages)
    assert {"numpy", "msgspec", "cloudpickle"} <= versions.keys()
    assert run(prefix, "-c", "import numpy; print(numpy.__version__)").strip() == versions["numpy"]
    assert packed.size == os.path.getsize(packed.path)
    assert packed.name in packed.path


def test_an_unchanged_environment_is_not_packed_again(environment, packed):
    before = os.stat(packed.path)
    again = pack(environment)
    assert again == packed
    assert os.stat(packed.path).st_ino == before.st_ino


def test_a_changed_one_is_and_comes_back_to_the_same_name(environment, packed, tmp_path):
    source = environment.parent / "project" / "src" / "editable" / "__init__.py"
    times = source.stat()
    source.write_text("VALUE = 'changed!'\n")
    changed = pack(environment)
    assert changed.name != packed.name
    assert (
        "changed!"
        in Path(unpack_to(changed.path, str(tmp_path / "new")), "lib")
        .joinpath(site_packages_of(Path()).relative_to("lib"), "editable", "__init__.py")
        .read_text()
    )
    source.write_text("VALUE = 'editable'\n")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    kept = Path(packed.path).rename(packed.path + ".kept")
    assert pack(environment) == packed
    assert Path(packed.path).read_bytes() == kept.read_bytes()
    kept.unlink()


def test_a_file_that_changes_while_it_is_packed_is_packed_as_it_is_then(tmp_path, environment):
    source = write(environment.parent / "elsewhere" / "growing.py", "VALUE = 1\n")
    seen: list[str] = []

    def grow(what: str, done: int, total: int) -> None:
        if what == "packing" and "packing" not in seen:
            source.write_text("VALUE = 1 + 1\n")
        seen.append(what)

    packed = pack(environment, progress=grow)
    source.unlink()
    with Stream(packed.path) as stream:
        sizes = {member.name.partition("site-packages/")[2]: member.size for _, member in members(stream)}
    assert sizes["growing.py"] == len("VALUE = 1 + 1\n")
    # Another environment now: the next test packs the old one again.
    os.unlink(packed.path)


def test_an_archive_is_taken_as_it_is(packed, tmp_path):
    copy = tmp_path / "mine.tar.zst"
    shutil.copy(packed.path, copy)
    named = pack(copy)
    assert named == msgspec.structs.replace(packed, path=str(copy))


def test_current_takes_what_pythonpath_names(tmp_path, environment, monkeypatch):
    root = tmp_path / "local"
    write(root / "mine.py", "VALUE = 'mine'\n")
    write(root / "package" / "__init__.py", "VALUE = 'package'\n")
    write(root / "space" / "inner" / "__init__.py", "")
    write(root / ".hidden" / "no.py", "")
    write(root / "other-venv" / "pyvenv.cfg", "")
    write(root / "othervenv" / "pyvenv.cfg", "")
    write(root / "othervenv" / "lib" / "no.py", "")
    write(root / "huge.bin", "no module")
    script = "from graphvine.envs import pack; print(pack('current').path)"
    ours = os.path.dirname(os.path.dirname(envs.__path__[0]))
    path = os.pathsep.join([str(root), ours])
    done = subprocess.run(
        [f"{environment}/bin/python", "-c", _BORROW + script],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
            "PYTHONPATH": path,
            "BORROWED": os.path.dirname(os.path.dirname(msgspec.__file__)),
        },
    )
    assert done.returncode == 0, done.stderr
    with Stream(done.stdout.strip()) as stream:
        names = {member.name.partition("site-packages/")[2] for _, member in members(stream)}
    assert {"mine.py", "package/__init__.py", "space/inner/__init__.py", "graphvine/__init__.py"} <= names
    assert not {name for name in names if "hidden" in name or "huge" in name or "venv" in name}


#: The small environment has none of these: this interpreter's is imported, and not seen by the packing.
_BORROW = (
    "import os, sys; sys.path.append(os.environ['BORROWED'])\n"
    "import zstandard, msgspec, xxhash; sys.path.pop()\n"
)


def test_a_plain_prefix_without_python_and_no_directory_are_said(tmp_path):
    with pytest.raises(errors.PackingError, match="no bin/python"):
        pack(tmp_path)
    with pytest.raises(errors.PackingError, match="no environment at"):
        pack(tmp_path / "none")
    with pytest.raises(errors.PackingError, match="'rar' is not known"):
        pack(tmp_path, compression="rar")
    write(tmp_path / "bin" / "python", "#!/bin/sh\necho broken >&2; exit 3\n").chmod(0o755)
    with pytest.raises(errors.PackingError, match="does not start: broken"):
        pack(tmp_path)


def test_a_full_disk_while_packing(environment, small_disk, monkeypatch):
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(small_disk))
    with pytest.raises(errors.NoSpaceError, match=r"No space left .* GRAPHVINE_CACHE_DIR"):
        pack(environment)
    assert os.listdir(small_disk / "packed") == []


def test_a_conda_prefix(tmp_path, prefix, cache):
    """The unpacked environment, as conda would have it: with a history, a package of its own, and a file that
    holds the prefix's path."""
    conda = tmp_path / "conda-environment-with-a-long-name"
    shutil.copytree(prefix, conda, symlinks=True)
    text = write(conda / "etc" / "where", f"prefix={conda}\n")
    write(conda / "conda-meta" / "history", "")
    record = {
        "name": "thing",
        "version": "1.5",
        "build": "0",
        "link": {"source": "", "type": 1},
        "url": "https://example.org/noarch/thing-1.5-0.conda",
        "files": ["etc/where"],
        "paths_data": {
            "paths": [
                {
                    "_path": "etc/where",
                    "path_type": "hardlink",
                    "prefix_placeholder": str(conda),
                    "file_mode": "text",
                }
            ]
        },
    }
    write(conda / "conda-meta" / "thing-1.5-0.json", msgspec.json.encode(record).decode())
    write(tmp_path / "project" / "local_package" / "__init__.py", "VALUE = 1\n")
    write(site_packages_of(conda) / "local.pth", str(tmp_path / "project"))
    packed = pack(conda)
    assert pack(conda) == packed
    text.unlink()
    conda.rename(tmp_path / "away")
    (tmp_path / "project").rename(tmp_path / "away-too")
    found = inspect(packed.path)
    assert (found.kind, dict(found.packages)["thing"]) == ("conda", "1.5")
    unpacked = unpack(packed.path, packed.name, str(cache))
    assert Path(unpacked, "etc/where").read_text() == f"prefix={unpacked}\n"
    assert run(unpacked, "-c", "import numpy, local_package; print(local_package.VALUE)").strip() == "1"


def test_conda_packs_own_archives_are_understood(tmp_path, prefix, cache):
    import conda_pack

    conda = tmp_path / "conda"
    shutil.copytree(prefix, conda, symlinks=True)
    write(conda / "conda-meta" / "history", "")
    output = tmp_path / "theirs.tar"
    conda_pack.pack(prefix=str(conda), output=str(output), ignore_editable_packages=True)
    named = pack(output)
    assert (named.python, named.platform) == ("", "")
    assert "numpy" in dict(inspect(str(output)).packages)
    unpacked = unpack(named.path, named.name, str(cache), python=sys.version.split()[0])
    assert run(unpacked, "-c", "import sys; print(sys.prefix)").strip() == unpacked


def test_the_command_line(packed, environment, tmp_path, capsys):
    assert cli.main(["env", "pack", str(environment)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == packed.path
    assert packed.name in said.err
    assert cli.main(["env", "inspect", packed.path]) == 0
    assert "  numpy " in capsys.readouterr().out
    assert cli.main(["env", "unpack", packed.path]) == 0
    assert capsys.readouterr().out.strip().endswith(packed.name)
    assert cli.main(["env", "unpack", packed.path, str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "here")
    for wrong in (["inspect", str(tmp_path)], ["unpack", str(tmp_path / "none")], ["pack", str(tmp_path)]):
        assert cli.main(["env", *wrong]) == 1
        assert capsys.readouterr().err.startswith("graphvine: ")
    with pytest.raises(SystemExit):
        cli.main(["env"])


def test_a_place_for_the_archive_that_cannot_be_is_told_before_anything_is_packed(tmp_path, capsys):
    # An environment that isn't there would be told of first, if it were looked at.
    for output, why in (("none/x.tar.zst", "No such file or directory"), (".", "Is a directory")):
        assert cli.main(["env", "pack", str(tmp_path / "nothing"), "-o", f"{tmp_path}/{output}"]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"graphvine: the archive can't be written to {tmp_path}")
        assert told.endswith(f": {why}\n")


def test_an_archive_that_is_not_there_is_named_without_an_error_number(tmp_path, capsys):
    for command in (["inspect"], ["unpack"]):
        assert cli.main(["env", *command, str(tmp_path / "nothing")]) == 1
        assert capsys.readouterr().err == f"graphvine: {tmp_path}/nothing: No such file or directory\n"


def test_paths_are_printed_where_the_output_lacks_their_letters(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "small.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("bin/python"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    wanted = f"{tmp_path}/größe ☃.tar"
    assert cli.main(["env", "pack", str(tmp_path / "small.tar"), "-o", wanted]) == 0
    assert sys.stdout.buffer.getvalue() == os.fsencode(wanted) + b"\n"

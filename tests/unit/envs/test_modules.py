"""The user's own modules: found, packed, and imported again elsewhere."""

from __future__ import annotations

import importlib
import io
import logging
import os
import runpy
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphvine.envs import modules
from graphvine.envs.modules import Finder, ModulesTooLargeError, imported_names


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on ``sys.path``; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> Finder:
    """One that sees none of the test suite's own modules."""
    seen = set(sys.modules)
    original = modules._find_home
    monkeypatch.setattr(
        modules, "_find_home", lambda name, module: "" if name in seen else original(name, module)
    )
    monkeypatch.setattr(modules, "_script", lambda: None)
    return Finder()


def write(home: Path, **files: str) -> None:
    """Sources by their names; two underscores are a slash."""
    for name, text in files.items():
        parts = name.replace("____init__", "__\0").split("__")
        path = home.joinpath(*(part.replace("\0", "__init__") for part in parts)).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names_in(archive: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        return [name for name in content.namelist() if not name.endswith("/")]


def test_nothing_to_send(finder: Finder) -> None:
    found = finder.find()
    assert (found.name, found.modules) == ("", b"")


def test_a_neighbour(home: Path, finder: Finder) -> None:
    write(home, gv_neighbour="def f(): return 3\n", gv_unused="")
    importlib.import_module("gv_neighbour")
    assert names_in(finder.find().modules) == ["gv_neighbour.py"]


def test_a_package_travels_whole(home: Path, finder: Finder) -> None:
    write(home, gv_pkg__a="", gv_pkg__sub__b="", gv_pkg__sub__deep__c="")
    (home / "gv_pkg/__init__.py").write_text("")
    (home / "gv_pkg/sub/__init__.py").write_text("")
    (home / "gv_pkg/table.json").write_text("{}")
    (home / "gv_pkg/huge.bin").write_bytes(bytes(modules.MAX_DATA_FILE_BYTES + 1))
    (home / "gv_pkg/__pycache__").mkdir()
    (home / "gv_pkg/__pycache__/a.pyc").write_bytes(b"")
    (home / "gv_pkg/.git").mkdir()
    (home / "gv_pkg/.git/config").write_text("")
    importlib.import_module("gv_pkg.a")
    assert sorted(names_in(finder.find().modules)) == [
        "gv_pkg/__init__.py",
        "gv_pkg/a.py",
        "gv_pkg/sub/__init__.py",
        "gv_pkg/sub/b.py",
        "gv_pkg/sub/deep/c.py",
        "gv_pkg/table.json",
    ]


def test_a_directory_without_init(home: Path, finder: Finder) -> None:
    write(home, gv_ns__a="", gv_ns__b="")
    (home / "gv_ns/notes.txt").write_text("")
    importlib.import_module("gv_ns.a")
    assert names_in(finder.find().modules) == ["gv_ns/a.py", "gv_ns/b.py"]


def test_modules_in_a_zip_file(home: Path, finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "app", gv_zipped="import gv_zipped_late\n", gv_zipped_late="", gv_zipped_other="")
    write(home / "app", gv_zpkg__a="", gv_zpkg__sub__b="", gv_zspace__c="", gv_zpkg__tests__d="")
    (home / "app/gv_zpkg/__init__.py").write_text("")
    (home / "app/gv_zpkg/table.json").write_text("{}")
    (home / "app/gv_zpkg/huge.bin").write_bytes(bytes(modules.MAX_DATA_FILE_BYTES + 1))
    (home / "app/gv_zpkg/.hidden").mkdir()
    (home / "app/gv_zpkg/.hidden/x.py").write_text("")
    shutil.make_archive(str(home / "app"), "zip", home / "app")
    monkeypatch.syspath_prepend(str(home / "app.zip"))
    for name in ("gv_zipped", "gv_zpkg.sub.b", "gv_zspace.c"):
        importlib.import_module(name)
    found = finder.find()
    wanted = ["gv_zipped.py", "gv_zipped_late.py", "gv_zpkg/__init__.py", "gv_zpkg/a.py", "gv_zpkg/sub/b.py"]
    wanted += ["gv_zpkg/table.json", "gv_zpkg/tests/d.py", "gv_zspace/c.py"]
    assert names_in(found.modules) == wanted
    assert finder.find().name == found.name
    (home / "app/gv_zipped_late.py").write_text("changed = 1\n")
    shutil.make_archive(str(home / "app"), "zip", home / "app")
    assert finder.find().name != found.name
    (home / "app.zip").write_bytes(b"no archive any more")
    assert finder.find().modules == b""
    (home / "app.zip").unlink()
    assert finder.find().modules == b""


def test_what_the_script_of_an_application_imports_late(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "app", main="def f():\n    import gv_app_late\n", gv_app_late="", gv_app_other="")
    shutil.make_archive(str(home / "app"), "zip", home / "app")
    monkeypatch.setattr(modules, "_find_home", lambda name, module: "")
    monkeypatch.setattr(modules, "_script", lambda: str(home / "app.zip/main.py"))
    assert names_in(Finder().find().modules) == ["gv_app_late.py"]


def test_what_is_imported_late(home: Path, finder: Finder) -> None:
    write(
        home,
        gv_first="def f():\n    import gv_second\n    from gv_third.x import y\n",
        gv_second="import gv_fourth, json, numpy, not_there_at_all\n",
        gv_third__x="y = 1\n",
        gv_fourth="import gv_first\n",
    )
    (home / "gv_third/__init__.py").write_text("")
    importlib.import_module("gv_first")
    sys.modules.pop("gv_second", None)
    assert names_in(finder.find().modules) == [
        "gv_first.py",
        "gv_fourth.py",
        "gv_second.py",
        "gv_third/__init__.py",
        "gv_third/x.py",
    ]


def test_late_imports_of_the_main_script(home: Path, finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, gv_script="def f():\n    import gv_late\n", gv_late="")
    monkeypatch.setattr(modules, "_script", lambda: str(home / "gv_script.py"))
    assert names_in(finder.find().modules) == ["gv_late.py"]


def test_the_same_bytes_for_the_same_contents(
    tmp_path: Path, home: Path, finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, gv_same="x = 1\n")
    importlib.import_module("gv_same")
    first = finder.find()
    other = tmp_path / "elsewhere"
    write(other, gv_same="x = 1\n")
    os.utime(other / "gv_same.py", (1, 1))
    monkeypatch.syspath_prepend(str(other))
    del sys.modules["gv_same"]
    importlib.invalidate_caches()
    importlib.import_module("gv_same")
    assert Finder().find() == first or finder.find() == first


def test_a_change_gives_another_name(home: Path, finder: Finder) -> None:
    write(home, gv_changing="x = 1\n")
    importlib.import_module("gv_changing")
    first = finder.find()
    assert finder.find() == first
    write(home, gv_changing="x = 2  # longer\n")
    second = finder.find()
    assert second.name != first.name
    write(home, gv_changing="x = 1\n")
    assert finder.find().name == first.name


def test_a_new_file_of_a_package(home: Path, finder: Finder) -> None:
    write(home, gv_growing____init__="", gv_growing__a="")
    importlib.import_module("gv_growing")
    first = finder.find()
    write(home, gv_growing__b="")
    assert "gv_growing/b.py" in names_in(finder.find().modules)
    (home / "gv_growing/b.py").unlink()
    assert finder.find().name == first.name


def test_too_large(home: Path, finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "MAX_ARCHIVE_BYTES", 1000)
    write(home, gv_big____init__="", gv_big__large="# " + "x" * 2000, gv_big__small="")
    importlib.import_module("gv_big")
    with pytest.raises(ModulesTooLargeError, match=r"Largest files:\n.*gv_big/large\.py"):
        finder.find()


def compiled(home: Path) -> Path:
    """A package with compiled code, one that works."""
    text = "from gv_compiled import _xxhash\ndef f(): return _xxhash.xxh32_intdigest(b'')"
    write(home, gv_compiled____init__=text)
    original = importlib.import_module("xxhash._xxhash").__file__
    assert original is not None
    shutil.copy(original, home / "gv_compiled")
    return home / "gv_compiled"


def test_compiled_code_stays(home: Path, finder: Finder, caplog: pytest.LogCaptureFixture) -> None:
    compiled(home)
    write(home, gv_plain="")
    importlib.import_module("gv_compiled")
    importlib.import_module("gv_plain")
    with caplog.at_level(logging.WARNING):
        found = [finder.find() for _ in range(2)]
    assert names_in(found[0].modules) == ["gv_compiled.py", "gv_plain.py"]
    assert len(found[0].modules) < 1000
    assert not caplog.records


@pytest.mark.parametrize("where", ["at the same path", "installed", "nowhere"])
def test_compiled_code_is_found_where_it_lies(
    home: Path, finder: Finder, tmp_path_factory: pytest.TempPathFactory, where: str
) -> None:
    place = compiled(home)
    importlib.import_module("gv_compiled")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "modules.zip").write_bytes(finder.find().modules)
    if where != "at the same path":
        place.rename(elsewhere / ("gv_compiled" if where == "installed" else "gone"))
    code = (
        f"import sys; sys.path.append({str(elsewhere)!r}); "
        f"sys.path.insert(0, {str(elsewhere / 'modules.zip')!r}); "
        "import gv_compiled._xxhash; from gv_compiled import f; print(f(), gv_compiled.__file__)"
    )
    source = str(Path(modules.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": source}
    )
    if where == "nowhere":
        assert "install it where the workers run" in done.stderr
    else:
        there = place if where == "at the same path" else elsewhere / "gv_compiled"
        assert done.stdout == f"46947589 {there / '__init__.py'}\n", done.stderr


def test_modules_in_memory(finder: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gv_in_memory")
    monkeypatch.setitem(sys.modules, "gv_in_memory", module)
    assert "gv_in_memory" not in finder.find().by_value
    exec("def f(): return 3\n", module.__dict__)
    assert "gv_in_memory" in finder.find().by_value


def test_a_file_that_was_run_under_another_name(home: Path, finder: Finder) -> None:
    # It is looked for while it runs, as by a script that makes a manager at its top level.
    write(home, script="def find_self(finder): return finder.find()\nfound = find_self(finder)\n")
    found = runpy.run_path(str(home / "script.py"), {"finder": finder})["found"]
    assert (found.by_value, found.modules) == (("<run_path>",), b"")


def test_not_ours_to_send(finder: Finder) -> None:
    for name in ("graphvine", "json", "pytest", "dask", "msgspec"):
        assert modules._find_home(name, importlib.import_module(name)) == ""
    assert modules.is_installed("msgspec")
    assert not modules.is_installed("json")


def test_a_module_that_is_gone_from_the_disk(home: Path, finder: Finder) -> None:
    write(home, gv_gone="", gv_stays="")
    importlib.import_module("gv_gone")
    importlib.import_module("gv_stays")
    assert len(names_in(finder.find().modules)) == 2
    (home / "gv_gone.py").unlink()
    assert names_in(finder.find().modules) == ["gv_stays.py"]


def test_broken_sources_name_nothing() -> None:
    assert imported_names(b"import (") == frozenset()
    assert imported_names(b"\x00") == frozenset()
    found = imported_names(b"import a.b, c as d\nfrom . import e\nfrom f.g import h\ndef x():\n  import i\n")
    assert found == {"a", "c", "f", "i"}


@pytest.mark.parametrize("how", ["module", "package", "namespace"])
def test_the_archive_can_be_imported(
    home: Path, finder: Finder, how: str, tmp_path_factory: Callable[..., Path]
) -> None:
    if how == "module":
        write(home, gv_arch="def f(): return 3\n")
    else:
        write(home, gv_arch__inner="def f(): return 3\n")
        if how == "package":
            (home / "gv_arch/__init__.py").write_text("from gv_arch.inner import f\n")
    name = "gv_arch.inner" if how == "namespace" else "gv_arch"
    importlib.import_module(name)
    archive = tmp_path_factory.mktemp("elsewhere") / "modules.zip"  # type: ignore[attr-defined]
    archive.write_bytes(finder.find().modules)
    code = f"import sys; sys.path.insert(0, {str(archive)!r}); import {name} as m; print(m.f(), m.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3 ")
    assert str(archive) in done.stdout


def test_links_in_circles_are_followed_once(home: Path, finder: Finder) -> None:
    write(home, pkg____init__="X = 1", pkg__sub__part="Y = 2")
    (home / "pkg" / "here").symlink_to(".")
    (home / "pkg" / "sub" / "above").symlink_to("..")
    (home / "pkg" / "itself").symlink_to("itself")
    (home / "pkg" / "other").symlink_to("sub")
    importlib.import_module("pkg")
    assert names_in(finder.find().modules) == [
        "pkg/__init__.py",
        "pkg/other/part.py",
        "pkg/sub/part.py",
    ]


def test_what_cannot_be_read_stays_and_is_named_once(
    home: Path, finder: Finder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, pkg____init__="X = 1", pkg__mine="Y = 2", pkg__theirs="Z = 3", pkg__closed__part="Z = 4")
    importlib.import_module("pkg")
    theirs, closed = str(home / "pkg" / "theirs.py"), str(home / "pkg" / "closed")
    # For root everything can be read.
    access, scandir = os.access, os.scandir
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs and access(path, mode))

    def refusing(path: str) -> object:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for _ in range(2):
        assert names_in(finder.find().modules) == ["pkg/__init__.py", "pkg/mine.py"]
    assert sorted(record.args[0] for record in caplog.records) == [closed, theirs]

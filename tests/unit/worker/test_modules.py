from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.envs.modules import Source, pack
from graphvine.envs.pointers import pointer_to
from graphvine.worker.modules import Contexts
from graphvine.worker.packets import ContextRef


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def archive(path: Path, **sources: str) -> str:
    with zipfile.ZipFile(path, "w") as content:
        for name, text in sources.items():
            content.writestr(name.replace("_in_", "/") + ".py", text)
    return str(path)


def told(*refs: ContextRef) -> Contexts:
    contexts = Contexts()
    for ref in refs:
        contexts.tell(ref)
    return contexts


def test_the_plain_context_is_active_from_the_start() -> None:
    contexts = Contexts()
    before = list(sys.path)
    contexts.activate(0)
    assert sys.path == before


def test_modules_of_an_archive_can_be_imported_packages_too(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", gvt_helper="x = 1", gvt_pack_in___init__="", gvt_pack_in_part="y = 2")
    told(ContextRef(1, path, [])).activate(1)
    import gvt_helper
    import gvt_pack.part

    assert (gvt_helper.x, gvt_pack.part.y) == (1, 2)


def test_each_context_sees_its_own_module_of_one_name(tmp_path: Path) -> None:
    contexts = told(
        ContextRef(1, archive(tmp_path / "a.zip", gvt_helper="x = 1"), []),
        ContextRef(2, archive(tmp_path / "b.zip", gvt_helper="x = 2"), []),
    )
    contexts.activate(1)
    import gvt_helper as first

    contexts.activate(2)
    import gvt_helper as second

    contexts.activate(1)
    import gvt_helper as again

    assert (first.x, second.x) == (1, 2)
    assert again is first
    contexts.activate(0)
    with pytest.raises(ModuleNotFoundError):
        import gvt_helper  # noqa: F401


def test_an_archive_comes_before_what_is_installed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "installed"
    elsewhere.mkdir()
    (elsewhere / "gvt_helper.py").write_text("x = 'installed'")
    sys.path.insert(0, str(elsewhere))
    import gvt_helper as installed

    contexts = told(ContextRef(1, archive(tmp_path / "a.zip", gvt_helper="x = 'mine'"), []))
    contexts.activate(1)
    import gvt_helper as mine

    assert (installed.x, mine.x) == ("installed", "mine")


def test_data_of_a_package_lie_beside_its_modules(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", gvt_pack_in___init__="")
    with zipfile.ZipFile(path, "a") as content:
        content.writestr("gvt_pack/tables/masses.txt", "125")
    for _ in range(2):  # in one process and in the next
        contexts = told(ContextRef(1, path, []))
        contexts.activate(1)
        import gvt_pack

        assert gvt_pack.__file__ is not None
        assert (Path(gvt_pack.__file__).parent / "tables" / "masses.txt").read_text() == "125"
        contexts.activate(0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.d", "a.zip"]


def test_where_an_archive_cannot_be_unpacked_its_modules_are_found_in_it(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", gvt_helper="x = 1")
    (tmp_path / "a.d").write_text("in the way")
    told(ContextRef(1, path, [])).activate(1)
    import gvt_helper

    assert gvt_helper.__file__ == f"{path}/gvt_helper.py"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.d", "a.zip"]


def test_imports_come_ahead_and_those_that_fail_do_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = archive(tmp_path / "a.zip", gvt_good="x = 1", gvt_bad="raise SystemExit(3)")
    told(ContextRef(1, path, ["gvt_bad", "gvt_absent", "gvt_good"])).activate(1)
    assert "gvt_good" in sys.modules
    error = capsys.readouterr().err
    assert "gvt_bad could not be imported ahead" in error
    assert "gvt_absent" in error


def test_an_archive_that_is_gone_or_no_archive_is_an_error_that_can_be_met_again(tmp_path: Path) -> None:
    contexts = told(ContextRef(1, str(tmp_path / "absent.zip"), []))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            contexts.activate(1)
    assert contexts.active == 0


def test_what_holds_compiled_code_stays_loaded(tmp_path: Path) -> None:
    home = tmp_path / "gvt_compiled.py"
    home.write_text("x = 1")
    paths = [tmp_path / "a.zip", tmp_path / "b.zip"]
    for path in paths:
        text = pointer_to(str(home))
        path.write_bytes(pack([Source("gvt_compiled.py", str(home), len(text), 0, text)]))
    contexts = told(*(ContextRef(number, str(path), []) for number, path in enumerate(paths, 1)))
    contexts.activate(1)
    import gvt_compiled as first

    contexts.activate(2)
    import gvt_compiled as second

    assert second is first
    assert (first.x, first.__file__) == (1, str(home))

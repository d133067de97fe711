"""The directories of an executor, emptied whether or not the kernel tells of changes to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphvine.taskvine.remote import home as homes
from graphvine.taskvine.remote.home import OUTPUT, Home
from graphvine.worker import scratch

FURNITURE = ["sandbox", "tmp"]


class NoBell:
    def __init__(self) -> None:
        raise OSError("too many")


class DumbBell(homes.Bell):
    def rang(self) -> bool:
        super().rang()
        return False


@pytest.fixture(params=["bell", "none", "dumb"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    if request.param != "bell":
        monkeypatch.setattr(homes, "Bell", NoBell if request.param == "none" else DumbBell)
    home = Home(str(tmp_path))
    for _ in range(3):
        home.furnish()
        home.empty()
    home.furnish()
    assert home.is_untouched() == (request.param == "bell")
    yield home
    home.close()


def in_sandbox(home: Home) -> None:
    Path(home.sandbox, "x").touch()


def replaced(home: Home) -> None:
    os.rename(home.sandbox, f"{home.path}/away")
    os.symlink("/", home.sandbox)


CHANGES: list[Callable[[Home], object]] = [
    in_sandbox,
    lambda home: os.mkdir(f"{home.tmp}/d"),
    lambda home: os.symlink("/", f"{home.path}/link"),
    lambda home: os.rmdir(home.tmp),
    replaced,
    lambda home: os.chmod(home.sandbox, 0o500),
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_left(home: Home, change: Callable[[Home], object]) -> None:
    for _ in range(2):
        change(home)
        assert not home.is_untouched()
        home.empty()
        home.furnish()
        assert sorted(set(os.listdir(home.path)) - {OUTPUT}) == FURNITURE
        for path in (home.sandbox, home.tmp):
            assert os.listdir(path) == []
            assert not os.path.islink(path)
            assert os.stat(path).st_mode & 0o700 == 0o700


def test_a_change_that_was_asked_about_is_not_forgotten(home: Home) -> None:
    in_sandbox(home)
    assert not home.is_untouched()
    assert not home.is_untouched()
    home.empty()
    assert os.listdir(home.sandbox) == []


def test_all_is_there_again_when_all_was_removed(home: Home) -> None:
    for path in (home.sandbox, home.tmp, home.path):
        os.rmdir(path)
    home.empty()
    os.mkdir(home.path)
    home.furnish()
    assert sorted(os.listdir(home.path)) == FURNITURE


def test_what_another_task_has_removed_is_there_again(home: Home) -> None:
    os.rmdir(home.sandbox)
    home.furnish()
    assert sorted(os.listdir(home.path)) == FURNITURE


def say(home: Home, text: bytes) -> int:
    output = home.open_output()
    os.write(output, text)
    return output


def test_output_is_empty_for_each(home: Home) -> None:
    first = say(home, b"first")
    home.empty()
    assert os.path.getsize(home.output_path) == 0
    assert say(home, b"2nd") == first, "it is the same file"
    assert Path(home.output_path).read_bytes() == b"2nd"


@pytest.mark.parametrize("act", [os.link, os.rename])
def test_output_that_is_elsewhere_is_not_written_to(
    home: Home, tmp_path_factory: pytest.TempPathFactory, act: Callable[[str, str], None]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "kept"
    say(home, b"mine")
    act(home.output_path, str(elsewhere))
    home.empty()
    say(home, b"other")
    home.empty()
    assert elsewhere.read_bytes() == b"mine"
    assert Path(home.output_path).read_bytes() == b""


def test_what_stands_in_the_place_of_the_output_is_removed(home: Home, tmp_path_factory) -> None:
    target = tmp_path_factory.mktemp("elsewhere") / "target"
    target.write_text("mine")
    say(home, b"text")
    os.unlink(home.output_path)
    os.symlink(target, home.output_path)
    home.empty()
    say(home, b"other")
    assert target.read_text() == "mine"
    assert Path(home.output_path).read_bytes() == b"other"


def test_descriptors_that_a_task_closed(home: Home) -> None:
    output = say(home, b"text")
    os.close(output)
    in_sandbox(home)
    home.empty()
    say(home, b"other")
    assert Path(home.output_path).read_bytes() == b"other"


def test_a_bell_that_a_task_closed_counts_as_rung(tmp_path: Path) -> None:
    bell = homes.Bell()
    bell.watch(str(tmp_path))
    assert not bell.rang()
    (tmp_path / "x").touch()
    assert (bell.rang(), bell.rang()) == (True, False)
    bell.close()
    assert bell.rang()


def test_each_process_and_each_directory_has_its_own(tmp_path: Path) -> None:
    scratch.begin(str(tmp_path))
    try:
        mine = homes.here()
        assert homes.here() is mine
        child = os.fork()
        if child == 0:
            os._exit(homes.here() is mine)
        assert os.waitpid(child, 0)[1] == 0
        scratch.drop_lasting()
        assert homes.here().path != mine.path
    finally:
        scratch._parent = ""

"""What many values share is pickled once, and every value is complete by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from graphvine.protocol import commons, values


class Holder:
    """Like an array with its behavior: something plain pickle can't carry because of the dictionary."""

    def __init__(self, behavior: dict[Any, Any], content: object) -> None:
        self.behavior = behavior
        self.content = content


def behavior(count: int = commons.LEAST_ENTRIES) -> dict[Any, Any]:
    return {("add", i): eval(f"lambda x: x + {i}") for i in range(count)}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Every test begins in a process that has seen nothing."""
    yield
    commons._known.clear()
    commons._loaded.clear()


def write(path: Path, value: object) -> Path:
    with open(path, "wb") as file:
        values.write(file.fileno(), values.layout(*values.dumps(value)))
    return path


def test_a_value_comes_back_with_its_common(tmp_path: Path) -> None:
    loaded = values.loads_file(str(write(tmp_path / "a", Holder(behavior(), "content"))))
    assert loaded.content == "content"
    assert loaded.behavior["add", 3](10) == 13


def test_a_common_is_pickled_once_for_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = []
    original = cloudpickle.dumps
    monkeypatch.setattr(cloudpickle, "dumps", lambda *a, **k: pickled.append(a) or original(*a, **k))
    shared = behavior()
    sizes = [len(values.dumps(Holder(dict(shared), i))[0]) for i in range(10)]
    assert len(pickled) == 1
    assert max(sizes) < 1000


def test_a_common_is_unpickled_once_and_written_on_as_it_came(tmp_path: Path) -> None:
    shared = behavior()
    first = values.loads_file(str(write(tmp_path / "a", Holder(shared, 1))))
    second = values.loads_file(str(write(tmp_path / "b", Holder(shared, 2))))
    assert first.behavior is second.behavior
    _, buffers = values.dumps(Holder(shared, 3))
    _, again = values.dumps(first)
    assert bytes(again[-1]) == bytes(buffers[-1])


def test_a_small_value_is_its_pickle_alone() -> None:
    small = {("add", i): len for i in range(commons.LEAST_ENTRIES)}
    data, buffers = values.dumps(Holder(small, lambda: 3), 8192)
    assert buffers == []
    assert values.loads_inline(data).behavior == small


def test_a_changed_dictionary_is_another_common(tmp_path: Path) -> None:
    shared = behavior()
    write(tmp_path / "a", Holder(shared, 1))
    shared["add", 0] = lambda x: "changed"
    loaded = values.loads_file(str(write(tmp_path / "b", Holder(shared, 2))))
    assert loaded.behavior["add", 0](1) == "changed"
    assert values.loads_file(str(tmp_path / "a")).behavior["add", 0](1) == 1


def test_two_commons_in_one_value_are_not_mixed_up(tmp_path: Path) -> None:
    one, two = behavior(), {i: eval(f"lambda x: x * {i}") for i in range(100)}
    content = bytearray(100)
    import pickle

    value = [Holder(one, pickle.PickleBuffer(content)), Holder(two, one), Holder(two, 2)]
    first, second, third = values.loads_file(str(write(tmp_path / "a", value)))
    assert first.behavior["add", 5](1) == 6
    assert bytes(first.content) == content
    assert second.behavior[5](3) == third.behavior[5](3) == 15
    assert second.content["add", 5](1) == 6


@pytest.mark.parametrize(
    "other",
    [{i: i for i in range(1000)}, {i: [print] for i in range(1000)}, dict.fromkeys(range(63), print)],
    ids=["numbers", "lists", "few"],
)
def test_other_dictionaries_are_none(other: dict[Any, Any]) -> None:
    data, buffers = values.dumps(Holder(other, lambda: 0))
    assert buffers == []
    assert not data.startswith(commons.MARK)


def test_a_file_is_complete_for_a_process_that_has_seen_nothing(tmp_path: Path) -> None:
    shared = behavior()
    write(tmp_path / "a", {"first": shared})
    path = write(tmp_path / "b", {"second": shared})
    load = f"values.loads_file({str(path)!r})"
    code = f"from graphvine.protocol import values; print({load}['second']['add', 2](1))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "3\n"

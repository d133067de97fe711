"""Values come back as they were, mapped where they are large."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.protocol import values


def store(tmp_path: Path, value: object) -> str:
    path = tmp_path / "value"
    data, buffers = values.dumps(value)
    with open(path, "wb") as file:
        written = values.write(file.fileno(), values.layout(data, buffers))
    assert written == path.stat().st_size == values.size_of(data, buffers)
    return str(path)


@given(st.recursive(st.integers() | st.text() | st.binary() | st.none(), st.lists))
def test_plain_values_come_back_from_their_pickle(value: Any) -> None:
    data, buffers = values.dumps(value)
    assert buffers == []
    assert values.loads_inline(data) == value


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_buffers_come_back_from_a_file_at_aligned_places(tmp_path_factory: Any, parts: list[bytes]) -> None:
    import pickle

    value = [pickle.PickleBuffer(bytearray(part)) for part in parts]
    path = store(tmp_path_factory.mktemp("values"), value)
    loaded = values.loads_file(path)
    assert [bytes(item) for item in loaded] == parts


def test_an_array_is_mapped_and_writing_to_it_leaves_the_file_alone(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000.0)
    path = store(tmp_path, array)
    first = values.loads_file(path)
    first[0] = -1.0
    assert values.loads_file(path)[0] == 0.0
    assert first.ctypes.data % 64 == 0


def test_maps_leave_half_of_the_descriptors_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy = pytest.importorskip("numpy")
    path = store(tmp_path, numpy.arange(values.REUSED_BYTES // 8))
    open_now = max(map(int, os.listdir("/proc/self/fd")))
    limit = 2 * (open_now + 20)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    held = [values.loads_file(path) for _ in range(100)]
    assert max(map(int, os.listdir("/proc/self/fd"))) <= limit // 2
    held[-1][0] = -1
    assert [int(array.sum()) for array in held[:-1]] == [int(values.loads_file(path).sum())] * 99


def test_more_pieces_than_one_system_call_takes(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    value = [numpy.full(10, i) for i in range(3000)]
    loaded = values.loads_file(store(tmp_path, value))
    assert all((a == b).all() for a, b in zip(value, loaded, strict=True))


def test_a_strided_array_comes_back(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100).reshape(10, 10)[::2, ::3]
    assert (values.loads_file(store(tmp_path, array)) == array).all()


class Counted:
    """Counts how often it is pickled."""

    pickled = 0

    def __init__(self, held: object) -> None:
        self.held = held

    def __reduce__(self) -> tuple[object, ...]:
        type(self).pickled += 1
        return Counted, (self.held,)


def test_a_small_value_is_its_pickle_alone_and_is_pickled_once() -> None:
    numpy = pytest.importorskip("numpy")
    Counted.pickled = 0
    data, buffers = values.dumps(Counted(numpy.arange(10)), 1000)
    assert buffers == []
    assert Counted.pickled == 1
    held = values.loads_inline(data).held
    held += 1
    assert held.tolist() == list(range(1, 11))


def test_what_does_not_fit_within_goes_out_of_band() -> None:
    numpy = pytest.importorskip("numpy")
    assert values.dumps(numpy.zeros(10), 79)[1] != []
    data, buffers = values.dumps([numpy.zeros(count) for count in (10, 1000, 10, 10)], 170)
    assert [buffer.nbytes for buffer in buffers] == [8000, 80]
    assert len(data) < 500


def test_a_small_lambda_with_an_array_is_its_pickle_alone() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(5)
    data, buffers = values.dumps(lambda: array, 4000)
    assert buffers == []
    assert values.loads_inline(data)().tolist() == [0, 1, 2, 3, 4]


def test_lambdas_are_carried_by_cloudpickle() -> None:
    data, _ = values.dumps(lambda x: x + 1)
    assert values.loads_inline(data)(1) == 2


def test_what_cannot_be_pickled_is_said() -> None:
    with pytest.raises(values.UnpicklableError, match="generator"):
        values.dumps(i for i in range(3))


@pytest.mark.parametrize("content", [b"", b"short", b"gvvalue2" + bytes(40), b"gvvalue1" + b"\xff" * 40])
def test_rubbish_is_not_a_value_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value"
    path.write_bytes(content)
    with pytest.raises(values.DamagedValueError):
        values.loads_file(str(path))


def test_a_file_cut_short_is_found_out(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    path = store(tmp_path, numpy.ones(1000))
    os.truncate(path, 4000)
    with pytest.raises(values.DamagedValueError, match="cut short"):
        values.loads_file(path)

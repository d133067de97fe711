from __future__ import annotations

import copyreg
import pickle
import sys

import pytest

from graphvine.protocol import payload
from graphvine.protocol.failures import describe, pickle_error


class DemandingError(Exception):
    """Pickles, and does not unpickle: its constructor wants two arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class WordyError(Exception):
    """Unpickles with the wrong message."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")


class FileError(OSError):
    """Of a kind with a constructor of its own."""

    def __init__(self, path: str, line: int) -> None:
        super().__init__(2, f"line {line}", path)
        self.line = line


class SilentError(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


def raised(function: object, *arguments: object) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        payload.run((function, arguments, ()), ())  # type: ignore[arg-type]
    error = caught.value
    # As in an executor: the frames above ours are not there.
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    return error


def divide(x: int) -> float:
    return x / 0


def test_the_text_begins_at_the_users_first_frame() -> None:
    text = describe(raised(divide, 1))
    assert "payload.py" not in text
    assert text.splitlines()[0] == "Traceback (most recent call last):"
    assert "in divide" in text.splitlines()[1]
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_a_call_that_fails_before_any_user_frame_still_has_its_message() -> None:
    assert "TypeError: divide() missing 1 required positional argument" in describe(raised(divide))


def test_causes_are_told() -> None:
    def outer() -> None:
        try:
            divide(1)
        except ZeroDivisionError as error:
            raise RuntimeError("outer") from error

    text = describe(raised(outer))
    assert "ZeroDivisionError" in text
    assert "direct cause" in text


def test_an_exception_without_a_working_str_is_described() -> None:
    assert "SilentError" in describe(SilentError())


def test_text_is_always_valid_unicode_and_bounded() -> None:
    text = describe(ValueError("\udc80" + "x" * 10**6))
    text.encode()
    assert len(text) < 200_000


def test_exceptions_travel() -> None:
    error = pickle.loads(pickle_error(KeyError("k")))
    assert isinstance(error, KeyError)
    assert error.args == ("k",)


def test_local_classes_travel_by_value() -> None:
    class LocalError(Exception):
        pass

    again = pickle.loads(pickle_error(LocalError("text")))
    assert type(again).__name__ == "LocalError"
    assert again.args == ("text",)


@pytest.fixture
def own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other packages (tblib) teach every exception to be unpickled."""
    for kind in (DemandingError, WordyError, FileError):
        monkeypatch.delitem(copyreg.dispatch_table, kind, raising=False)


@pytest.mark.parametrize("error", [DemandingError(1, 2), WordyError("a"), FileError("a", 3)])
@pytest.mark.usefixtures("own_ways")
def test_exceptions_whose_constructors_make_the_message_arrive_as_themselves(error: Exception) -> None:
    error.extra = [1]  # type: ignore[attr-defined]
    again = pickle.loads(pickle_error(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert again.__dict__ == error.__dict__


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are groups from Python 3.11 on")
@pytest.mark.usefixtures("own_ways")
def test_groups_of_such_exceptions_do_so_too() -> None:
    group = ExceptionGroup("two", [DemandingError(1, 2), ExceptionGroup("inner", [WordyError("a")])])  # noqa: F821
    again = pickle.loads(pickle_error(group))
    assert [str(one) for one in again.exceptions] == ["1 and 2", "inner (1 sub-exception)"]
    assert str(again.exceptions[1].exceptions[0]) == "no a"


@pytest.mark.usefixtures("own_ways")
def test_what_it_holds_must_be_picklable() -> None:
    error = DemandingError(1, 2)
    error.extra = open  # type: ignore[attr-defined]
    assert pickle_error(error) != b""
    error.extra = (x for x in ())  # type: ignore[attr-defined]
    assert pickle_error(error) == b""


def test_a_message_that_is_too_long_still_has_its_name() -> None:
    last = describe(ValueError("x" * 10**6)).splitlines()[-1]
    assert last.startswith("ValueError: xxx")
    assert len(last) < 10_000


def test_what_cannot_be_pickled_or_is_huge_is_not_sent() -> None:
    assert pickle_error(ValueError(open)) != b""
    assert pickle_error(ValueError(x for x in ())) == b""
    assert pickle_error(ValueError(bytes(5 * 2**20))) == b""

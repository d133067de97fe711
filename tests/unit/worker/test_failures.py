from __future__ import annotations

import copyreg
import pickle

import pytest

from graphvine.protocol import payload
from graphvine.worker.failures import describe, pickle_error


class DemandingError(Exception):
    """Pickles, and does not unpickle: its constructor wants two arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


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


def test_what_would_not_unpickle_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other packages (tblib) teach every exception to be unpickled.
    monkeypatch.delitem(copyreg.dispatch_table, DemandingError, raising=False)
    assert pickle_error(DemandingError(1, 2)) == b""


def test_what_cannot_be_pickled_or_is_huge_is_not_sent() -> None:
    assert pickle_error(ValueError(open)) != b""
    assert pickle_error(ValueError(x for x in ())) == b""
    assert pickle_error(ValueError(bytes(5 * 2**20))) == b""

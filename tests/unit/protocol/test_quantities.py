"""Sizes, times and ports as people write them."""

from __future__ import annotations

import pytest

from graphvine.protocol.quantities import parse_mb, parse_port, parse_s


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("8000", 8000.0),
        ("0", 0.0),
        (" 8 GB ", 8192.0),
        ("8GiB", 8192.0),
        ("8g", 8192.0),
        ("1.5TB", 1.5 * 2**20),
        (".5M", 0.5),
        ("512KB", 0.5),
        ("1048576B", 1.0),
    ],
)
def test_sizes(text: str, megabytes: float) -> None:
    assert parse_mb(text) == megabytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7200", 7200.0),
        ("0", 0.0),
        ("2h", 7200.0),
        ("90 min", 5400.0),
        ("1.5m", 90.0),
        ("1d", 86400.0),
        ("1w", 604800.0),
        ("01:30:00", 5400.0),
        ("1-12:00:00", 129600.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_s(text) == seconds


@pytest.mark.parametrize("text", ["", "much", "5XB", "5 B B", "-3", "1e3", "GB", "9" * 400, "5ib ib"])
def test_what_is_no_size_is_quoted_whole(text: str) -> None:
    with pytest.raises(ValueError, match="is no size: write 8000") as wrong:
        parse_mb(text)
    assert str(wrong.value).startswith(repr(text))


@pytest.mark.parametrize("text", ["", "long", "2:30", "-3", "1e3", "2x", "nan"])
def test_what_is_no_time_is_quoted_whole(text: str) -> None:
    with pytest.raises(ValueError, match="is no time: write 7200") as wrong:
        parse_s(text)
    assert str(wrong.value).startswith(repr(text))


def test_ports() -> None:
    assert (parse_port("1"), parse_port("65535")) == (1, 65535)
    for text in ("0", "65536", "99999999", "-1", "", "http", "1.0", "¹"):
        with pytest.raises(ValueError, match="they go from 1 to 65535"):
            parse_port(text)

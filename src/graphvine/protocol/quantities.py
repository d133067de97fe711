"""Sizes, times and ports as people write them on command lines, in configuration files and in scripts.

Megabytes are 2**20 bytes and gigabytes 1024 of them, as in HTCondor and Slurm. A number alone is megabytes,
or seconds. What makes no sense is a ValueError that quotes what was written and says what may be.
"""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.IGNORECASE)
_MB_OF = {"": 1.0, "b": 2.0**-20, "k": 2.0**-10, "m": 1.0, "g": 2.0**10, "t": 2.0**20}
_S_OF = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
#: Hours, minutes and seconds, all three: "2:30" is hours to some and minutes to others.
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")
_MOST_PORT = 65535


def parse_mb(text: str) -> float:
    """Megabytes: "8000", "8GB", "8 GiB", "500M", "0". Raises ValueError."""
    megabytes = _quantity(text, _MB_OF, shorten=True)
    if megabytes is None:
        raise ValueError(f"{text!r} is no size: write 8000 (in MB), '500MB' or '8GB'")
    return megabytes


def parse_s(text: str) -> float:
    """Seconds: "7200", "2h", "90 min", "1d", "01:30:00", "1-12:00:00", "0". Raises ValueError."""
    clock = _CLOCK.fullmatch(text.strip())
    if clock is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return ((days * 24.0 + hours) * 60 + minutes) * 60 + seconds
    found = _quantity(text, _S_OF)
    if found is None:
        raise ValueError(f"{text!r} is no time: write 7200 (in seconds), '90m', '2h', '1d' or '01:30:00'")
    return found


def parse_port(text: str) -> int:
    """The number of a port that somebody may listen on. Raises ValueError."""
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= port <= _MOST_PORT:
        raise ValueError(f"{text!r} is no port: they go from 1 to {_MOST_PORT}")
    return port


def _quantity(text: str, units: dict[str, float], shorten: bool = False) -> float | None:
    """``shorten``: "GB" and "GiB" mean "G"."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    unit = match[2].lower()
    if shorten and len(unit) > 1:
        unit = unit.removesuffix("b").removesuffix("i")
    factor = units.get(unit)
    number = float(match[1]) * (math.nan if factor is None else factor)
    return number if math.isfinite(number) else None

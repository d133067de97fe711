"""What unit tests of several parts pretend of the system."""

from __future__ import annotations

import resource

import pytest


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files this process may have open, soft and hard: what is read of it, and set."""
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, new: limits.__setitem__(slice(None), new))
    return limits

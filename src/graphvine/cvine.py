"""TaskVine's constants: each is what the method or property that it is for gives or takes here.

So ``task.result == cvine.VINE_RESULT_SUCCESS`` and ``m.wait(cvine.VINE_WAIT_FOREVER)`` are what they look
like.
"""

from __future__ import annotations

from typing import Any

VINE_DEFAULT_PORT = 9123
VINE_RANDOM_PORT = 0
VINE_WAIT_FOREVER = "wait_forever"

_WORDS = {
    "RESULT": (
        "success",
        "input missing",
        "output missing",
        "stdout missing",
        "signal",
        "resource exhaustion",
        "max end time",
        "unknown",
        "forsaken",
        "max retries",
        "max wall time",
        "rmonitor error",
        "output transfer error",
        "fixed location missing",
        "cancelled",
        "library exit",
        "sandbox exhaustion",
        "missing library",
    ),
    "TASK": ("unknown", "initial", "ready", "running", "waiting retrieval", "retrieved", "done"),
    "SCHEDULE": ("unset", "fcfs", "files", "time", "rand", "worst", "disk", "max available disk"),
    "CACHE_LEVEL": ("task", "workflow", "worker", "forever"),
    "ALLOCATION_MODE": (
        "fixed",
        "max",
        "min waste",
        "max throughput",
        "greedy bucketing",
        "exhaustive bucketing",
    ),
    "LIBRARY_EXEC_MODE": ("direct", "fork"),
}
_KINDS = ("file", "url", "buffer", "temp")
_CONSTANTS = {f"VINE_{kind.upper()}": kind for kind in _KINDS} | {"VINE_MINI_TASK": "minitask"}
_CONSTANTS |= {
    f"VINE_{kind}_{word.upper().replace(' ', '_')}": word for kind, words in _WORDS.items() for word in words
}
__all__ = ["VINE_DEFAULT_PORT", "VINE_RANDOM_PORT", "VINE_WAIT_FOREVER", *_CONSTANTS]  # pyright: ignore


def __getattr__(name: str) -> Any:
    try:
        return _CONSTANTS[name]
    except KeyError:
        raise AttributeError(f"module 'graphvine.cvine' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_CONSTANTS})

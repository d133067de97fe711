"""The parameters of ``Manager.tune``: which of them mean something here, and which are only taken note of.
Pure."""

from __future__ import annotations

from collections.abc import Iterator

#: So many of the waiting tasks are looked at.
_LOOK = 100
_SLACK = 1e-6
#: What they are when nobody tunes. Those of ``EFFECTIVE`` are looked at; for the others there is nothing to
#: do.
DEFAULTS: dict[str, float] = {
    "attempt-schedule-depth": 100,
    "category-steady-n-tasks": 25,
    "default-transfer-rate": 1e6,
    "disconnect-slow-workers-factor": 0,
    "file-source-max-transfers": 8,
    "force-proportional-resources": 1,
    "force-proportional-resources-whole-tasks": 1,
    "foreman-transfer-timeout": 3600,
    "hungry-minimum": 10,
    "hungry-minimum-factor": 2,
    "immediate-recovery": 0,
    "keepalive-interval": 300,
    "keepalive-timeout": 30,
    "load-from-shared-filesystem": 0,
    "long-timeout": 3600,
    "max-library-retries": 20,
    "max-retrievals": 1,
    "min-transfer-timeout": 10,
    "monitor-interval": 5,
    "prefer-dispatch": 0,
    "proportional-resources": 1,
    "proportional-whole-tasks": 1,
    "ramp-down-heuristic": 0,
    "resource-submit-multiplier": 1,
    "sandbox-grow-factor": 2,
    "short-timeout": 5,
    "temp-replica-count": 0,
    "transfer-outlier-factor": 10,
    "transfer-replica-per-cycle": 1,
    "transfer-temps-recovery": 0,
    "transient-error-interval": 15,
    "wait-for-workers": 0,
    "wait-retrieve-many": 0,
    "watch-library-logfiles": 0,
    "worker-retrievals": 1,
    "worker-source-max-transfers": 10,
}
EFFECTIVE = frozenset(
    {"file-source-max-transfers", "hungry-minimum", "hungry-minimum-factor", "wait-for-workers"}
)
#: As the manual's own example spells it.
ALIASES = {"hungry-minumum": "hungry-minimum", "wait_retrieve_many": "wait-retrieve-many"}


class Tuning:
    """The values of one manager."""

    def __init__(self) -> None:
        self._values = dict(DEFAULTS)

    def set(self, name: str, value: float) -> bool:
        """False for a name that there is not, or a value that is no number."""
        name = ALIASES.get(name, name)
        if name not in self._values or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        self._values[name] = value
        return True

    def __getitem__(self, name: str) -> float:
        return self._values[name]


def hungry(asked: Iterator[float], unfinished: int, workers: int, cores: float, tuning: Tuning) -> int:
    """How many more tasks the manager would like to have; 0 when it has enough.

    ``asked``: cores of each unfinished task, in the order of submission, looked at as far as need be. As many
    of them as fit on all workers together run, the others wait. With workers, tasks like those that wait (or
    run, when none does) are to be there for ``hungry-minimum-factor`` times their cores."""
    if not workers:
        return max(0, round(tuning["hungry-minimum"]) - unfinished)
    running: list[float] = []
    waiting: list[float] = []
    taken = 0.0
    for one in asked:
        if not waiting and taken + one <= cores + _SLACK:
            running.append(one)
            taken += one
        elif len(waiting) < _LOOK:
            waiting.append(one)
        else:
            break
    like = waiting or running or [1.0]
    left = unfinished - len(running)
    room = tuning["hungry-minimum-factor"] * cores - taken
    most = int(room * len(like) / sum(like) + _SLACK) if sum(like) else 0
    return max(0, most - left, round(tuning["hungry-minimum"]) - left)

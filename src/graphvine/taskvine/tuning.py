"""The parameters of ``Manager.tune``: which of them mean something here, and which are only taken note of.
Pure."""

from __future__ import annotations

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
EFFECTIVE = frozenset({"file-source-max-transfers", "hungry-minimum", "hungry-minimum-factor"})
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


def hungry(waiting: int, workers: int, cores: float, tuning: Tuning) -> int:
    """How many more tasks the manager would like to have; 0 when it has enough."""
    wanted = max(tuning["hungry-minimum"], tuning["hungry-minimum-factor"] * max(workers, cores))
    return max(0, round(wanted) - waiting)

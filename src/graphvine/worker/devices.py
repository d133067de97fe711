"""Which executor has which GPUs. Pure: devices are numbers from 0, their names are the loop's (``gpus``).

- An executor is started for its devices and keeps them as long as it lives, idle or not: a process that has
  opened a device can't change to another one, and holds memory on it until it is gone.
- It has as many whole devices as its tasks ask for, or a share of one where they ask for less than one; no
  device is shared by more than add up to one.
- Devices of an executor that is being ended are free only when it is gone.
"""

from __future__ import annotations

import math

import msgspec

#: Shares are sums of floats.
_SLACK = 1e-9


class _Hold(msgspec.Struct):
    """What one executor has of its devices: all of each, or a share of one."""

    devices: tuple[int, ...]
    share: float
    going: bool = False


class Devices:
    """The devices that a worker offers."""

    def __init__(self, count: int) -> None:
        self._free = [1.0] * count
        """What nobody has of each."""
        self._holds: dict[int, _Hold] = {}

    def can_take(self, gpus: float) -> bool:
        """Whether an executor could have so much now."""
        return _choose(self._free, gpus) is not None

    def can_take_soon(self, gpus: float) -> bool:
        """... or when all are gone that are being ended."""
        free = list(self._free)
        for hold in self._holds.values():
            if hold.going:
                for device in hold.devices:
                    free[device] += hold.share
        return _choose(free, gpus) is not None

    def take(self, executor: int, gpus: float) -> tuple[int, ...]:
        """The devices that an executor has from now on; ``can_take`` has said that it can."""
        if gpus <= 0:
            return ()
        devices = _choose(self._free, gpus)
        assert devices is not None
        hold = self._holds[executor] = _Hold(devices, gpus if gpus < 1 - _SLACK else 1.0)
        for device in devices:
            self._free[device] -= hold.share
        return devices

    def let_go(self, executor: int) -> None:
        """An executor is being ended."""
        hold = self._holds.get(executor)
        if hold is not None:
            hold.going = True

    def give_back(self, executor: int) -> None:
        """An executor is gone."""
        hold = self._holds.pop(executor, None)
        if hold is not None:
            for device in hold.devices:
                self._free[device] += hold.share


def _choose(free: list[float], gpus: float) -> tuple[int, ...] | None:
    """Devices for a request: whole ones, or the fullest that has room for a share; None when there are
    none."""
    if gpus < 1 - _SLACK:
        room = [(left, device) for device, left in enumerate(free) if left >= gpus - _SLACK]
        return (min(room)[1],) if room else None
    count = math.ceil(gpus - _SLACK)
    whole = [device for device, left in enumerate(free) if left >= 1 - _SLACK]
    return tuple(whole[:count]) if len(whole) >= count else None

"""What tasks ask for: ``get``'s options and dask's annotations, as ``TaskOptions``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from numbers import Real
from typing import Any

import msgspec

from graphvine.dask_adapter.graph import Annotations
from graphvine.manager.plan import TaskOptions
from graphvine.protocol.messages import Resources

_RESOURCES = {"cores": "cores", "memory": "memory_mb", "disk": "disk_mb", "gpus": "gpus"}
#: Annotations that mean something here; others are for somebody else.
_KNOWN = ("priority", "retries", "workers", "resources", "allow_other_workers")


def as_resources(stated: Mapping[str, float] | Resources, base: Resources | None = None) -> Resources:
    """``{"cores": 2, "memory": 2000}`` (memory and disk in MB), on top of ``base``. Raises ValueError."""
    if isinstance(stated, Resources):
        return stated
    if not isinstance(stated, Mapping):
        raise ValueError(f'resources should be like {{"cores": 2, "memory": 2000}}, not {stated!r}')
    values: dict[str, float] = {}
    for name, amount in stated.items():
        field = _RESOURCES.get(name.lower()) if isinstance(name, str) else None
        if field is None:
            raise ValueError(f"unknown resource {name!r}; known are cores, memory (MB), disk (MB) and gpus")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < inf:
            raise ValueError(
                f"resource {name!r} should be a finite number that is not negative, not {amount!r}"
            )
        values[field] = float(amount)
    return msgspec.structs.replace(base or Resources(), **values)


def default_options(
    resources: Mapping[str, float] | Resources | None, retries: int | None, priority: int | None
) -> TaskOptions:
    """``get``'s own options. Raises ValueError."""
    return TaskOptions(
        request=as_resources(resources) if resources is not None else Resources(),
        retries=_whole("retries", retries) if retries is not None else 0,
        priority=_whole("priority", priority) if priority is not None else 0,
    )


class AnnotatedOptions:
    """Options of single keys; equal annotations make one object."""

    def __init__(self, annotations: Annotations, default: TaskOptions) -> None:
        self._annotations = {name: annotations[name] for name in _KNOWN if annotations.get(name)}
        self._default = default
        self._made: dict[str, TaskOptions] = {}

    def __bool__(self) -> bool:
        return bool(self._annotations)

    def of(self, key: Any) -> TaskOptions | None:
        """What ``key`` asks for beyond the default, or None. Raises ValueError."""
        stated = {name: per_key[key] for name, per_key in self._annotations.items() if key in per_key}
        if not stated:
            return None
        token = repr(stated)
        made = self._made.get(token)
        if made is None:
            made = self._made[token] = self._make(stated)
        return None if made == self._default else made

    def _make(self, stated: dict[str, Any]) -> TaskOptions:
        default = self._default
        changes: dict[str, Any] = {}
        for name in ("priority", "retries"):
            if stated.get(name) is not None:
                changes[name] = _whole(name, stated[name])
        if stated.get("workers"):
            changes["workers"] = _names(stated["workers"])
        if stated.get("allow_other_workers") is not None:
            changes["allow_other_workers"] = bool(stated["allow_other_workers"])
        if stated.get("resources"):
            changes["request"] = as_resources(stated["resources"], default.request)
        return msgspec.structs.replace(default, **changes)


def _names(workers: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(workers, str):
        return (workers,)
    names = tuple(workers) if isinstance(workers, Iterable) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"workers should be a worker's name or a list of names, not {workers!r}")
    return names


def _whole(name: str, value: Any) -> int:
    whole = not isinstance(value, bool) and isinstance(value, Real) and value == value // 1
    if not whole:
        raise ValueError(f"{name} should be a whole number, not {value!r}")
    if name == "retries" and value < 0:
        raise ValueError(f"retries should not be negative, but is {value!r}")
    return int(value)

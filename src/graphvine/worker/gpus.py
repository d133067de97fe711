"""The GPUs that a worker offers, by the names under which programs find them.

- Where the batch system has said which (``CUDA_VISIBLE_DEVICES`` and the like), it is those and no others, by
  its own names: numbers, ``GPU-...``, ``MIG-...``. Otherwise those that the machine has.
- A process is shown its devices by the same variables: each that was set for the worker is set for its
  executors, with the names at the same places; CUDA's (or ROCm's) where none was set.
- Executors without devices are shown none where devices were asked for (``--gpus N``, or as a batch job), so
  that what did not ask for one takes nothing of those who did. Other workers, such as the one that starts by
  itself, and those that offer none (``--gpus 0``), leave the variables as they are.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

_CUDA = "CUDA_VISIBLE_DEVICES"
_ROCR = "ROCR_VISIBLE_DEVICES"
_HIP = "HIP_VISIBLE_DEVICES"
#: What batch systems set. The longest list says how many there are.
VARIABLES = (_CUDA, _ROCR, _HIP, "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
#: No device has this name; an empty text is taken by some for "not set".
NONE = "-1"
#: How batch systems say that there is none: HTCondor by a number that no device has, Slurm by a word.
_NO_DEVICE = frozenset({"", NONE, "10000", "NoDevFiles", "none", "void"})
_ASK_S = 30.0
_LISTED = re.compile(r"^(\s*)(?:GPU|MIG)\b.*\(UUID:\s*([^)]+)\)\s*$", re.MULTILINE)


class Gpus(msgspec.Struct, frozen=True):
    """``names``: of all devices, for each variable by which they are shown."""

    names: dict[str, tuple[str, ...]] = {}
    counted_within: frozenset[str] = frozenset()
    """Variables whose numbers count only what another one has left."""
    shown_to_all: bool = False
    """Whether who asks for none sees all that the worker sees."""

    def __len__(self) -> int:
        return max(map(len, self.names.values()), default=0)

    def variables(self, devices: Sequence[int]) -> dict[str, str]:
        """What shows these devices to a process, and no others."""
        if not len(self) or (self.shown_to_all and not devices):
            return {}
        shown = {
            variable: ",".join(names[device] for device in devices) for variable, names in self.names.items()
        }
        shown |= dict.fromkeys(self.counted_within, ",".join(map(str, range(len(devices)))))
        return {variable: text or NONE for variable, text in shown.items()}

    def part(self, begin: int, end: int | None = None, step: int = 1) -> Gpus:
        """Some of them."""
        names = {variable: names[begin:end:step] for variable, names in self.names.items()}
        return msgspec.structs.replace(self, names=names)


def named(environment: Mapping[str, str]) -> Gpus | None:
    """The devices that environment variables name; None when they say nothing of devices."""
    told = {name: _split(environment[name]) for name in VARIABLES if name in environment}
    if not told:
        return None
    count = max(map(len, told.values()))
    # One of another length is about something else, and left as it is.
    alike = {name: names for name, names in told.items() if len(names) == count}
    within = {_HIP} if _ROCR in alike and _HIP in alike else set()
    return Gpus(alike, frozenset(within))


def _split(text: str) -> tuple[str, ...]:
    """The names up to the first that is none, as CUDA reads it."""
    names: list[str] = []
    for name in map(str.strip, text.split(",")):
        if name in _NO_DEVICE:
            break
        names.append(name)
    return tuple(names)


def found(root: Path = Path("/")) -> Gpus:
    """The devices that the machine has: NVIDIA's, else AMD's."""
    count = sum(1 for path in (root / "dev").glob("nvidia*") if path.name[len("nvidia") :].isdigit())
    if count:
        # The tool takes a second or more where nothing keeps the driver awake: only for what it alone tells.
        is_partitioned = any((root / "proc/driver/nvidia/capabilities").glob("gpu*/mig/gi*"))
        return Gpus({_CUDA: (_ask_nvidia() if is_partitioned else ()) or _numbers(count)})
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id")
    amd = sum(1 for node in nodes if _read(node) not in ("", "0"))
    return Gpus({_ROCR: _numbers(amd)}) if amd else Gpus()


def _ask_nvidia() -> tuple[str, ...]:
    """Names by the driver's own tool, which knows of partitions."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_ASK_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_listed(done.stdout) if done.returncode == 0 else ()


def parse_listed(text: str) -> tuple[str, ...]:
    """Names by ``nvidia-smi -L``. Of a device that is partitioned its partitions, which stand below it."""
    names: list[str] = []
    whole = ""
    for indent, name in _LISTED.findall(text):
        if not indent:
            whole = name
        elif names and names[-1] == whole:
            names.pop()
        names.append(name.strip())
    return tuple(names)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def offered(stated: float | None, place: int = 0, places: int = 1, *, in_job: bool = False) -> Gpus:
    """The devices that a worker offers, of which it was stated how many, or not; as the one at this place
    among several on this machine. Where it is not known which there are, those stated are counted.
    ``in_job``: the worker is a batch job."""
    gpus = Gpus() if stated == 0 else named(os.environ)
    if gpus is None:
        gpus = found()
        if stated and not len(gpus):
            gpus = Gpus({_CUDA: _numbers(math.ceil(stated) * max(places, place + 1))})
    if stated is None:
        mine = gpus.part(place, None, places)
        return msgspec.structs.replace(mine, shown_to_all=not in_job)
    count = math.ceil(stated)
    return gpus.part(place * count, (place + 1) * count)

"""Packing and unpacking an environment, against plain tar and zstd on the same files in the same run.

- pack: everything (asking Python, the merged tree, libraries, bytecode, tar, zstd -3) against `tar | zstd -3
  -T0` of the directory as it is, which gives no environment that would run anywhere else.
- unpack: everything (checks, the files, starting its Python) against `zstd -d | tar -x` of the same archive.
- again: packing once more what has not changed, in seconds.

In memory (--directory), so that disks have no say. Run: python benchmarks/env_pack.py [PREFIX] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from harness import Row, emit

from graphvine.envs.packing import pack
from graphvine.envs.unpack import unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", nargs="?", default=sys.prefix)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/dev/shm")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        os.environ["GRAPHVINE_CACHE_DIR"] = directory
        times: dict[str, list[float]] = {name: [] for name in ("pack", "tar", "again", "unpack", "untar")}
        pack(given.prefix)  # what both read is in memory now
        for _ in range(given.rounds):
            one_round(given.prefix, directory, times)
        emit(*rows(times, given.prefix, directory))


def one_round(prefix: str, directory: str, times: dict[str, list[float]]) -> None:
    """Each contender once, one after the other."""

    def timed(name: str, action: Callable[[], object]) -> None:
        began = time.perf_counter()
        action()
        times[name].append(time.perf_counter() - began)

    plain = os.path.join(directory, "plain.tar.zst")
    shutil.rmtree(os.path.join(directory, "packed"))
    timed("tar", lambda: shell(f"tar -C '{prefix}' -cf - . | zstd -q -f -3 -T0 -o '{plain}'"))
    timed("pack", lambda: pack(prefix))
    timed("again", lambda: pack(prefix))
    packed = pack(prefix)
    target = os.path.join(directory, "plain")
    os.mkdir(target)
    timed("untar", lambda: shell(f"zstd -q -dc '{packed.path}' | tar -C '{target}' -xf -"))
    shutil.rmtree(target)
    timed("unpack", lambda: unpack(packed.path, packed.name))
    shutil.rmtree(os.path.join(directory, packed.name))
    os.unlink(os.path.join(directory, f"{packed.name}.json"))


def shell(command: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)


def rows(times: dict[str, list[float]], prefix: str, directory: str) -> list[Row]:
    median = {name: statistics.median(found) for name, found in times.items()}
    archive = pack(prefix)
    sizes = {
        "archive MB": round(archive.size / 1e6),
        "plain MB": round(os.path.getsize(os.path.join(directory, "plain.tar.zst")) / 1e6),
    }
    seconds = {name: round(value, 2) for name, value in median.items()}
    return [
        Row(
            "env_pack", "pack, over tar + zstd", median["tar"] / median["pack"], "", "", {**seconds, **sizes}
        ),
        Row("env_pack", "unpack, over zstd + tar", median["untar"] / median["unpack"], "", "", {}),
        Row("env_pack", "packing again", median["again"], "", "", {}, "s", True),
    ]


if __name__ == "__main__":
    main()

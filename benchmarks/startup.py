"""From nothing to the first result: import, manager, one task; against import, cluster, client, one task."""

from __future__ import annotations

import statistics
import subprocess
import sys

from harness import CORES, QUICK, Row, emit, say

OURS = f"""
from time import perf_counter
began = perf_counter()
import graphvine
manager = graphvine.Manager(local_workers={CORES})
assert manager.get({{"a": (len, (1, 2))}}, "a") == 2
print(perf_counter() - began)
manager.close()
"""

PEER = f"""
from time import perf_counter
if __name__ == "__main__":
    began = perf_counter()
    from dask.distributed import Client, LocalCluster
    cluster = LocalCluster(n_workers={CORES}, threads_per_worker=1, dashboard_address=None)
    client = Client(cluster)
    assert client.get({{"a": (len, (1, 2))}}, "a") == 2
    print(perf_counter() - began)
    client.close()
    cluster.close()
"""


def seconds(script: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    pairs = [(seconds(OURS), seconds(PEER)) for _ in range(1 if QUICK else 7)]
    ours, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
    say(f"graphvine {ours:.2f} s, distributed {peer:.2f} s")
    what = "import + Manager + first result, vs LocalCluster + Client + first result"
    emit(
        Row("startup", what, peer / ours, "4x", "10x", {"seconds": {"graphvine": ours, "distributed": peer}})
    )


if __name__ == "__main__":
    main()

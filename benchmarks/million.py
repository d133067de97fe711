"""A million no-op tasks in one graph: whether the rate holds, and what the manager needs for each.

Memory is the growth of the manager's process from before ``get``, with the graph in memory, to the highest it
was until ``get`` returned.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

from graphs import increments
from harness import CORES, QUICK, Row, emit, graphvine, say, timed

#: With the sums it is a little over a million.
LARGE, SMALL = (50_000 if QUICK else 937_500), 10_000


def status_kb(field: str) -> int:
    """A figure of /proc/self/status, in kB."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def one_run() -> dict[str, float]:
    """Both graphs on one manager, in this process."""
    with graphvine(CORES).open() as get:
        rates = []
        for number in range(6):
            graph, key = increments(SMALL, number)
            seconds = timed(lambda graph=graph, key=key: get(graph, key))  # type: ignore[misc]
            rates.append(len(graph) / seconds)
        graph, key = increments(LARGE, "large")
        before = status_kb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        result: list[int] = []
        seconds = timed(lambda: result.append(get(graph, key)))
        assert result == [LARGE * (LARGE + 1) // 2], result
        bytes_each = (status_kb("VmHWM") - before) * 1024 / len(graph)
        return {
            "tasks": len(graph),
            "small": statistics.median(rates[1:]),
            "large": len(graph) / seconds,
            "bytes": bytes_each,
        }


def main() -> None:
    runs = []
    for _ in range(1 if QUICK else 3):
        # A process of its own each: memory that was used before is memory that does not grow.
        command = [sys.executable, __file__, "--one"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        say(f"{runs[-1]['large']:,.0f} tasks/s, {runs[-1]['bytes']:,.0f} bytes a task")
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    share = statistics.median(run["large"] / run["small"] for run in runs)
    rates = {"tasks/s": {"10,669 tasks": round(middle["small"]), "a million": round(middle["large"])}}
    tasks = f"{middle['tasks']:,.0f} no-op tasks"
    emit(
        Row(
            "million_rate",
            f"{tasks}: rate, as a share of the 10,669-task graph's",
            share,
            "0.7",
            "0.9",
            rates,
            "",
        ),
        Row(
            "million_memory",
            f"{tasks}: manager memory, kB a task",
            middle["bytes"] / 1000,
            "2",
            "1",
            {},
            " kB",
            smaller_is_better=True,
        ),
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--one"]:
        print(json.dumps(one_run()))
    else:
        main()

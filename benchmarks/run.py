"""Runs benchmarks, each in a process of its own, and prints the table.

    python benchmarks/run.py                     all that this environment can run
    python benchmarks/run.py noop_graph stencil  some
    python benchmarks/run.py --quick             to see that they work, not to quote

``taskset -c 0,1 python benchmarks/run.py`` measures on two cores. The rows go to ``benchmarks/results``
as JSON, too. The ADL ones need the ``hep`` extra, the others ``bench``. Whatever a benchmark leaves behind is
ended and reported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent

#: What each needs to be importable.
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "noop_graph": ("distributed",),
    "stencil": ("distributed",),
    "gil_tasks": ("distributed",),
    "large_arrays": ("distributed", "numpy"),
    "collections_1gb": ("distributed", "pandas", "pyarrow"),
    "kinds": ("distributed", "numpy"),
    "startup": ("distributed",),
    "million": (),
    "adl_payload": ("coffea", "dask_awkward", "hist"),
    "adl_run": ("coffea", "dask_awkward", "hist", "distributed"),
    "env_overhead": ("coffea", "hist"),
    "commands": (),
    "tasks_rate": (),
    "vs_parsl": ("parsl",),
    "core_cost": (),
    "peer_rate": (),
    "many_workers": (),
    "relay": (),
    "spread": (),
    "env_pack": (),
}


def main() -> int:
    options = arguments()
    rows, failed = [], []
    for name in options.names or runnable():
        print(f"{name}:", file=sys.stderr, flush=True)
        code, found = run_one(name, options.quick, options.timeout)
        rows += found
        if code != 0:
            failed.append(name)
            print(f"  FAILED ({code})", file=sys.stderr)
    if rows:
        path = save(rows)
        print(f"\n{table(rows)}\n\nsaved: {path}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def runnable() -> list[str]:
    """The benchmarks that are there and have what they need; says which are left out."""
    chosen = []
    for name, needs in BENCHMARKS.items():
        missing = [module for module in needs if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{name}: left out, needs {', '.join(missing)}", file=sys.stderr)
        elif (HERE / f"{name}.py").exists():
            chosen.append(name)
    return chosen


def run_one(name: str, quick: bool, timeout_s: float) -> tuple[int | str, list[dict[str, Any]]]:
    """Run one benchmark in a session of its own. Returns its exit code and its rows."""
    environment = os.environ | ({"GRAPHVINE_BENCH_QUICK": "1"} if quick else {})
    marker = f"{os.getpid()}-{time.time_ns()}"
    environment["GRAPHVINE_BENCH_RUN"] = marker
    process = subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    code: int | str
    try:
        out, _ = process.communicate(timeout=timeout_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        code = f"not done after {timeout_s:g} s"
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        end_leftovers(marker)
        raise
    rows = [json.loads(line)["row"] for line in out.splitlines() if line.startswith('{"row"')]
    for line in out.splitlines():
        if not line.startswith('{"row"'):
            print(f"  {line}", file=sys.stderr)
    left = end_leftovers(marker)
    if left:
        print(f"  left processes behind, ended: {'; '.join(left)}", file=sys.stderr)
    return code, rows


def end_leftovers(marker: str) -> list[str]:
    """End every process that was started by this run; they all carry its marker in their environment."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GRAPHVINE_BENCH_RUN") != marker:
                continue
            left.append(" ".join(process.cmdline())[:100])
            process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return left


def save(rows: list[dict[str, Any]]) -> Path:
    directory = HERE / "results"
    directory.mkdir(exist_ok=True)
    path = directory / time.strftime("%Y%m%d-%H%M%S.json")
    versions = {name: version_of(name) for name in ("dask", "distributed", "graphvine", "coffea")}
    about = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    } | versions
    path.write_text(json.dumps({"about": about, "rows": rows}, indent=1))
    return path


def version_of(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| what | measured | must | aim | cores | details |", "|---|---|---|---|---|---|"]
    for row in rows:
        value = f"{row['value']:.3g}{row['unit']}"
        quick = " (quick)" if row["quick"] else ""
        lines.append(
            f"| {row['what']} | **{value}**{quick} | {row['must']} | {row['aim']} | {row['cores']} "
            f"| {describe(row['details'])} |"
        )
    return "\n".join(lines)


def describe(details: dict[str, Any]) -> str:
    parts = []
    for unit, values in details.items():
        if isinstance(values, dict):
            parts.append(
                f"{unit}: "
                + ", ".join(
                    f"{name} {number:,.3g}" if isinstance(number, float) else f"{name} {number:,}"
                    for name, number in values.items()
                )
            )
        else:
            parts.append(f"{unit}: {values:,}")
    return "; ".join(parts)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], help="which (default: all that can run)"
    )
    parser.add_argument("--quick", action="store_true", help="one small round each")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for each benchmark")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

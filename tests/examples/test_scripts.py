"""The short examples run as they stand and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

CASES = {
    "arrays.py": ("dask.array", "["),
    "chain.py": (None, "the largest number is 80000"),
    "cluster.py": (None, "pi is about 3.14"),
    "commands.py": (None, "largest with a 7: 997"),
    "dataframes.py": ("dask.dataframe", "1,209,600 rows"),
    "delayed.py": (None, "17,984 primes below 200,000"),
    "environment.py": ("conda_pack", "a function says 84"),
    "executor.py": (None, "letters in common:"),
    "functions.py": (None, "squares: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"),
    "futures.py": (None, "(2,000,000 throws)"),
    "persist.py": ("dask.array", "correlation"),
    "url.py": (None, "u: 16 times"),
}


def test_every_script_is_tested_and_listed():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(CASES)
    page = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}]({name})" in page for name in scripts)


@pytest.mark.parametrize("name", sorted(CASES))
def test_script(name, tmp_path):
    needs, promise = CASES[name]
    if needs:
        pytest.importorskip(needs)
    # In a directory of its own: nothing may depend on being run from the repository.
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert promise in done.stdout
    assert done.stderr == ""


def test_the_example_in_the_readme(tmp_path):
    pytest.importorskip("dask.array")
    page = (EXAMPLES.parent / "README.md").read_text()
    # The others need what not every machine has: a batch system.
    code, *_ = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    script = tmp_path / "readme.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
    assert done.stderr == ""

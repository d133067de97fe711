"""Processes of ours with the same interpreter: what a user has set or written must not get in their way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphvine import __version__
from graphvine.protocol.interpreter import calling, own_environment


@pytest.mark.parametrize("safe", ["", "1"])
def test_a_users_files_are_not_taken_for_modules(tmp_path: Path, safe: str) -> None:
    (tmp_path / "argparse.py").write_text("raise ImportError('not this one')\n")
    done = subprocess.run(
        [sys.executable, "-c", calling("graphvine.cli", "main"), "--version"],
        cwd=tmp_path,
        env=own_environment() | {"PYTHONSAFEPATH": safe},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"graphvine {__version__}"


def test_this_very_graphvine_is_found() -> None:
    code = "import graphvine; print(graphvine.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=own_environment(), capture_output=True, text=True, check=True
    )
    import graphvine

    assert os.path.samefile(done.stdout.strip(), graphvine.__file__ or "")

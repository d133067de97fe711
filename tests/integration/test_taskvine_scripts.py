"""Scripts for TaskVine run with nothing but their import line changed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

from tests.web import Handler, Source, source

__all__ = ["source"]

SCRIPTS = Path(__file__).parent / "taskvine_scripts"


def run(tmp_path: Path, name: str, *arguments: str) -> str:
    """The output of a script of whose lines one is another."""
    text = (SCRIPTS / name).read_text()
    changed = text.replace("import ndcctools.taskvine as vine", "import graphvine as vine")
    assert sum(a != b for a, b in zip(text.splitlines(), changed.splitlines(), strict=True)) == 1
    (tmp_path / name).write_text(changed)
    environment = os.environ | {"GRAPHVINE_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_quick_start(tmp_path: Path, source: Source):
    text = b"a house\nby the water\na needle\nwater\n" * 1000
    source.answers["/book"] = lambda handler: handler.say(200, text, ETag='"1"')
    output = run(tmp_path, "quickstart.py", source.url("/book"))
    assert "All tasks done: 4000 lines." in output


def test_a_program_from_a_package_compares_texts(tmp_path: Path, source: Source):
    program = tmp_path / "software" / "bin" / "similar"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\ncat $1 $2 | sort | uniq -d | wc -l\n")
    program.chmod(0o755)
    with tarfile.open(tmp_path / "package.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "software" / "bin", "bin")
    for number in range(4):
        lines = "".join(f"{line}\n" for line in range(number * 100, 1000)).encode()
        source.answers[f"/{number}"] = partial(Handler.say, status=200, data=lines)
    urls = ",".join(source.url(f"/{number}") for number in range(4))
    output = run(tmp_path, "compare.py", urls, str(tmp_path / "package.tar.gz"), str(tmp_path / "results"))
    assert "answers: 700,700,700,800,800,900" in output
    assert [int((tmp_path / "results" / f"{number}.txt").read_text()) for number in range(6)] == [
        900, 800, 700, 800, 700, 700,
    ]  # fmt: skip
    assert sum(method == "GET" for method, _, _ in source.seen) == 4

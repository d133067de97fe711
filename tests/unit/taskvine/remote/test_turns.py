"""Who reads from a source at the same time as others."""

from __future__ import annotations

import subprocess
import sys
import threading

from graphvine.taskvine.remote.turns import turn


def test_no_more_than_so_many_at_once(tmp_path):
    cache, came = str(tmp_path / "cache"), threading.Event()

    def third() -> None:
        with turn("host:1", 2, cache):
            came.set()

    with turn("host:1", 2, cache), turn("host:1", 2, cache):
        thread = threading.Thread(target=third)
        thread.start()
        with turn("host:2", 1, cache):
            assert not came.is_set()
        assert not came.is_set()
        # Which of the two it waits for is chance.
    thread.join(20)
    assert came.is_set()


def test_a_turn_ends_with_its_process(tmp_path):
    cache = str(tmp_path / "cache")
    script = (
        "import sys, time\n"
        "from graphvine.taskvine.remote.turns import turn\n"
        f"with turn('host', 1, {cache!r}):\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"in\n"
        other.kill()
        with turn("host", 1, cache):
            pass


def test_without_locks_nobody_waits(tmp_path, caplog):
    (tmp_path / "cache").write_text("no directory")
    with turn("host", 1, str(tmp_path / "cache")):
        pass
    assert "how many read from host at a time is not seen to" in caplog.text

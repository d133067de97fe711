from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from graphvine.protocol.directories import OwnedDirectory, sweep


def test_it_is_private_and_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    directory = OwnedDirectory(str(tmp_path))
    path = Path(directory.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (path / "file").write_text("x")
    directory.remove()
    directory.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_leaves_what_is_owned_and_takes_what_a_killed_process_left(tmp_path: Path) -> None:
    mine = OwnedDirectory(str(tmp_path))
    script = (
        "import sys, time\n"
        "from graphvine.protocol.directories import OwnedDirectory\n"
        "directory = OwnedDirectory(sys.argv[1])\n"
        "open(directory.path + '/file', 'w').close()\n"
        "print(directory.path, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        theirs = owner.stdout.readline().decode().strip()
        assert sweep(str(tmp_path)) == []
        assert os.path.exists(theirs)
        owner.send_signal(signal.SIGKILL)
    assert sweep(str(tmp_path)) == [theirs]
    assert [str(path) for path in tmp_path.iterdir()] == [mine.path]
    mine.remove()


def test_a_sweep_spares_what_is_not_ours_or_just_being_made(tmp_path: Path) -> None:
    (tmp_path / "graphvine-elsewhere").mkdir()
    just_made = OwnedDirectory(str(tmp_path))
    os.unlink(f"{just_made.path}/.lock")
    assert sweep(str(tmp_path)) == []
    assert os.path.exists(just_made.path)
    just_made.remove()

"""The front of a real archive: a worker starts from that alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.integration.test_failures import wait_for

from graphvine import Manager
from graphvine.envs import cache as caches
from graphvine.envs.cache import Place
from graphvine.envs.front import end_of


def test_a_worker_joins_from_the_front_and_needs_the_rest_for_tasks(packed: Path, tmp_path: Path) -> None:
    first = end_of(str(packed))
    assert 0 < first < packed.stat().st_size / 2
    place = Place(str(tmp_path / "cache"), "env-1")
    os.makedirs(place.path, mode=0o700)
    with open(packed, "rb") as archive:
        subprocess.run(
            ["tar", "-xzf", "-", "-C", place.path],
            input=archive.read(first),
            check=True,
            stderr=subprocess.PIPE,
        )
    assert not list(Path(place.path).glob("lib/python*/site-packages/dask"))
    held = caches.lock(place, exclusive=True)
    with Manager(local_workers=0, host="127.0.0.1") as manager:
        command = [
            *(
                f"{place.path}/bin/python",
                "-m",
                "graphvine.worker",
                "--cores",
                "1",
                "--workdir",
                str(tmp_path),
            ),
            *("--connection-file", manager.connection_file),
            *("--rest", str(packed), str(first), place.path, place.path, "", ""),
        ]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as worker:
            try:
                wait_for(lambda: manager.counts().workers == 1 or worker.poll() is not None)
                assert worker.poll() is None, worker.communicate()[1]
                # Who had begun is gone.
                os.close(held)
                made = manager.executor().submit(__import__, "dask")
                assert made.result(60).__name__ == "dask"
            finally:
                manager.close()
                worker.wait(30)
    marker = place.read()
    assert marker is not None
    assert marker.files > 1000

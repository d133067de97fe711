"""The class that users hold costs next to nothing to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from graphvine.deploy.cluster import SlurmCluster
from graphvine.manager.manager import Manager


def test_the_class_is_there_before_what_it_is_made_of() -> None:
    # The embedded worker is launched first, and gets ready while these are imported.
    heavy = ["asyncio", "cloudpickle", "concurrent.futures", "dask", "logging", "msgspec", "psutil", "zmq"]
    code = f"import sys, graphvine; graphvine.Manager; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_option_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(TypeError, match=r"no option prot; there are: port, name, .*cluster.*, ssl, run_info"):
        Manager(prot=9123)


@pytest.mark.parametrize("cluster", ["slurm", SlurmCluster])
def test_what_is_no_cluster_is_told_how_to_make_one(cluster: object) -> None:
    with pytest.raises(
        TypeError, match=r"cluster='?[sS]lurm.*: make one first, such as graphvine.SlurmCluster"
    ):
        Manager(cluster=cluster)  # type: ignore[arg-type]

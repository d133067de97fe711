"""The class that users hold costs next to nothing to import."""

from __future__ import annotations

import subprocess
import sys


def test_the_class_is_there_before_what_it_is_made_of() -> None:
    # The embedded worker is launched first, and gets ready while these are imported.
    heavy = ["asyncio", "cloudpickle", "concurrent.futures", "dask", "logging", "msgspec", "psutil", "zmq"]
    code = f"import sys, graphvine; graphvine.Manager; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

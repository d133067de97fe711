"""An environment that is sent along: packed once, unpacked once on every node, found there the next time.

This one is small and made here. ``pack("current")`` packs the one that you are in.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import graphvine as vine
from graphvine.envs import pack


def make_environment(directory):
    """A virtual environment with one module that is nowhere else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    (packages,) = Path(directory).glob("lib/python3*/site-packages")
    (packages / "answers.py").write_text("ANSWER = 42\n")


def double(x):
    import answers

    return x * answers.ANSWER


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        make_environment(f"{root}/venv")
        packed = pack(f"{root}/venv", f"{root}/packed.tar.zst")

        with vine.Manager() as m:
            environment = m.declare_environment(m.declare_file(packed.path, cache=True), cache=True)
            task = vine.Task("python -c 'import answers; print(answers.ANSWER)'", cores=1)
            task.add_environment(environment)
            m.submit(task)
            while not m.empty():
                if done := m.wait(5):
                    print(f"a command says {done.output.strip() or done.reason}")

            # Functions and dask graphs are given the archive itself.
            with m.executor(environment=packed.path) as executor:
                print(f"a function says {executor.submit(double, 2).result()}")

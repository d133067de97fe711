"""Jobs that are no workers: a script that does as it is told, so that each of Slurm's states is reached at
will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.slurm_pool import await_true

from graphvine.deploy.batch import JobState, JobStatus, Submission
from graphvine.deploy.slurm import Slurm
from graphvine.deploy.spec import WorkerSpec, make_spec

#: Stands in for a Python with graphvine: tells what it was given, then does what its variable DO says.
PYTHON = """\
#!/bin/sh
[ "$1" != -S ] || exit 0
echo "started as $*"
case $DO in
wait) trap 'echo told to end; exit 7' TERM; while :; do sleep 1 & wait $!; done ;;
stay) trap 'echo told to end' TERM; while :; do sleep 1 & wait $!; done ;;
kill) kill -KILL $$ ;;
*) exit "$DO" ;;
esac
"""


class Jobs:
    """Submits such jobs, and waits for what becomes of them."""

    def __init__(self, directory: Path) -> None:
        self.system = Slurm()
        self._directory = directory
        self._python = directory / "python"
        self._python.write_text(PYTHON)
        self._python.chmod(0o755)
        self.connection = directory / "a manager's connection"
        self.connection.write_text("the secret")
        self._count = 0

    def spec(self, do: str, **more: object) -> WorkerSpec:
        return make_spec(
            connection_file=str(self.connection),
            python=str(self._python),
            variables={"DO": do},
            **{"memory": 100, **more},  # type: ignore[arg-type]
        )

    def directory(self) -> Path:
        self._count += 1
        name = "one" if self._count == 1 else f"it's submission {self._count}"
        made = self._directory / name
        made.mkdir()
        return made

    def submit(self, do: str, count: int = 1, **more: object) -> Submission:
        return self.system.submit(self.spec(do, **more), count, self.directory())

    def wait(self, jobs: Sequence[str], until: Callable[[JobStatus], bool]) -> list[JobStatus]:
        """Until that is true of all of them."""
        told: list[JobStatus] = []

        def done() -> bool:
            told[:] = self.system.status(jobs)
            return all(map(until, told))

        try:
            await_true(done, "what is waited for", within_s=100)
        except RuntimeError as error:
            raise AssertionError(f"{error}: {told}") from error
        return told

    def await_start(self, jobs: Sequence[str]) -> None:
        """Slurm calls a job running before its script has begun."""
        await_true(lambda: all("started as" in self.system.output(job) for job in jobs), "they have begun")


def runs(status: JobStatus) -> bool:
    return status.state is JobState.RUNNING


def is_over(status: JobStatus) -> bool:
    return status.state.is_over

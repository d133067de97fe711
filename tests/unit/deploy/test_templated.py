"""A batch system that is a template, against a small queue program of this test's own: files are its jobs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from graphvine.deploy.batch import JobState
from graphvine.deploy.errors import BatchCommandError, DeployError
from graphvine.deploy.spec import WorkerSpec, make_spec
from graphvine.deploy.template import Cancel, Query, Submit, Template
from graphvine.deploy.templated import Templated

QUEUE = """\
#!/bin/sh
# usage: queue submit FIRST-LAST | one | list JOB... | history JOB | cancel JOB...   (jobs lie in $QUEUE)
verb=$1; shift
case $verb in
submit)
    cat >"$QUEUE/script"
    for index in $(seq "${1%-*}" "${1#*-}"); do echo "waits - -" >"$QUEUE/7.$index"; done
    echo "the queue has taken array 7" ;;
one) cp "$1" "$QUEUE/script"; echo "waits - -" >"$QUEUE/8"; echo "the queue has taken job 8" ;;
list)
    code=0
    for job; do
        if [ -f "$QUEUE/$job" ]; then echo "$job: $(cat "$QUEUE/$job")"
        else echo "no job $job here" >&2; code=1; fi
    done
    exit $code ;;
history)
    [ -f "$QUEUE/old.$1" ] || { echo "the books are closed" >&2; exit 1; }
    echo "$1: ended $(cat "$QUEUE/old.$1")" ;;
cancel)
    for job; do [ -f "$QUEUE/$job" ] || { echo "no job $job here" >&2; exit 3; }; rm "$QUEUE/$job"; done ;;
*) echo "what is $verb?" >&2; exit 2 ;;
esac
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "queue"
    directory.mkdir()
    program = tmp_path / "bin" / "queue"
    program.parent.mkdir()
    program.write_text(QUEUE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(directory))
    return directory


TEMPLATE = Template(
    name="queue",
    submit=Submit(
        command=("queue", "submit", "{{first}}-{{last}}"),
        stdin=True,
        id=r"array (?P<number>\d+)",
        each="{{number}}.{{index}}",
        one=Submit(command=("queue", "one", "{{file}}"), id=r"job (?P<jobs>\d+)"),
    ),
    cancel=Cancel(command=("queue", "cancel", "{{jobs}}"), harmless="no job .* here"),
    status=(
        Query(
            command=("queue", "list", "{{jobs}}"),
            job="{{id}}",
            fields={"id": r"^([\d.]+): ", "state": r"^[\d.]+: (\w+)", "reason": r"^[\d.]+: \w+ \S+ (.*)"},
            harmless="no job .* here",
        ),
        Query(
            command=("queue", "history", "{{job}}"),
            job="{{id}}",
            fields={"id": r"^([\d.]+): ", "exit_code": r"ended (\d+)"},
            state="finished",
        ),
    ),
    states={"waits": "pending", "runs": "running", "stuck": "held"},
    naming=r"\d+(\.\d+)?",
    job_id="$QUEUE_ID",
    job="#!/bin/sh\n# {{flavour}} {{cores}}\n{{directives}}\n{{body}}",
    prefix="# ",
    options={"flavour": "plain"},
)


def spec(tmp_path: Path) -> WorkerSpec:
    connection = tmp_path / "connection"
    connection.write_text("secret")
    return make_spec(cores=2, connection_file=str(connection), python="/usr/bin/python3", directives="more")


def submitted(queue: Path, tmp_path: Path, count: int) -> tuple[Templated, list[str]]:
    system = Templated(TEMPLATE, {"flavour": "sweet"})
    directory = tmp_path / "jobs"
    directory.mkdir()
    return system, list(system.submit(spec(tmp_path), count, directory).jobs)


def test_an_array(queue: Path, tmp_path: Path) -> None:
    system, jobs = submitted(queue, tmp_path, 3)
    assert jobs == ["7.0", "7.1", "7.2"]
    script = (queue / "script").read_text()
    assert script.startswith("#!/bin/sh\n# sweet 2\n# more\nexec >>")
    assert "secret" not in script
    assert [status.state for status in system.status(jobs)] == [JobState.PENDING] * 3


def test_a_single_job(queue: Path, tmp_path: Path) -> None:
    system, jobs = submitted(queue, tmp_path, 1)
    assert jobs == ["8"]
    assert system.status(jobs)[0].state is JobState.PENDING


def test_states_one_after_the_other(queue: Path, tmp_path: Path) -> None:
    system, jobs = submitted(queue, tmp_path, 4)
    (queue / "7.0").write_text("runs - -")
    (queue / "7.1").write_text("stuck - too tired to run")
    (queue / "7.2").unlink()
    (queue / "old.7.2").write_text("4")
    (queue / "7.3").unlink()
    told = system.status(jobs)
    assert [status.state.value for status in told] == ["running", "held", "finished", "gone"]
    assert told[1].reason == "too tired to run"
    assert told[2].exit_code == 4
    (queue / "old.7.2").unlink()
    assert system.status(["7.2"]) == [told[2]], "how it ended is known for good"


def test_cancelled(queue: Path, tmp_path: Path) -> None:
    system, jobs = submitted(queue, tmp_path, 2)
    system.cancel([])
    system.cancel(jobs)
    assert [status.state for status in system.status(jobs)] == [JobState.REMOVED] * 2
    system.cancel(jobs)
    assert sorted(path.name for path in queue.iterdir()) == ["script"]


def test_a_command_that_fails_is_told(queue: Path, tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(TEMPLATE, submit=Submit(command=("queue", "sbumit"), id="(?P<jobs>x)"))
    with pytest.raises(BatchCommandError, match=r"queue failed with exit code 2: what is sbumit\?"):
        Templated(wrong).submit(spec(tmp_path), 2, tmp_path)


def test_output(queue: Path, tmp_path: Path) -> None:
    system, jobs = submitted(queue, tmp_path, 2)
    assert system.output(jobs[0]) == ""
    (tmp_path / "jobs" / "7.0.out").write_text("no python\n")
    assert system.output(jobs[0]) == "no python\n"
    assert system.output("9.9") == ""


def test_options_that_are_none() -> None:
    with pytest.raises(DeployError, match="queue has no option taste; there are: flavour"):
        Templated(TEMPLATE, {"taste": "x"})


def test_by_hand(queue: Path, tmp_path: Path) -> None:
    assert Templated(TEMPLATE).by_hand(["7.0", "7.1"]) == ("queue list 7.0 7.1", "queue cancel 7.0 7.1")


def test_a_preview_does_nothing(queue: Path, tmp_path: Path) -> None:
    text = Templated(TEMPLATE).preview(spec(tmp_path), 5, tmp_path / "jobs")
    assert text.startswith("# queue submit 0-4 < job.sh\n# job.sh\n#!/bin/sh\n# plain 2\n")
    assert list(queue.iterdir()) == []
    assert not (tmp_path / "jobs").exists()

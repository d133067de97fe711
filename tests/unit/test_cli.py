"""The command line: what people type, and what they get told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from graphvine import __version__, cli
from graphvine.protocol.errors import PortInUseError


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"graphvine {__version__}"


def test_nothing_shows_the_help(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "worker" in out
    assert "demo" in out


def test_an_unknown_command_is_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["dmeo"])
    assert stop.value.code == 2
    assert "dmeo" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["0", "-3", "many", "", "1e999"])
def test_a_wrong_number_is_usage(capsys, wrong):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", f"--events={wrong}"])
    assert stop.value.code == 2
    assert "is not a number from 1 upward" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("1e6", 10**6), ("1_000", 1000), ("2,500", 2500)])
def test_numbers_as_people_write_them(text, number):
    assert cli._positive(text) == number


def test_our_errors_are_one_line(capsys):
    def command() -> int:
        raise PortInUseError("port 9123 is taken; give another one")

    assert cli._guarded(command) == 1
    assert capsys.readouterr().err == "graphvine: port 9123 is taken; give another one\n"


def test_an_interrupt_is_one_line(capsys):
    def command() -> int:
        raise KeyboardInterrupt

    assert cli._guarded(command) == 130
    assert capsys.readouterr().err.strip() == "graphvine: interrupted"


def test_an_interrupt_while_the_command_is_imported_is_one_line(capsys, monkeypatch):
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "graphvine.envs.errors":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "graphvine.envs.errors", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert cli._guarded(lambda: 0) == 130
    assert capsys.readouterr().err.strip() == "graphvine: interrupted"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("demo --evnts 5", "graphvine demo: error: there is no option --evnts; did you mean --events?"),
        ("demo 5", "graphvine demo: error: what is '5'? See --help"),
        (
            "env pack --ouput=x",
            "graphvine env pack: error: there is no option --ouput; did you mean --output?",
        ),
        (
            "submit slurm --corse 3",
            "graphvine submit: error: there is no option --corse; did you mean --cores?",
        ),
        ("submit slurm 3 4", "graphvine submit: error: what is '4'? Give SYSTEM, and how many"),
        (
            "factory --mangr x",
            "graphvine factory: error: there is no option --mangr; did you mean --manager?",
        ),
        ("worker h 1 -Q", "graphvine worker: error: there is no option -Q"),
    ],
)
def test_a_mistyped_option_names_the_nearest_and_its_command(capsys, line, said):
    with pytest.raises(SystemExit) as stop:
        cli.main(line.split())
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--workdir", "--log-dir", "--debug-file", "--memory-dir"])
def test_a_place_that_a_worker_cannot_use_is_named(option, tmp_path):
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "x")
    line = [sys.executable, "-m", "graphvine.worker", "localhost", "1", option, place]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"graphvine: {option} {place} can't be written to: Not a directory\n"


def test_errors_that_are_nobodys_mistake_keep_their_traceback():
    def command() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli._guarded(command)


def test_the_version_needs_no_dask():
    script = (
        "import sys\nfrom graphvine.cli import main\n"
        "try:\n main(['--version'])\nexcept SystemExit:\n pass\n"
        "print([m for m in ('dask', 'zmq') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

"""The demo: physics that is right where it says so, pictures that fit, and the command as people run it."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import dask
import pytest

from graphvine import Manager, demo


@pytest.fixture(scope="module")
def spectrum() -> demo.Spectrum:
    return demo.spectrum_graph(60_000, 12, seed=1).compute(scheduler="sync")


@pytest.mark.parametrize("source", demo.SOURCES, ids=lambda s: s.name)
def test_a_decay_keeps_the_mass(source):
    rng = random.Random(1)
    for _ in range(50):
        mass = demo.draw_mass(source, rng)
        px, py, pz, qx, qy, qz = demo.decay(mass, source, rng)
        p, q = (
            [math.sqrt(x * x + y * y + z * z + demo.MUON_MASS**2), x, y, z]
            for x, y, z in ((px, py, pz), (qx, qy, qz))
        )
        assert demo.pair_mass(p, q) == pytest.approx(mass, rel=1e-6)


def test_soft_and_forward_muons_are_not_seen():
    rng = random.Random(1)
    assert demo.detect(1.5, 0.0, 0.0, rng) is None
    assert demo.detect(20.0, 0.0, 200.0, rng) is None
    seen = demo.detect(20.0, 0.0, 10.0, rng)
    assert seen is not None
    assert seen[1] == pytest.approx(20.0, rel=0.1)


def test_the_peaks_are_where_they_should_be(spectrum):
    found = dict(demo.measured_peaks(spectrum))
    assert found["J/ψ"] == pytest.approx(3.097, rel=0.005)
    assert found["Z"] == pytest.approx(91.19, rel=0.005)


def test_every_collision_is_counted_however_it_is_cut():
    for events, chunks in ((1000, 7), (5, 100), (1, 1), (97, 13)):
        total = demo.spectrum_graph(events, chunks, seed=3).compute(scheduler="sync")
        assert total.collisions == events


def test_the_same_seed_makes_the_same_spectrum():
    one, two, other = (demo.spectrum_graph(2000, 4, seed).compute(scheduler="sync") for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize("width", [20, 60, 80, 100, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_the_picture_fits(spectrum, width, unicode):
    lines = demo.render_spectrum(spectrum, width, unicode=unicode)
    assert max(map(len, lines)) <= max(width, 35)
    if not unicode:
        "\n".join(lines).encode("ascii")
    elif width >= 60:
        assert all(any(name in line for line in lines) for name in ("J/ψ", "Υ", "Z", "GeV"))


def test_an_empty_spectrum_can_be_drawn():
    assert demo.render_spectrum(demo.Spectrum([0] * demo.BINS, 0), 80)


def run_command(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphvine.cli", "demo", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "100", "PYTHONIOENCODING": encoding}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding=encoding, timeout=120, check=False
    )


def test_the_command():
    done = run_command("--events=20000", "--chunks=10", "--cores=2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "20,000 collisions" in done.stdout
    assert "J/ψ" in done.stdout
    expected = demo.spectrum_graph(20_000, 10, seed=2012).compute(scheduler="sync")
    assert f"Pairs kept  {expected.pairs:,} of" in done.stdout


def test_the_command_on_an_ascii_terminal():
    done = run_command("--events=5000", "--chunks=4", "--cores=1", encoding="ascii")
    assert done.returncode == 0, done.stderr


def test_it_runs_beside_another_one(capsys):
    with Manager(name="demo", local_workers=0):
        assert demo.run_demo(events=100, chunks=2, cores=1, progress=False, seed=1) == 0
    assert "100 proton collisions in 2 chunks: " in capsys.readouterr().out


def test_the_graph_is_a_dask_collection():
    assert dask.is_dask_collection(demo.spectrum_graph(10, 2, 1))

"""The ADL example against the same questions asked of arrays in memory, and one asked in another way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

for package in ("coffea", "dask_awkward", "dask_histogram", "hist", "matplotlib"):
    pytest.importorskip(package, reason=f"the ADL example needs {package}: pip install '.[hep]'")

ROOT = Path(__file__).resolve().parents[2]
ADL = ROOT / "examples" / "adl"
DATA = ROOT.parent / "shared" / "data"
REAL_FILES = ("nano_dy.root", "nano_dimuon.root")

# What others warn about while they are imported or read real files is theirs.
pytestmark = pytest.mark.filterwarnings(
    "default", "error::ResourceWarning", "error::pytest.PytestUnhandledThreadExceptionWarning"
)


@pytest.fixture(scope="module")
def adl():
    sys.path.insert(0, str(ADL))
    import analysis
    import make_nanoaod
    import queries

    yield type("Adl", (), {"analysis": analysis, "make": make_nanoaod, "queries": queries})
    sys.path.remove(str(ADL))
    for name in ("analysis", "make_nanoaod", "queries"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def made(adl, tmp_path_factory) -> list[Path]:
    return adl.make.make_files(tmp_path_factory.mktemp("nano"), 3000, files=2, seed=7)


@pytest.fixture(scope="module")
def manager():
    import graphvine as gv

    with gv.Manager() as manager:
        yield manager


def eager_histograms(adl: Any, paths: list[Path]) -> dict[str, Any]:
    """The same histograms from arrays in memory, filled by hist itself: no dask anywhere."""
    import awkward as ak
    import hist

    filled: dict[str, Any] = {}
    for path in paths:
        events = adl.analysis.eager_events(path)
        for name, query in adl.queries.QUERIES.items():
            keys = adl.analysis.plot_keys(name)
            for key, plot, values in zip(keys, query.plots, query.run(events), strict=True):
                axis = adl.analysis.axis_of(plot)
                histogram = filled.setdefault(key, hist.Hist(axis, storage=hist.storage.Int64()))
                histogram.fill(ak.to_numpy(values))
    return filled


def check(adl: Any, manager: Any, paths: list[Path], chunks: int) -> dict[str, Any]:
    import dask

    planned = adl.analysis.planned_histograms(adl.analysis.planned_events(paths, chunks))
    (results,) = dask.compute(planned, scheduler=manager.get)
    expected = eager_histograms(adl, paths)
    assert list(results) == list(expected)
    for key, histogram in results.items():
        assert histogram.values(flow=True).tolist() == expected[key].values(flow=True).tolist(), key
    return results


def test_made_files(adl, manager, made, tmp_path):
    results = check(adl, manager, made, chunks=7)
    assert all(histogram.sum(flow=True) > 0 for histogram in results.values())
    picture = tmp_path / "adl.png"
    adl.analysis.draw(results, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files(adl, manager, name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}: the real files are not kept in this repository")
    results = check(adl, manager, [path], chunks=3)
    assert results["1"].sum(flow=True) == 40


def test_a_query_asked_in_another_way(adl, manager, made):
    # Query 5 event by event, in plain Python, from the branches themselves.
    import uproot

    expected = []
    for path in made:
        with uproot.open(path) as file:
            names = ["MET_pt", *(f"Muon_{n}" for n in ("pt", "eta", "phi", "mass", "charge"))]
            branches = file["Events"].arrays(names).to_list()
        expected += [event["MET_pt"] for event in branches if has_z_to_muons(event)]
    planned = adl.analysis.planned_histograms(adl.analysis.planned_events(made, 4), ["5"])
    found = planned["5"].compute(scheduler=manager.get)
    assert 0 < len(expected) == found.sum(flow=True)
    assert found.values()[:10].tolist() == [
        sum(2 * i <= met < 2 * (i + 1) for met in expected) for i in range(10)
    ]


def has_z_to_muons(event: dict[str, Any]) -> bool:
    from itertools import combinations
    from math import cos, cosh, hypot, sin, sinh, sqrt

    muons = list(zip(*(event[f"Muon_{n}"] for n in ("pt", "eta", "phi", "mass", "charge")), strict=True))
    for one, two in combinations(muons, 2):
        energy = sum(hypot(m[0] * cosh(m[1]), m[3]) for m in (one, two))
        px, py = (sum(m[0] * f(m[2]) for m in (one, two)) for f in (cos, sin))
        pz = sum(m[0] * sinh(m[1]) for m in (one, two))
        mass = sqrt(max(energy**2 - px**2 - py**2 - pz**2, 0))
        if one[4] != two[4] and 60 < mass < 120:
            return True
    return False


def test_the_generator_makes_what_it_says(adl, made):
    import numpy as np
    import uproot

    with uproot.open(made[0]) as file:
        tree = file["Events"]
        assert tree.num_entries == 1500
        assert {"nMuon", "nElectron", "nJet", "Muon_charge", "MET_phi"} <= set(tree.keys())
        jets = tree["Jet_pt"].array()
    flat = np.asarray([pt for event in jets.to_list() for pt in event])
    assert flat.min() >= 15
    assert all(event == sorted(event, reverse=True) for event in jets.to_list())


def test_the_same_arguments_make_the_same_events(adl):
    one, two, other = (adl.make.make_events(200, seed) for seed in (3, 3, 4))
    assert one["Jet"].to_list() == two["Jet"].to_list()
    assert one["Jet"].to_list() != other["Jet"].to_list()


def test_the_script(tmp_path, made):
    command = [sys.executable, str(ADL / "run.py"), *map(str, made), "--query=1", "--query=6", "--chunks=4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adl.png").exists()
    assert "3 histograms of 2 files planned" in done.stdout

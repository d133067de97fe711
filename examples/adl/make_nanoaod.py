"""Makes NanoAOD files up: jagged electrons, muons and jets, and missing energy, of any number of events.

    python examples/adl/make_nanoaod.py --events 1000000 --files 8 DIRECTORY

The events look like those of a collider with leptons in them: Z bosons that decay into two leptons, top
quark pairs, and W bosons with jets; a few have a third lepton. Masses and decays are right, so that the
queries find peaks where there should be some; rates and shapes are chosen to be plausible. The same arguments
make the same events.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

#: Events are written in baskets of this many, so that chunks can be as small.
BASKET = 10_000
Z_MASS, Z_WIDTH, W_MASS, TOP_MASS, B_MASS = 91.19, 2.5, 80.4, 172.5, 4.8

#: Momenta of some particles: columns energy, px, py, pz.
Momenta = np.ndarray[Any, np.dtype[np.float64]]


def make_events(count: int, seed: int) -> dict[str, Any]:
    """Branches of ``count`` events, as uproot writes them."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["z", "top", "w"], count, p=[0.45, 0.25, 0.30])
    leptons, jets, tagged, invisible = (_Particles(count) for _ in range(4))
    _add_z(rng, np.flatnonzero(kind == "z"), leptons)
    _add_tops(rng, np.flatnonzero(kind == "top"), leptons, jets, tagged, invisible)
    _add_w(rng, np.flatnonzero(kind == "w"), leptons, invisible)
    # Radiation, and now and then a lepton from elsewhere.
    _add_soft(rng, rng.poisson(2.2, count), 22.0, 2.6, 15.0, jets)
    _add_soft(rng, rng.poisson(0.15, count), 9.0, 1.5, 5.0, leptons)
    flavour = rng.random(count) < 0.5
    odd = rng.random(len(leptons)) < 0.1  # leptons that do not share their event's flavour
    is_muon = flavour[leptons.events()] ^ odd
    met = _missing(rng, count, invisible)
    return {
        "run": np.ones(count, np.uint32),
        "luminosityBlock": (np.arange(count) // 1000 + 1).astype(np.uint32),
        "event": np.arange(count, dtype=np.uint64) + np.uint64(seed) * np.uint64(10**9),
        "MET_pt": np.hypot(*met).astype(np.float32),
        "MET_phi": np.arctan2(met[1], met[0]).astype(np.float32),
        "Electron": _leptons(rng, leptons, ~is_muon, 0.000511),
        "Muon": _leptons(rng, leptons, is_muon, 0.10566),
        "Jet": _jets(rng, jets, tagged),
    }


class _Particles:
    """Particles of all events: momenta and charges, gathered piece by piece."""

    def __init__(self, events: int) -> None:
        self.count = events
        self._events: list[Any] = []
        self._momenta: list[Any] = []
        self._charges: list[Any] = []

    def add(self, events: Any, momenta: Momenta, charges: Any = 0) -> None:
        self._events.append(events)
        self._momenta.append(momenta)
        self._charges.append(np.broadcast_to(charges, len(events)))

    def events(self) -> Any:
        return np.concatenate(self._events)

    def momenta(self) -> Momenta:
        return np.concatenate(self._momenta)

    def charges(self) -> Any:
        return np.concatenate(self._charges)

    def __len__(self) -> int:
        return sum(map(len, self._events))


# -- what happens in an event ----------------------------------------------------------------------------


def _add_z(rng: Any, events: Any, leptons: _Particles) -> None:
    mass = Z_MASS + 0.5 * Z_WIDTH * np.tan(np.pi * (rng.random(len(events)) - 0.5) * 0.98)
    parent = _fly(rng, np.clip(mass, 20, 400), hardness=25.0)
    first, second = _decay(rng, parent, np.zeros(len(events)), np.zeros(len(events)))
    leptons.add(events, first, 1)
    leptons.add(events, second, -1)


def _add_tops(rng: Any, events: Any, leptons: Any, jets: Any, tagged: Any, invisible: Any) -> None:
    """Two tops each: b and W; a W decays into a lepton and a neutrino (a third of them) or into two jets."""
    for charge in (1, -1):
        n = len(events)
        top = _fly(rng, rng.normal(TOP_MASS, 1.4, n), hardness=90.0)
        w, b = _decay(rng, top, rng.normal(W_MASS, 2.1, n), np.full(n, B_MASS))
        tagged.add(events, b)
        leptonic = rng.random(n) < 1 / 3
        one, two = _decay(rng, w, np.zeros(n), np.zeros(n))
        leptons.add(events[leptonic], one[leptonic], charge)
        invisible.add(events[leptonic], two[leptonic])
        jets.add(events[~leptonic], one[~leptonic])
        jets.add(events[~leptonic], two[~leptonic])


def _add_w(rng: Any, events: Any, leptons: Any, invisible: Any) -> None:
    n = len(events)
    parent = _fly(rng, rng.normal(W_MASS, 2.1, n), hardness=25.0)
    lepton, neutrino = _decay(rng, parent, np.zeros(n), np.zeros(n))
    leptons.add(events, lepton, rng.choice([-1, 1], n))
    invisible.add(events, neutrino)


def _add_soft(rng: Any, counts: Any, scale: float, spread: float, least: float, into: _Particles) -> None:
    events = np.repeat(np.arange(len(counts)), counts)
    n = len(events)
    pt, eta, phi = least + rng.exponential(scale, n), rng.normal(0, spread, n), rng.uniform(-np.pi, np.pi, n)
    mass = 0.12 * pt if into.count and least > 10 else np.zeros(n)
    into.add(events, _from_polar(pt, eta, phi, mass), rng.choice([-1, 1], n))


def _fly(rng: Any, mass: Any, hardness: float) -> Momenta:
    """Particles of some mass: transverse momentum falling as a power, rapidity from a plateau."""
    n = len(mass)
    pt = hardness * np.sqrt((1 - rng.random(n)) ** (-1 / 1.6) - 1)
    pt = np.minimum(pt, 1500.0)
    phi, rapidity = rng.uniform(-np.pi, np.pi, n), rng.normal(0, 1.1, n)
    transverse = np.hypot(mass, pt)
    energy, pz = transverse * np.cosh(rapidity), transverse * np.sinh(rapidity)
    return np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), pz], axis=1)


def _decay(rng: Any, parent: Momenta, mass1: Any, mass2: Any) -> tuple[Momenta, Momenta]:
    """Two-body decay in any direction: the momenta of both, in the frame in which ``parent`` is given."""
    mass = np.sqrt(np.maximum(parent[:, 0] ** 2 - (parent[:, 1:] ** 2).sum(axis=1), 1e-6))
    energy = (mass**2 + mass1**2 - mass2**2) / (2 * mass)
    p = np.sqrt(np.maximum(energy**2 - mass1**2, 0))
    cosine, angle = rng.uniform(-1, 1, len(mass)), rng.uniform(-np.pi, np.pi, len(mass))
    sine = np.sqrt(1 - cosine**2)
    own = p[:, None] * np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], axis=1)
    along = (own * parent[:, 1:]).sum(axis=1) / (mass * (parent[:, 0] + mass)) + energy / mass
    momentum = own + along[:, None] * parent[:, 1:]
    total = np.sqrt((momentum**2).sum(axis=1) + mass1**2)
    first = np.column_stack([total, momentum])
    return first, parent - first


# -- what a detector sees --------------------------------------------------------------------------------


def _from_polar(pt: Any, eta: Any, phi: Any, mass: Any) -> Momenta:
    p = pt * np.cosh(eta)
    return np.stack([np.hypot(p, mass), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=1)


def _to_polar(momenta: Momenta) -> tuple[Any, Any, Any, Any]:
    energy, px, py, pz = momenta.T
    pt = np.maximum(np.hypot(px, py), 1e-3)
    mass = np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0))
    return pt, np.arcsinh(pz / pt), np.arctan2(py, px), mass


def _missing(rng: Any, count: int, invisible: _Particles) -> Any:
    """Missing transverse momentum (x, y): the neutrinos, and the resolution of everything else."""
    momenta, events = invisible.momenta(), invisible.events()
    return [
        np.bincount(events, momenta[:, axis], minlength=count) + rng.normal(0, 14, count) for axis in (1, 2)
    ]


def _leptons(rng: Any, particles: _Particles, chosen: Any, mass: float) -> Any:
    pt, eta, phi, _ = _to_polar(particles.momenta())
    pt = pt * rng.normal(1, 0.012, len(pt))
    seen = chosen & (pt > 5) & (abs(eta) < 2.5)
    fields = {"pt": pt, "eta": eta, "phi": phi, "mass": np.full(len(pt), mass), "charge": particles.charges()}
    return _jagged(particles.events(), seen, fields, particles.count)


def _jets(rng: Any, jets: _Particles, tagged: _Particles) -> Any:
    momenta = np.concatenate([jets.momenta(), tagged.momenta()])
    events = np.concatenate([jets.events(), tagged.events()])
    is_b = np.arange(len(events)) >= len(jets)
    response = rng.normal(1, 0.1, len(events))
    pt, eta, phi, mass = _to_polar(momenta * response[:, None])
    tag = np.where(is_b, rng.beta(4, 1.2, len(events)), rng.beta(1, 7, len(events)))
    fields = {"pt": pt, "eta": eta, "phi": phi, "mass": np.maximum(mass, 0.08 * pt), "btagDeepB": tag}
    return _jagged(events, (pt > 15) & (abs(eta) < 4.7), fields, jets.count)


def _jagged(events: Any, seen: Any, fields: dict[str, Any], count: int) -> Any:
    """The seen ones by event, hardest first, as NanoAOD has them."""
    order = np.lexsort((-fields["pt"][seen], events[seen]))
    counts = np.bincount(events[seen], minlength=count)
    columns = {}
    for name, values in fields.items():
        kind = np.int32 if name == "charge" else np.float32
        columns[name] = ak.unflatten(values[seen][order].astype(kind), counts)
    return ak.zip(columns)


# -- files -----------------------------------------------------------------------------------------------


def write_file(path: Path, events: int, seed: int) -> None:
    """Write one NanoAOD file of ``events`` events."""
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        for start in range(0, events, BASKET):
            branches = make_events(min(BASKET, events - start), seed * 10_000 + start // BASKET)
            if start == 0:
                file.mktree("Events", {name: _type(values) for name, values in branches.items()})
            file["Events"].extend(branches)


def _type(values: Any) -> Any:
    return values.type if isinstance(values, ak.Array) else values.dtype


def make_files(directory: Path, events: int, files: int = 1, seed: int = 1) -> list[Path]:
    """``files`` files with ``events`` events together, in ``directory``. Files that are there are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(files):
        size = events * (number + 1) // files - events * number // files
        path = directory / f"nano_{seed}_{size}_{number}.root"
        if not path.exists():
            scratch = path.with_suffix(".part")
            write_file(scratch, size, seed + number)
            scratch.replace(path)
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for path in make_files(options.directory, options.events, options.files, options.seed):
        print(path)


if __name__ == "__main__":
    main()

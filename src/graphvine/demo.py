"""``graphvine demo``: a small analysis from collisions to a spectrum, with nothing but Python and dask.

Proton collisions are made up, chunk by chunk: a particle of some mass (a resonance, or the continuum under
it) flies off with some momentum and decays into two muons; a detector sees them blurred, if they are
energetic and central enough. From what it saw the mass of each pair is computed again, and the histograms of
all chunks are added in a tree. What comes out is the picture that every collider experiment draws first.

The physics is that of a sketch: masses and widths are right, rates are chosen to look well.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import sys
from array import array
from collections.abc import Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple

MUON_MASS = 0.10566
#: The spectrum: this many bins between these masses (GeV), equal on a logarithmic axis.
BINS = 600
LOW, HIGH = 0.8, 150.0
#: Histograms added by one task.
FAN_IN = 8
_FLOATS_PER_EVENT = 6


class Source(NamedTuple):
    """What decays into two muons: mass and natural width in GeV, share of the collisions, and the hardness
    (GeV) and steepness of its transverse momentum."""

    name: str
    mass: float
    width: float
    share: float
    hardness: float
    steepness: float


#: Masses and widths: Particle Data Group.
SOURCES = (
    Source("φ", 1.0195, 0.00425, 0.080, 6.0, 2.6),
    Source("J/ψ", 3.0969, 0.00009, 0.200, 6.0, 2.8),
    Source("ψ′", 3.6861, 0.00029, 0.025, 6.0, 2.8),
    Source("Υ(1S)", 9.4604, 0.00005, 0.040, 6.0, 3.2),
    Source("Υ(2S)", 10.0233, 0.00003, 0.013, 6.0, 3.2),
    Source("Υ(3S)", 10.3552, 0.00002, 0.009, 6.0, 3.2),
    Source("Z", 91.1880, 2.4955, 0.040, 14.0, 2.2),
)
#: The rest: pairs of no particular mass, falling as a power of it.
CONTINUUM = Source("", 0.0, 0.0, 1.0 - sum(s.share for s in SOURCES), 6.0, 2.6)
_CONTINUUM_POWER = 2.1

PEAKS = (("φ", 0.98, 1.06), ("J/ψ", 2.95, 3.25), ("Υ", 9.2, 9.75), ("Z", 82.0, 100.0))
"""What is looked for in the spectrum, and between which masses."""


class Spectrum(NamedTuple):
    """A histogram of pair masses, and how many collisions it was made from."""

    counts: list[int]
    collisions: int

    @property
    def pairs(self) -> int:
        return sum(self.counts)


# -- the tasks ---------------------------------------------------------------------------------------------


def simulate(chunk: int, collisions: int, seed: int) -> array[float]:
    """The true momenta of both muons of each collision: px, py, pz, px, py, pz, and so on, in GeV."""
    rng = random.Random(f"{seed}/{chunk}")
    sources = rng.choices([*SOURCES, CONTINUUM], [s.share for s in (*SOURCES, CONTINUUM)], k=collisions)
    momenta = array("d")
    for source in sources:
        momenta.extend(decay(draw_mass(source, rng), source, rng))
    return momenta


def reconstruct(momenta: array[float], chunk: int, seed: int) -> Spectrum:
    """What a detector makes of the muons: the spectrum of the pairs that pass the selection."""
    rng = random.Random(f"detector/{seed}/{chunk}")
    counts = [0] * BINS
    scale = BINS / math.log(HIGH / LOW)
    for start in range(0, len(momenta), _FLOATS_PER_EVENT):
        px, py, pz, qx, qy, qz = momenta[start : start + _FLOATS_PER_EVENT]
        first, second = detect(px, py, pz, rng), detect(qx, qy, qz, rng)
        if first is None or second is None:
            continue
        mass = pair_mass(first, second)
        if LOW <= mass < HIGH:
            counts[int(scale * math.log(mass / LOW))] += 1
    return Spectrum(counts, len(momenta) // _FLOATS_PER_EVENT)


def add(spectra: Sequence[Spectrum]) -> Spectrum:
    """The sum of some spectra."""
    counts = [sum(column) for column in zip(*(s.counts for s in spectra), strict=True)]
    return Spectrum(counts, sum(s.collisions for s in spectra))


# -- physics -----------------------------------------------------------------------------------------------


def draw_mass(source: Source, rng: random.Random) -> float:
    """A mass from the resonance's Breit-Wigner curve, or from the continuum's power law (GeV)."""
    if source is CONTINUUM or not source.name:
        power = 1.0 - _CONTINUUM_POWER
        low, high = (0.9 * LOW) ** power, (1.2 * HIGH) ** power
        return float((low + rng.random() * (high - low)) ** (1.0 / power))
    while True:
        mass = source.mass + 0.5 * source.width * math.tan(math.pi * (rng.random() - 0.5))
        if 2.5 * MUON_MASS < mass < 2.0 * source.mass:
            return mass


def decay(mass: float, source: Source, rng: random.Random) -> tuple[float, ...]:
    """Momenta of the two muons that a particle of ``mass`` decays into: px, py, pz, px, py, pz (GeV)."""
    # The parent: transverse momentum from a falling power law, rapidity from a plateau, any azimuth.
    pt = source.hardness * math.sqrt((1.0 - rng.random()) ** (1.0 / (1.0 - source.steepness)) - 1.0)
    rapidity = rng.gauss(0.0, 1.4)
    phi = rng.uniform(-math.pi, math.pi)
    px, py = pt * math.cos(phi), pt * math.sin(phi)
    transverse = math.hypot(mass, pt)
    pz, energy = transverse * math.sinh(rapidity), transverse * math.cosh(rapidity)
    # In its rest frame the muons fly apart in any direction; then both are boosted along with the parent.
    half = 0.5 * mass
    p = math.sqrt(half * half - MUON_MASS * MUON_MASS)
    cosine = rng.uniform(-1.0, 1.0)
    sine = math.sqrt(1.0 - cosine * cosine)
    angle = rng.uniform(-math.pi, math.pi)
    qx, qy, qz = p * sine * math.cos(angle), p * sine * math.sin(angle), p * cosine
    along = (qx * px + qy * py + qz * pz) / (mass * (energy + mass)) + half / mass
    ax, ay, az = qx + along * px, qy + along * py, qz + along * pz
    return ax, ay, az, px - ax, py - ay, pz - az


def detect(px: float, py: float, pz: float, rng: random.Random) -> tuple[float, ...] | None:
    """Energy and momentum of a muon as measured, or None when it is too soft or too far forward."""
    pt = math.hypot(px, py)
    if pt < 1.0:
        return None
    eta = math.asinh(pz / pt)
    blur = rng.gauss(1.0, 0.007 + 0.005 * abs(eta) / 2.4)
    if pt * blur < 3.5 or abs(eta) > 2.4:
        return None
    px, py, pz = px * blur, py * blur, pz * blur
    return math.sqrt(px * px + py * py + pz * pz + MUON_MASS * MUON_MASS), px, py, pz


def pair_mass(first: Sequence[float], second: Sequence[float]) -> float:
    """The invariant mass of two four-vectors (energy, px, py, pz), in GeV."""
    energy, px, py, pz = (a + b for a, b in zip(first, second, strict=True))
    return math.sqrt(max(energy * energy - px * px - py * py - pz * pz, 0.0))


# -- the graph, and what is said about it ----------------------------------------------------------------


def spectrum_graph(collisions: int, chunks: int, seed: int) -> Any:
    """The analysis as a dask Delayed: chunks simulated, reconstructed, added ``FAN_IN`` at a time."""
    import dask

    chunks = min(chunks, collisions)
    sizes = [collisions * (i + 1) // chunks - collisions * i // chunks for i in range(chunks)]
    make, see, total = (dask.delayed(f, pure=False) for f in (simulate, reconstruct, add))
    level = [see(make(i, size, seed), i, seed) for i, size in enumerate(sizes)]
    while len(level) > 1:
        level = [total(level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
    return level[0]


def measured_peaks(spectrum: Spectrum) -> list[tuple[str, float]]:
    """The peaks that stand out, and their masses (GeV): the mean of what is above the level beside them."""
    found = []
    for name, low, high in PEAKS:
        bins = range(bin_of(low), bin_of(high) + 1)
        sides = [spectrum.counts[bins[0] - 1 - i] + spectrum.counts[bins[-1] + 1 + i] for i in range(4)]
        floor = sum(sides) / 8
        above = {b: max(spectrum.counts[b] - floor, 0.0) for b in bins}
        total = sum(above.values())
        if total > 5 * math.sqrt(floor * len(bins) + 1) + 20:
            found.append((name, sum(mass_at(b + 0.5) * n for b, n in above.items()) / total))
    return found


def bin_of(mass: float) -> int:
    """The bin that ``mass`` (GeV) falls into."""
    return int(BINS * math.log(mass / LOW) / math.log(HIGH / LOW))


def mass_at(position: float) -> float:
    """The mass (GeV) at a position on the axis, counted in bins."""
    return float(LOW * (HIGH / LOW) ** (position / BINS))


def render_spectrum(spectrum: Spectrum, width: int, height: int = 14, unicode: bool = True) -> list[str]:
    """The spectrum as text, both axes logarithmic, peaks named above their columns."""
    margin = 9
    columns = max(20, min(width - margin - 2, 120))
    edges = [BINS * i // columns for i in range(columns + 1)]
    # Pairs per bin, so that columns of a bin more or less look alike.
    heights = [sum(spectrum.counts[a:b]) / (b - a) for a, b in pairwise(edges)]
    top = max(math.log10(max(*heights, 1.0)), 1.0)
    bottom = max(0.0, math.log10(max(min((h for h in heights if h > 0), default=1.0), 1.0)) - 0.2)
    levels = [max(0.0, (math.log10(h) - bottom) / (top - bottom)) if h > 0 else 0.0 for h in heights]
    rows = _bars(levels, height, " ▁▂▃▄▅▆▇█" if unicode else "  ..::##")
    labels = _peak_labels(levels, height, columns, unicode)
    lines = []
    for row, (text, label) in enumerate(zip(rows, labels, strict=True)):
        number = _decade_label(row, height, top, bottom).rjust(margin - 1)
        lines.append(f"{number} {'│' if unicode else '|'}{_overlay(text, label)}".rstrip())
    ticks, numbers = _axis(columns, unicode)
    return [*lines, " " * margin + ticks, " " * margin + numbers]


def _bars(levels: list[float], height: int, blocks: str) -> list[str]:
    """Text rows from the top down, two of them empty for labels."""
    steps = len(blocks) - 1
    rows = []
    for row in range(height + 1, -1, -1):
        filled = (round(max(level, 0.04) * height * steps) - row * steps for level in levels)
        rows.append("".join(blocks[max(0, min(steps, f))] for f in filled))
    return rows


def _peak_labels(levels: list[float], height: int, columns: int, unicode: bool) -> list[dict[int, str]]:
    """For each row the names that stand in it, by the column they begin at."""
    rows: list[dict[int, str]] = [{} for _ in range(height + 2)]
    for name, mass in (("φ", 1.0195), ("J/ψ", 3.0969), ("ψ′", 3.6861), ("Υ", 9.4604), ("Z", 91.188)):
        text = name if unicode else {"φ": "phi", "J/ψ": "J/psi", "ψ′": "", "Υ": "Ups"}.get(name, name)
        column = min(columns - 1, bin_of(mass) * columns // BINS)
        near = levels[max(0, column - 1) : column + 3]
        row = height + 1 - math.ceil(max(near) * height)
        rows[max(0, row - 1)][max(0, column - (len(text) - 1) // 2)] = text
    return rows


def _overlay(text: str, labels: dict[int, str]) -> str:
    for column, label in sorted(labels.items()):
        if not text[column : column + len(label)].strip():
            text = text[:column] + label + text[column + len(label) :]
    return text


def _decade_label(row: int, height: int, top: float, bottom: float) -> str:
    """The number of pairs at a row, where a power of ten falls into it."""
    high = bottom + (height + 2 - row) / height * (top - bottom)
    low = bottom + (height + 1 - row) / height * (top - bottom)
    decade = math.floor(high)
    return f"{10**decade:,}" if low < decade <= high and row > 1 else ""


def _axis(columns: int, unicode: bool) -> tuple[str, str]:
    """The axis with its ticks, and the numbers below it."""
    ticks = list(("└" if unicode else "+") + ("─" if unicode else "-") * columns)
    numbers = [" "] * (columns + 1)
    for mass in (1, 2, 5, 10, 20, 50, 100):
        column = 1 + bin_of(mass) * columns // BINS
        ticks[column] = "┬" if unicode else "+"
        text = f"{mass} GeV" if mass == 100 else str(mass)
        start = min(column - len(str(mass)) // 2, len(numbers) - len(text))
        numbers[start : start + len(text)] = text
    return "".join(ticks), "".join(numbers).rstrip()


def run_demo(
    events: int = 1_000_000,
    chunks: int = 200,
    cores: int | None = None,
    progress: bool = True,
    seed: int = 2012,
) -> int:
    """Run it and say what happened. Returns the exit code."""
    import graphvine

    graph = spectrum_graph(events, chunks, seed)
    tasks = len(graph.__dask_graph__())
    print(
        f"{events:,} proton collisions in {min(chunks, events):,} chunks: {tasks:,} tasks"
        " (chains of them run as one)."
    )
    sys.stdout.flush()
    with graphvine.Manager(local_workers=True if cores is None else cores) as manager:
        began = perf_counter()
        # Where there is no terminal to repaint, a bar would only be noise: None lets the display decide.
        spectrum = graph.compute(scheduler=manager.get, progress=None if progress else False)
        took = perf_counter() - began
    print("\n".join(_report(spectrum, tasks, took, cores or _available_cores())))
    return 0


def _report(spectrum: Spectrum, tasks: int, took: float, cores: int) -> list[str]:
    unicode = _prints("φ▁│└′")
    peaks = ", ".join(f"{name} {mass:.4g}" for name, mass in measured_peaks(spectrum))
    if not unicode:
        peaks = peaks.replace("φ", "phi").replace("J/ψ", "J/psi").replace("Υ", "Upsilon")
    return [
        "",
        "Mass of muon pairs, pairs per bin:",
        "",
        *render_spectrum(spectrum, shutil.get_terminal_size((100, 30)).columns, unicode=unicode),
        "",
        f"Pairs kept  {spectrum.pairs:,} of {spectrum.collisions:,} collisions",
        f"Peaks at    {peaks + ' GeV' if peaks else 'none stands out: try more --events'}",
        f"Ran         {tasks:,} tasks in {took:.1f} s, the worker's start included, on {cores}"
        f" core{'' if cores == 1 else 's'}:",
        f"            {tasks / took:,.0f} tasks/s, {spectrum.collisions / took:,.0f} collisions/s",
        "",
        "Next: your own dask graph, with result.compute(scheduler=manager.get), as in the README.",
    ]


def _prints(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _available_cores() -> int:
    return len(os.sched_getaffinity(0))

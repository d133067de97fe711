"""The eight benchmark queries of the Analysis Description Languages group, on NanoAOD events.

The questions are those of https://github.com/iris-hep/adl-benchmarks-index. Each function takes NanoAOD
events (from coffea's ``NanoEventsFactory``) and returns the numbers to be filled into histograms. The same
code runs on arrays in memory and, with dask-awkward, on arrays that are only planned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from coffea.nanoevents.methods import candidate


class Plot(NamedTuple):
    """One histogram: what the numbers are, and its axis (bins, from, to)."""

    title: str
    label: str
    bins: int
    low: float
    high: float


class Query(NamedTuple):
    """A question: ``run(events)`` gives one array for each of ``plots``."""

    run: Callable[[Any], tuple[Any, ...]]
    plots: tuple[Plot, ...]


def met_of_all(events: Any) -> tuple[Any, ...]:
    """1: missing transverse energy of all events."""
    return (events.MET.pt,)


def jet_pt(events: Any) -> tuple[Any, ...]:
    """2: transverse momentum of all jets."""
    return (ak.flatten(events.Jet.pt),)


def central_jet_pt(events: Any) -> tuple[Any, ...]:
    """3: transverse momentum of the jets with |eta| < 1."""
    jets = events.Jet
    return (ak.flatten(jets[abs(jets.eta) < 1].pt),)


def met_with_two_jets(events: Any) -> tuple[Any, ...]:
    """4: missing transverse energy of events with two jets above 40 GeV."""
    hard_jets = ak.sum(events.Jet.pt > 40, axis=1)
    return (events[hard_jets >= 2].MET.pt,)


def met_with_muon_pair(events: Any) -> tuple[Any, ...]:
    """5: missing transverse energy of events with an opposite-charge muon pair of 60 to 120 GeV."""
    pair = ak.combinations(events.Muon, 2, fields=["a", "b"])
    mass = (pair.a + pair.b).mass
    good = (mass > 60) & (mass < 120) & (pair.a.charge != pair.b.charge)
    return (events[ak.any(good, axis=1)].MET.pt,)


def best_trijet(events: Any) -> tuple[Any, ...]:
    """6: of the three jets whose mass is closest to a top quark's, their momentum and their highest b tag."""
    jets = events.Jet[ak.num(events.Jet) >= 3]
    three = ak.combinations(jets, 3, fields=["a", "b", "c"])
    total = three.a + three.b + three.c
    best = ak.argmin(abs(total.mass - 172.5), axis=1, keepdims=True)
    tag = np.maximum(np.maximum(three.a.btagDeepB, three.b.btagDeepB), three.c.btagDeepB)
    return ak.flatten(total[best].pt), ak.flatten(tag[best])


def clean_jet_sum(events: Any) -> tuple[Any, ...]:
    """7: summed transverse momentum of jets above 30 GeV that have no lepton above 10 GeV within 0.4."""
    jets = events.Jet[events.Jet.pt > 30]
    clean = is_far_from(jets, events.Electron) & is_far_from(jets, events.Muon)
    return (ak.sum(jets[clean].pt, axis=1),)


def third_lepton_mt(events: Any) -> tuple[Any, ...]:
    """8: transverse mass of the missing energy and the hardest lepton that is not of the best Z candidate."""
    leptons = light_leptons(events)
    three = ak.num(leptons) >= 3
    leptons, met = leptons[three], events.MET[three]
    pair = ak.argcombinations(leptons, 2, fields=["i", "j"])
    first, second = leptons[pair.i], leptons[pair.j]
    pair = pair[(first.flavour == second.flavour) & (first.charge != second.charge)]
    some = ak.num(pair) >= 1
    leptons, met, pair = leptons[some], met[some], pair[some]
    mass = (leptons[pair.i] + leptons[pair.j]).mass
    best = pair[ak.argmin(abs(mass - 91.2), axis=1, keepdims=True)]
    index = ak.local_index(leptons.pt, axis=1)
    others = leptons[(index != ak.flatten(best.i)) & (index != ak.flatten(best.j))]
    hardest = others[ak.argmax(others.pt, axis=1, keepdims=True)]
    angle = ak.flatten(hardest.phi) - met.phi
    return (np.sqrt(2 * met.pt * ak.flatten(hardest.pt) * (1 - np.cos(angle))),)


def is_far_from(jets: Any, leptons: Any) -> Any:
    """For each jet, whether no lepton above 10 GeV is within a distance of 0.4."""
    near = jets.metric_table(leptons[leptons.pt > 10]) < 0.4
    return ~ak.any(near, axis=2)


def light_leptons(events: Any) -> Any:
    """Electrons and muons of each event in one list, with their ``flavour`` (11 or 13)."""
    return ak.concatenate([_leptons(events.Electron, 11), _leptons(events.Muon, 13)], axis=1)


def _leptons(particles: Any, flavour: int) -> Any:
    fields = {name: particles[name] for name in ("pt", "eta", "phi", "mass", "charge")}
    fields["flavour"] = ak.zeros_like(particles.charge) + flavour
    return ak.zip(fields, with_name="PtEtaPhiMCandidate", behavior=candidate.behavior)


_MET = "missing transverse energy (GeV)"

QUERIES = {
    "1": Query(met_of_all, (Plot("all events", _MET, 100, 0, 200),)),
    "2": Query(jet_pt, (Plot("all jets", "jet $p_T$ (GeV)", 100, 0, 200),)),
    "3": Query(central_jet_pt, (Plot(r"jets with $|\eta| < 1$", "jet $p_T$ (GeV)", 100, 0, 200),)),
    "4": Query(met_with_two_jets, (Plot("two jets above 40 GeV", _MET, 100, 0, 200),)),
    "5": Query(met_with_muon_pair, (Plot(r"$\mu^+\mu^-$ of 60-120 GeV", _MET, 100, 0, 200),)),
    "6": Query(
        best_trijet,
        (
            Plot("trijet closest to the top", "trijet $p_T$ (GeV)", 100, 0, 300),
            Plot("trijet closest to the top", "highest b tag", 50, 0, 1),
        ),
    ),
    "7": Query(
        clean_jet_sum, (Plot("jets above 30 GeV, no lepton near", r"$\Sigma\,p_T$ (GeV)", 100, 0, 500),)
    ),
    "8": Query(third_lepton_mt, (Plot("lepton beside the Z", "transverse mass (GeV)", 50, 0, 250),)),
}

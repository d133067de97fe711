"""Workers from a batch system: ``python cluster.py htcondor``, ``slurm``, or ``local`` for processes here.

The script is the same everywhere. Jobs bring the environment that runs it; nodes need nothing.
"""

import argparse
import random

import dask

import graphvine as gv

CLUSTERS = {"htcondor": gv.HTCondorCluster, "slurm": gv.SlurmCluster, "local": gv.LocalCluster}


@dask.delayed
def hits(seed: int, throws: int) -> int:
    generator = random.Random(seed)
    return sum(generator.random() ** 2 + generator.random() ** 2 < 1 for _ in range(throws))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("system", nargs="?", default="local", choices=CLUSTERS)
    cluster = CLUSTERS[parser.parse_args().system](cores=1, memory="1GB")
    cluster.adapt(0, 4)  # as many as there is work for
    throws, parts = 50_000, 40
    with gv.Manager(cluster=cluster) as m:
        inside = dask.delayed(sum)([hits(seed, throws) for seed in range(parts)])
        print(f"pi is about {4 * inside.compute(scheduler=m.get) / (throws * parts):.3f}")

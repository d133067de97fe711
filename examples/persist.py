"""Results that stay on the workers: persist once, ask several questions of it."""

import dask.array as da

import graphvine as gv

if __name__ == "__main__":
    with gv.Manager() as m:
        x = da.random.default_rng(1).normal(size=(2000, 4000), chunks=(500, 500))
        x = m.persist(
            (x - x.mean(axis=0)) / x.std(axis=0)
        )  # returns at once; blocks stay where they are made
        print("largest    ", float(x.max().compute(scheduler=m.get)))
        print("correlation", float((x[:, 0] * x[:, 1]).mean().compute(scheduler=m.get)))

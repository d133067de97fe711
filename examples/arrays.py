"""dask.array on a manager: `pip install ".[array]"`."""

import dask.array as da

import graphvine as gv

if __name__ == "__main__":
    with gv.Manager() as m:
        x = da.random.default_rng(1).random((4000, 4000), chunks=(500, 500))
        y = (x + x.T).mean(axis=0)
        print(y[:5].compute(scheduler=m.get))

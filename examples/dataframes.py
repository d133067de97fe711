"""dask.dataframe on a manager, with a shuffle between workers: `pip install ".[dataframe]"`."""

import dask
import dask.datasets

import graphvine as gv

if __name__ == "__main__":
    with gv.Manager() as m, dask.config.set(scheduler=m.get):
        frame = dask.datasets.timeseries(start="2024-01-01", end="2024-01-15", seed=1)
        print(frame.groupby("name").x.agg(["mean", "std", "count"]).compute().head())
        by_id = frame.shuffle("id", npartitions=7)
        print(f"{len(by_id):,} rows, the same id in the same partition")

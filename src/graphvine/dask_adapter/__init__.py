"""From dask to a plan: lowering, get, persist, futures, the Executor."""

"""graphvine runs dask graphs on clusters: one manager, many workers, data that stays where it was made."""

__version__ = "0.1.0.dev0"

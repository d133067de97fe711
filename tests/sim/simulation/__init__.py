"""A whole cluster in one process: the real cores, everything around them simulated. See ``cluster``."""

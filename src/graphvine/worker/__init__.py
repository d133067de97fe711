"""The worker: an agent that talks, stores and measures, and its executors."""

"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes is up to whatever else the machine does.
settings.register_profile("graphvine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("graphvine")

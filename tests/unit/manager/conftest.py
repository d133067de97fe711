"""A make-believe cluster for each story, its core checked after every turn."""

from __future__ import annotations

import pytest

from graphvine.manager.check import check
from graphvine.manager.core import Core
from graphvine.manager.rehearsal import Rehearsal
from graphvine.manager.settings import Settings


@pytest.fixture
def cluster() -> Rehearsal:
    return Rehearsal(Core(Settings(checked=True)), check)

"""TaskVine's module of this name."""

from graphvine import DaskVineDag as DaskVineDag
from graphvine import Manager

__all__ = ["DaskVine", "DaskVineDag"]

DaskVine = Manager

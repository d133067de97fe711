"""TaskVine's module of this name."""

from graphvine import DaskVineDag as DaskVineDag

"""TaskVine's module of this name."""

from graphvine import File as File

"""What the page says of sites is what clusters understand."""

from __future__ import annotations

import ast
import os
import re
import textwrap
from pathlib import Path

import pytest

import graphvine as gv
from graphvine.deploy.cluster import Cluster

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", PAGE.partition("\n## Sites\n")[2].partition("\n## ")[0], re.MULTILINE)


def test_there_are_sites() -> None:
    assert len(BLOCKS) == 5


@pytest.mark.parametrize("block", BLOCKS)
def test_a_sites_options_are_understood(block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PSCRATCH", str(tmp_path))
    (first, *_) = ast.parse(textwrap.dedent(block)).body
    known: dict[str, object] = {"gv": gv, "os": os}
    exec(compile(ast.Module([first], []), "the page", "exec"), known)
    cluster = known["cluster"]
    assert isinstance(cluster, Cluster)
    cluster.close()

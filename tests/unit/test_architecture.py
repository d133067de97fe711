"""The architecture page has a true row for every module, and the five parts stand at the top level."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLONE = (ROOT / ".git").exists()
PARTS = ("dask_adapter", "deploy", "envs", "manager", "worker")


@pytest.fixture(scope="module")
def listing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("list_modules", ROOT / "docs" / "list_modules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_a_true_row_for_every_module(listing):
    page = (ROOT / "docs" / "architecture.md").read_text()
    written = page.partition(listing.HEADING)[2].splitlines()
    expected = listing.section().partition(listing.HEADING)[2].splitlines()
    assert written == expected, "run: python docs/list_modules.py"


def test_every_module_says_what_it_is(listing):
    assert listing.modules()
    for name, path in listing.modules().items():
        assert len(listing.first_sentence(path)) > 10, f"{name} does not begin with what it is for"


@pytest.mark.skipif(not CLONE, reason="not a git clone: a source archive has no links")
@pytest.mark.parametrize("name", PARTS)
def test_the_parts_stand_at_the_top_level_as_links(name):
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("src/graphvine") / name
    assert (link / "__init__.py").exists()


@pytest.mark.skipif(not CLONE or shutil.which("git") is None, reason="not a git clone, or no git")
def test_git_keeps_them_as_links():
    # Whoever owns the clone: it is only read.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--stage", *PARTS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    modes = {line.split("\t")[1]: line.split()[0] for line in listed.stdout.splitlines()}
    assert modes == dict.fromkeys(PARTS, "120000")

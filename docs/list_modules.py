"""Writes the table of modules at the end of architecture.md: each module, and the first sentence of its page.

python docs/list_modules.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "graphvine"
PAGE = ROOT / "docs" / "architecture.md"
HEADING = "\n## Modules\n"
INTRODUCTION = """
One row per module: the first sentence of its own page, which says more. `python docs/list_modules.py` writes
this table, and a test compares it.
"""


def modules() -> dict[str, Path]:
    """Every module but the packages' own pages, as ``manager.core``."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
        if path.name != "__init__.py":
            found[name] = path
    return found


def first_sentence(path: Path) -> str:
    """What a module says it is, on one line."""
    page = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(page.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", paragraph)[0].replace("|", r"\|").replace("``", "`")


def section() -> str:
    """The whole section, heading and all."""
    rows = [f"| `{name}` | {first_sentence(path)} |" for name, path in modules().items()]
    return "\n".join([HEADING.rstrip("\n"), INTRODUCTION, "| module | what it is |", "|---|---|", *rows, ""])


def main() -> None:
    page = PAGE.read_text()
    PAGE.write_text(page.partition(HEADING)[0].rstrip("\n") + "\n" + section())


if __name__ == "__main__":
    main()

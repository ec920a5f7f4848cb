"""The paths that README.md and the docs name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
FOLDERS = {"docs", "examples", "kernels", "scheduler", "scripts", "swarmrt", "tests"}
ENDINGS = {".c", ".md", ".py", ".svg"}  # other names are of files that a run writes
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
IN_BACKTICKS = re.compile(r"`([^`]+)`")
A_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
A_PLACEHOLDER = re.compile(r"/([A-Z]+|\d+)\b")  # in the names of protocols


def named_paths(text: str) -> set[str]:
    """Return the paths in backticks: those of our folders, and files with one of our endings."""
    words = {word for code in IN_BACKTICKS.findall(FENCED.sub("", text)) for word in code.split()}
    paths = {word for word in words if A_PATH.fullmatch(word) and not A_PLACEHOLDER.search(word)}
    return {
        path
        for path in paths
        if ("/" in path and path.split("/")[0] in FOLDERS) or Path(path).suffix in ENDINGS
    }


def is_there(path: str) -> bool:
    """Return whether it is a path from the root, from a package, or the name of a module."""
    starts = [ROOT, ROOT / "swarmrt", ROOT / "docs"]
    found = any((start / path).exists() for start in starts)
    return found or ("/" not in path and any(any(ROOT.glob(f"{f}/**/{path}")) for f in FOLDERS))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = sorted(path for path in named_paths(text) if not is_there(path))
    links = [link for link in LINK.findall(text) if not link.startswith(("http:", "https:"))]
    missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.relative_to(ROOT)} names what is not there: {missing}"


def test_paths_are_found() -> None:
    text = "`python scripts/none --x`, `wire/none.py`, `events.jsonl`, `a/b`, `SWARMRT_X=1`"
    assert named_paths(text) == {"scripts/none", "wire/none.py"}

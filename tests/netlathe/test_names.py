"""One import name: nothing imports the rooms, or tells to, by any other name than netlathe's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = "archspace|compress|predictor|profiler|search|training"
OLD = re.compile(
    rf"\bfrom +(?:{ROOMS})(?:\.\w+)* +import\b|^import +(?:{ROOMS})\b|python -m (?:{ROOMS})\b", re.MULTILINE
)


def test_the_pattern_finds_imports_of_old_names_and_no_others() -> None:
    for old in ("from search import decode", "import predictor", "import os; from archspace.graph import Graph"):
        assert OLD.search(old), old
    for new in (
        "from netlathe.search import decode",
        "predictor import X",
        "import netlathe.predictor",
        "no import search yet",
    ):
        assert not OLD.search(new), new


def test_code_tests_and_documents_import_the_rooms_by_netlathes_name() -> None:
    files = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.sh", "scripts"], cwd=ROOT, capture_output=True, text=True
    )
    for name in files.stdout.split():
        text = (ROOT / name).read_text() if name != "tests/netlathe/test_names.py" else ""
        assert not (found := OLD.search(text)), f"{name}: {found.group(0)}"


def test_netlathe_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "netlathe", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("netlathe ")

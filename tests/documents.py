"""README.md and docs/, as tests read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [README, *GUIDES]
"""What users read."""
ALL = [*DOCUMENTS, *ROOT.glob("[A-QS-Z]*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("benchmarks/*/*.md")]


def python_blocks(path: Path) -> list[str]:
    """The Python that a document shows, block by block."""
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


def shell_lines(path: Path) -> list[str]:
    """The commands of a document's plain blocks, without comments; commands joined by && apart."""
    blocks = re.findall(r"```\n(.*?)```", path.read_text(), flags=re.DOTALL)
    lines = (line.partition(" #")[0].strip() for block in blocks for line in block.splitlines())
    return [part.strip() for line in lines for part in line.split("&&")]


def inline_code(path: Path) -> list[str]:
    """What stands in backticks, each in one line."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]

"""README.md and docs/, as tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
GUIDES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [README, *GUIDES]
"""What users read."""
ALL = [
    *DOCUMENTS,
    *ROOT.glob("[A-QS-Z]*.md"),
    *(path for path in ROOT.glob("*/*.md") if path.parent != DOCS),
    *ROOT.glob("benchmarks/*/*.md"),
]
_REASON = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a document."""

    language: str
    """Word behind the fence; '' for a plain block, which holds commands."""
    code: str
    line: int
    reason: str
    """Reason why no test runs it, as the comment before it says; '' where one does."""

    @property
    def commands(self) -> list[str]:
        """Its commands without comments; those joined by && apart, those broken by a backslash whole."""
        whole = self.code.replace("\\\n", " ")
        lines = [line.partition(" #")[0].strip() for line in whole.splitlines()]
        return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def snippets(path: Path) -> list[Snippet]:
    """The fenced blocks of a document, in their order."""
    return list(_snippets(path.read_text().splitlines()))


def _snippets(lines: list[str]) -> Iterator[Snippet]:
    fence, language, start, reason, code = "", "", 0, "", list[str]()
    for number, line in enumerate(lines, 1):
        if fence and line.strip() == fence:
            yield Snippet(language, "".join(f"{one}\n" for one in code), start, reason)
            fence, reason = "", ""
        elif fence:
            code.append(line)
        elif found := re.match(r"\s*(`{3,})(\w*)\s*$", line):
            fence, language, start, code = found[1], found[2], number, []
        elif found := _REASON.fullmatch(line.strip()):
            reason = found[1]
        elif line.strip():
            reason = ""


def python_blocks(path: Path) -> list[str]:
    """The Python that a document shows, block by block."""
    return [snippet.code for snippet in snippets(path) if snippet.language == "python"]


def shell_lines(path: Path) -> list[str]:
    """The commands of a document's plain blocks."""
    return [command for snippet in snippets(path) if not snippet.language for command in snippet.commands]


def inline_code(path: Path) -> list[str]:
    """What stands in backticks, each in one line."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]

"""Hooks of the site: files of the repository that pages link to become pages of it, below repository/.

So `../benchmarks/SEARCH.md` in docs/results.md leads somewhere on GitHub and in the site alike. Markdown is shown as it
is, other text as code; README.md is the home page. Options in commands are marked, too. `mkdocs.yml` names this file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PLACE = "repository"
"""Folder of the site that holds them."""
LINK = re.compile(r"(?<=\]\()(?![a-z][a-z0-9+.-]*:|#)([^)\s#]+)")
"""Target of a relative link, without its anchor."""
COMMANDS = re.compile(r'<div class="language-text highlight">.*?</div>', re.DOTALL)
"""Blocks of commands, as they come out of Markdown."""
OPTION = re.compile(r"(?<![\w-])(--?[a-z][\w-]*)")
LATER = "---\nsearch:\n  boost: 0.2\n---\n"
"""Front matter: a search shows them behind the pages of docs/."""
LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".yml": "yaml", ".ipynb": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of files that other pages link to, directly or by another such page."""
    docs = Path(config.docs_dir)
    waiting = [docs / file.src_uri for file in files.documentation_pages()]
    known: set[Path] = set()
    while waiting:
        source = waiting.pop()
        for target in _targets(source):
            if target not in known and not _is_own(target, docs) and target.is_file():
                known.add(target)
                waiting += [target] if target.suffix == ".md" else []
                files.append(File.generated(config, page_of(target), content=_content(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Makes links out of docs/, and from the pages below repository/, lead to pages of the site."""
    docs, uri = Path(config.docs_dir), page.file.src_uri
    source = source_of(uri) if uri.startswith(f"{PLACE}/") else docs / uri

    def moved(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        if not target.is_file():
            return match[1]
        uri_there = str(target.relative_to(docs)) if _is_own(target, docs) else page_of(target)
        return os.path.relpath(uri_there, Path(uri).parent)

    return LINK.sub(moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Marks the options of commands, which a browser would break behind their hyphens."""
    return COMMANDS.sub(lambda found: OPTION.sub(r'<span class="option">\1</span>', found[0]), html)


def page_of(target: Path) -> str:
    """Page of a file outside docs/."""
    name = target.relative_to(ROOT)
    if name == Path("README.md"):
        return "index.md"
    return str(Path(PLACE) / (name if name.suffix == ".md" else f"{name}.md"))


def source_of(uri: str) -> Path:
    """File that a page below repository/ shows."""
    name = ROOT / uri.removeprefix(f"{PLACE}/")
    return name if name.is_file() else name.with_suffix("")


def _targets(source: Path) -> Iterator[Path]:
    for found in LINK.findall(source.read_text()):
        target = (source.parent / found).resolve()
        if target.is_relative_to(ROOT) and target != ROOT / "README.md":
            yield target


def _is_own(target: Path, docs: Path) -> bool:
    return target.is_relative_to(docs)


def _content(target: Path) -> str:
    if target.suffix == ".md":
        return LATER + target.read_text()
    language = LANGUAGES.get(target.suffix, "text")
    return f"{LATER}# {target.relative_to(ROOT)}\n\n````{language}\n{target.read_text()}````\n"

"""The site is built without a warning, is whole without other hosts, and has a word on every public name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import netlathe as nl
from tests.documents import DOCS, ROOT

pytest.importorskip("mkdocs")
from scripts.site_hooks import on_page_content

LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(https?:|//)[^"' >]*""")


def test_every_public_name_stands_in_the_reference() -> None:
    pages = [DOCS / f"api/{name}.md" for name in ("functions", "inputs", "errors")]
    named = re.findall(r"^::: netlathe\.(?:\w+\.)*(\w+)$", "".join(path.read_text() for path in pages), re.MULTILINE)
    assert sorted(named) == sorted(set(nl.__all__) - {"__version__"})


def test_options_of_commands_are_marked_so_that_no_browser_breaks_them() -> None:
    line = "netlathe fit my-file.json --output a.json -q"
    block = '<div class="language-text highlight"><code><span id="__line-0-1">{}</span></code></div>'
    code = "<p><code>--output</code></p>"
    marked = line.replace("--output", '<span class="option">--output</span>').replace(
        "-q", '<span class="option">-q</span>'
    )
    assert on_page_content(block.format(line) + code) == block.format(marked) + code


@pytest.mark.slow
def test_the_site_is_built_strictly_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))  # with those of the repository
    assert not {page.name: loaded for page in pages if (loaded := LOADED.findall(page.read_text()))}
    functions = (tmp_path / "site/api/functions.html").read_text()
    assert all(
        re.search(rf'id="netlathe\.[\w.]*{name}"', functions) for name in ("profile", "fit", "search", "compress")
    )
    assert '"results.html' in (tmp_path / "site/search/search_index.json").read_text()

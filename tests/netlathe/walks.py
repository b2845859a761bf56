"""A reader of the documents: runs the snippets of a page one after the other, in a folder, perhaps shortened."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from test_cli import netlathe

from tests.documents import ROOT, Snippet, snippets

Shorter = Mapping[str, str]
"""Parts of a page, and what is run in place of each so that a test is short; each must be on the page."""
PROGRAM = re.compile(r"(?:\$ )?(?:adb|git|make|mkdocs|netlathe|pip|python3?|source|srun|sudo|torchrun)\b")
"""Beginnings of lines that a reader may type."""


def walk(
    page: Path, folder: Path, shorter: Shorter, *, command: Callable[[str], str] = str, python: bool = True
) -> list[str]:
    """Runs all snippets of the page that give no reason against it, in their order, and returns what each printed.

    The current folder must be `folder`. `command` has the last word on a command line; `python`:
    whether blocks of Python are run, too. Raises AssertionError with the
    snippet for one that fails, for a part of `shorter` that the page does not show, and for commands of other programs.
    """
    text = page.read_text()
    assert not (missing := [shown for shown in shorter if shown not in text]), f"{page.name} does not show {missing}"
    chosen = [one for one in snippets(page) if is_runnable(one) and (python or one.language != "python")]
    return [_run(snippet, page, folder, shorter, command) for snippet in chosen]


def is_runnable(snippet: Snippet) -> bool:
    """Whether a snippet is code or commands, and gives no reason why it is not run."""
    return not snippet.reason and (snippet.language == "python" or is_commands(snippet))


def is_commands(snippet: Snippet) -> bool:
    """Whether a snippet is of commands."""
    return snippet.language in ("", "sh", "bash") and any(map(PROGRAM.match, snippet.commands))


def _run(snippet: Snippet, page: Path, folder: Path, shorter: Shorter, command: Callable[[str], str]) -> str:
    if snippet.language == "python":
        return _python(["-c", _short(snippet.code, shorter)], f"{page.name}:{snippet.line}", folder)
    outputs = []
    for line in snippet.commands:
        words = shlex.split(command(_short(line, shorter)))
        where = f"{page.name}:{snippet.line}: {shlex.join(words)}"
        if words[:2] == ["python", "-m"]:  # of the checkout
            outputs.append(_python(words[1:], where, folder))
            continue
        assert words[0] == "netlathe", where
        if words[1].startswith("-"):
            outputs.append(_python(["-m", *words], where, folder))
            continue
        found = netlathe(*words[1:])
        assert found.exit_code == 0, f"{where}\n{found.output}\n{found.exception}"
        outputs.append(found.output)
    return "".join(outputs)


def _python(words: list[str], where: str, folder: Path) -> str:
    """Output of a Python of its own, with warnings as errors, which finds the examples."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, f"{where}\n{found.stdout}\n{found.stderr}"
    return found.stdout


def _short(text: str, shorter: Shorter) -> str:
    for shown, quick in shorter.items():
        text = text.replace(shown, quick)
    return text


def on_phone(address: str, binary: Path) -> Callable[[str], str]:
    """Commands with a phone of 127.0.0.1 in the place of the one on the cable."""
    given = f"--device {address} --benchmark-binary {binary}"
    return lambda line: re.sub(r"--device (?:usb|tcp:192\S+)", given, line)

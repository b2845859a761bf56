"""README.md and docs/ say what is there: commands, options, links, messages and numbers."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from netlathe.archspace.networks import network
from netlathe.cli.app import make_app
from netlathe.predictor import LatencyPredictor, shipped_names
from tests.documents import ALL, DOCS, DOCUMENTS, GUIDES, README, ROOT, inline_code, python_blocks, shell_lines

SHIPPED = {*shipped_names()}
OF_ALL = {"--help", "--debug", "--version", "--install-completion", "--show-completion"}
"""Options that belong to no command."""
COMMANDS = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]


def options_of(command: object) -> dict[str, bool]:
    """Name -> whether it must be given, of a command and those below it."""
    found = {
        name: parameter.required
        for parameter in command.params  # type: ignore[attr-defined]
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }
    for below in getattr(command, "commands", {}).values():
        found |= options_of(below)
    return found


def problems(line: str, *, is_whole: bool) -> list[str]:
    """What netlathe would not understand of a command line; where it is whole, also what it would miss."""
    words = shlex.split(line)[1:]
    if not words or words[0].startswith("-"):
        return []
    if words[0] not in COMMANDS:
        return [f"there is no command {words[0]}"]
    options = options_of(COMMANDS[words[0]])
    given = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
    found = [f"there is no option {name}" for name in sorted(given - options.keys())]
    if is_whole and "..." not in line:
        found += [f"lacks {name}" for name, required in options.items() if required and name not in given]
    return found


def test_commands_of_other_names_options_and_gaps_are_found() -> None:
    assert problems("netlathe fitt x.sqlite", is_whole=True) == ["there is no command fitt"]
    assert problems("netlathe fit x.sqlite --putput y", is_whole=True) == [
        "there is no option --putput",
        "lacks --output",
    ]
    assert problems("netlathe fit ... --few-shot", is_whole=True) == []
    assert problems("netlathe device clean --device usb", is_whole=True) == []


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_netlathe_understands_every_command_that_is_shown(path: Path) -> None:
    lines = [line.partition(" | ")[0] for line in shell_lines(path)]
    shown = [(line, True) for line in lines if line.startswith("netlathe ")]
    shown += [(code, False) for code in inline_code(path) if re.match(r"netlathe [a-z]", code)]
    assert not {line: found for line, is_whole in shown if (found := problems(line, is_whole=is_whole))}


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_is_mentioned_exists(path: Path) -> None:
    known = {name for command in COMMANDS.values() for name in options_of(command)} | OF_ALL
    mentioned = {name for code in inline_code(path) for name in re.findall(r"(?:^|\s)(--[a-z][a-z0-9-]*)", code)}
    of_benchmarks = {
        name
        for code in [*inline_code(path), *shell_lines(path)]
        if code.startswith(("python -m", "pip ", "mkdocs ", "git "))
        for name in re.findall(r"--[a-z][a-z0-9-]*", code)
    }
    assert mentioned - known - of_benchmarks == set()


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{path.name}: {target} is no heading of {file.name}"


def outputs_of_runs(path: Path) -> list[str]:
    """Folders of the searches and compressions that a document shows, of commands and of calls."""
    shown = [*shell_lines(path), *(code for code in inline_code(path) if code.startswith("netlathe "))]
    words = [shlex.split(line) for line in shown if re.match(r"netlathe (?:search|compress)\b", line)]
    found = [one[one.index("--output") + 1] for one in words if "--output" in one and "--worker" not in one]
    for call in (node for block in python_blocks(path) for node in ast.walk(ast.parse(block))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("nl.search", "nl.compress"):
            given = {one.arg: one.value for one in call.keywords}
            found += [str(one.value) for one in [given.get("output")] if isinstance(one, ast.Constant)]
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_run_that_a_document_shows_has_a_folder_of_its_own(path: Path) -> None:
    """Typed one after the other, the second would be refused as another run, or go on with the first."""
    found = outputs_of_runs(path)
    assert len({*found}) == len(found), sorted(found)


def test_runs_of_documents_are_found() -> None:
    assert sum(len(outputs_of_runs(path)) for path in DOCUMENTS) > 12


def test_the_site_has_every_page_in_its_menu() -> None:
    menu = re.findall(r": ([\w/-]+\.md)$|- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(DOCS / (named or plain) for named, plain in menu) == GUIDES


def test_every_picture_is_shown_somewhere() -> None:
    shown = {
        (path.parent / name).resolve() for path in ALL for name in re.findall(r"\]\(([^)\s]+\.png)", path.read_text())
    }
    assert {*DOCS.rglob("*.png")} <= shown


def test_the_readme_is_one_screen() -> None:
    assert len(README.read_text().splitlines()) <= 80


def test_the_readme_leads_to_the_first_pages() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#\s]+)", README.read_text()))
    tutorials = {str(path.relative_to(DOCS)) for path in (DOCS / "tutorials").glob("*.md")}
    assert {"index.md", "install.md", "results.md", "comparison.md", *tutorials} <= linked


def test_pictures_of_the_documents_are_small() -> None:
    assert all(path.stat().st_size < 200_000 for path in DOCS.rglob("*.png"))


def texts(folder: Path) -> list[str]:
    """Every text in the code below a folder; what is put into one shows as three dots."""
    nodes = [node for path in folder.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    parts = [node.values if isinstance(node, ast.JoinedStr) else [node] for node in nodes]
    return ["".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in one) for one in parts]


def test_every_message_that_troubleshooting_quotes_is_said() -> None:
    said = [text for folder in ("profiler", "device_scripts", "src/netlathe/cli") for text in texts(ROOT / folder)]
    text = (ROOT / "docs" / "phone-troubleshooting.md").read_text()
    symptoms = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    quoted = [phrase for symptom in symptoms for phrase in re.findall(r"(?<!\w)\*([^*]+)\*", symptom)]
    assert len(quoted) > 20
    for phrase in quoted:
        pattern = re.compile(".{1,80}".join(map(re.escape, phrase.split("..."))), flags=re.DOTALL)
        assert any(pattern.search(one) for one in said), phrase


def test_every_number_of_the_readmes_results_stands_in_the_results() -> None:
    details = (ROOT / "docs/results.md", ROOT / "benchmarks/SEARCH.md", ROOT / "benchmarks/predictor/RESULTS.md")
    told = " ".join(path.read_text() for path in details)
    rows = re.findall(r"^\| \[.*?\]\(docs/results\.md#.*?\) \|(.*)\|$", README.read_text(), flags=re.MULTILINE)
    numbers = {number for row in rows for number in re.findall(r"\d+(?:\.\d+)?", row)}
    assert len(rows) > 5
    assert not {number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]\d)", told)}


NAMED = re.compile(
    r"""(?:--target(?:=|\s+)|--predictor(?:=|\s+)|Target\(\s*"|nl\.predict\([^)]*")([a-z0-9-]+)(?=[="\s`]|$)"""
)
"""A shipped predictor's name, where an example asks it for a network's latency."""


def predictors_shown() -> set[tuple[str, str]]:
    """(document, name) of all predictors that examples ask for a network's latency."""
    code = (path for folder in ("examples", "src/netlathe", "predictor") for path in (ROOT / folder).rglob("*.py"))
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in (*ALL, *code)}
    return {(name, found) for name, text in texts.items() for found in NAMED.findall(text) if found in SHIPPED}


def test_every_predictor_that_an_example_asks_for_a_network_prices_one() -> None:
    shown = predictors_shown()
    assert {"README.md", "docs/search.md", "docs/predict.md"} <= {document for document, _ in shown}
    whole = network("mobilenet_v2").graph()
    priced = {name: bool(LatencyPredictor.load(name).knows([whole])[0]) for name in SHIPPED}
    assert not {(document, name) for document, name in shown if not priced[name]}
    assert not all(priced.values())  # those of parts would be told


def test_examples_that_ask_predictors_for_networks_are_found() -> None:
    told = (
        'nl.Target("pixel4-cpu", ms=3) `--target pixel4-gpu=40 --target my.json=12` --predictor pixel1-cpu\n'
        'nl.predict("mobilenet_v2", "sd855-cpu-kernels")'
    )
    assert {*NAMED.findall(told)} & SHIPPED == {"pixel4-cpu", "pixel4-gpu", "pixel1-cpu", "sd855-cpu-kernels"}

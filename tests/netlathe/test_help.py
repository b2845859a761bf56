"""Help texts: read alone, at 80 columns, by somebody who knows none of our words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from netlathe.cli.app import make_app
from netlathe.profiler.protocol import PHONE_PLAN, Plan
from netlathe.profiling import NETWORKS

UNITS = {"_ms": "in ms", "_s": "Seconds", "resolution": "in pixels"}
"""What the help of an option of such a name must say; `budget_s` is in seconds however it is put."""
NOT_ALONE = {"Of", "That", "Those", "This", "It", "They", "Them", "What", "The"}
"""First words of texts that need their neighbours."""


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*words, name))


COMMANDS = dict(leaves(typer.main.get_command(make_app())))
OPTIONS = {(*words, parameter.name): parameter for words, command in COMMANDS.items() for parameter in command.params}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_eighty_columns_and_cuts_no_option(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(make_app(only=next(iter(words), "")), [*words, "--help"]).output
    assert shown.count("\n") > 5
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("key", OPTIONS, ids=" ".join)
def test_the_help_of_an_option_stands_alone(key: tuple[str, ...]) -> None:
    text = OPTIONS[key].help
    assert text
    assert text.endswith(".")
    assert text[0].isupper()
    assert text.split()[0] not in NOT_ALONE
    for ending, unit in UNITS.items():
        assert not key[-1].endswith(ending) or unit.lower() in text.lower(), text


@pytest.mark.parametrize("words", [words for words in COMMANDS if words], ids=" ".join)
def test_the_help_of_a_command_begins_with_one_sentence(words: tuple[str, ...]) -> None:
    first = COMMANDS[words].help.partition("\n\n")[0]
    assert first.split()[0] not in NOT_ALONE
    assert first.endswith(".")
    assert len(" ".join(first.split())) <= 130


def numbers() -> list[tuple[str, ...]]:
    """The options that take a number."""
    kinds = {words: get_type_hints(one.callback) for words, one in COMMANDS.items() if one.callback}
    return [key for key in OPTIONS if kinds.get(key[:-1], {}).get(key[-1]) in (int, float, int | None, float | None)]


@pytest.mark.parametrize("key", numbers(), ids=" ".join)
def test_every_number_tells_its_default(key: tuple[str, ...]) -> None:
    """A latency to meet has none."""
    parameter = OPTIONS[key]
    says = parameter.default is not None or isinstance(parameter.show_default, str) or parameter.required
    assert says or key == ("search", "target_ms")


def test_defaults_that_are_told_in_words_are_the_real_ones() -> None:
    told = {key[-1]: one.show_default for key, one in OPTIONS.items() if key[0] == "profile"}
    assert told["rounds"] == f"{Plan().max_rounds}, on phones {PHONE_PLAN.max_rounds}"
    assert told["networks"].startswith(f"{NETWORKS}, ")

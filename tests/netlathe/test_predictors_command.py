"""`netlathe predictors`, and shipped names where a predictor's file is expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from netlathe.cli.app import make_app
from netlathe.predictor.catalogue import read_card, shipped_names

BLOCK = "mbconv_k3_e6_s1_c24-24_56x56_hard_swish"


def netlathe(*arguments: object) -> Result:
    return CliRunner().invoke(make_app(only=str(arguments[0])), [str(a) for a in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    """The JSON object on the last line of standard output of a command that succeeds."""
    result = netlathe(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_the_list_has_every_shipped_predictor_on_a_line() -> None:
    result = netlathe("predictors")
    assert result.exit_code == 0, result.output
    for name in shipped_names():
        (line,) = (line for line in result.stdout.splitlines() if line.split()[:1] == [name])
        assert read_card(name).setup.device in line


def test_json_lists_the_cards() -> None:
    cards = {card["name"]: card for card in answer("predictors")["predictors"]}
    assert list(cards) == shipped_names()
    assert cards["pixel4-cpu"] == answer("predictors", "pixel4-cpu")
    assert cards["pixel4-cpu"]["counts"] == {"blocks": 1788}
    assert cards["pixel4-cpu"]["accuracy"]["blocks"]["n"] == 1788


def test_a_card_says_where_it_comes_from_and_what_it_cannot_know() -> None:
    result = netlathe("predictors", "pixel4-gpu")
    assert result.exit_code == 0, result.output
    card = read_card("pixel4-gpu")
    for text in (card.summary, card.source, card.license, *card.limits):
        assert text in result.output.replace("\n", " ")
    for held_out in card.accuracy:
        assert held_out in result.stdout


def test_a_shipped_name_serves_as_a_predictor() -> None:
    predicted = answer("predict", BLOCK, "--predictor", "pixel4-cpu")
    assert 0 < predicted["low_ms"] < predicted["latency_ms"] < predicted["high_ms"]
    assert predicted["setup"]["device"] == "Pixel 4"
    slower = answer("predict", BLOCK, "--predictor", "pixel1-cpu")
    assert slower["latency_ms"] > predicted["latency_ms"]


def test_an_unknown_name_ends_with_the_names_there_are() -> None:
    result = netlathe("predict", BLOCK, "--predictor", "pixel5-cpu")
    assert result.exit_code == 1
    message = " ".join(result.stderr.split())
    assert "pixel5-cpu: there is no such file" in message
    assert "pixel1-cpu, pixel4-cpu" in message


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "netlathe.predictor/1"}'])
def test_a_file_without_a_card_is_an_error_in_one_paragraph(content: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(content)
    result = netlathe("predictors", tmp_path / "p.json")
    assert result.exit_code == 1
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output

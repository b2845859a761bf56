"""Each network on each device's predictor."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from test_cli import answer, netlathe, refusal

from netlathe.archspace.networks import network
from netlathe.archspace.presets import tiny

DEVICES = ("pixel4-cpu-networks", "pixel4-cpu-int8-networks")
NETWORKS = ("mobilenet_v2_0.5", "mobilenet_v2", "proxyless_gpu")


@pytest.fixture(scope="module")
def words() -> list[str]:
    return ["compare", *NETWORKS, *(word for device in DEVICES for word in ("--predictor", device))]


def test_every_price_is_that_devices_prediction(words: list[str], tmp_path: Path) -> None:
    found = answer(*words, "--output", tmp_path / "t.csv")
    assert list(found["devices"]) == list(DEVICES)
    for row in found["networks"]:
        for device in DEVICES:
            priced = answer("predict", row["name"], "--predictor", device)
            assert row["latency_ms"][device] == pytest.approx(priced["latency_ms"], rel=1e-9)
            assert row["interval_ms"][device] == pytest.approx([priced["low_ms"], priced["high_ms"]], rel=1e-9)
    with (tmp_path / "t.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["network", *DEVICES]
    assert [[name, *map(float, values)] for name, *values in rows] == [
        [row["name"], *row["latency_ms"].values()] for row in found["networks"]
    ]


def test_the_fastest_of_each_column_is_marked(words: list[str]) -> None:
    found = answer(*words)
    for device in DEVICES:
        best = [row["name"] for row in found["networks"] if device in row["best_on"]]
        assert best == [min(found["networks"], key=lambda row: row["latency_ms"][device])["name"]]
    shown = netlathe(*words).stdout
    assert shown.count("*") == len(DEVICES)


def test_a_single_network_is_the_best_of_nothing() -> None:
    found = answer("compare", "mobilenet_v2", "--predictor", DEVICES[0])
    assert found["networks"][0]["best_on"] == []


def test_networks_of_one_name_are_told_apart_by_their_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        network("mobilenet_v2").save(file)
    found = answer("compare", *files, "--predictor", DEVICES[0])
    assert [row["name"] for row in found["networks"]] == [f"mobilenet_v2 ({file})" for file in files]


def test_a_network_unlike_the_predictors_own_is_warned_of(tmp_path: Path) -> None:
    tiny(8).architecture([0] * 10).save(tmp_path / "a.json")
    (warning,) = answer("compare", tmp_path / "a.json", "--predictor", DEVICES[0])["warnings"]
    assert "little more than a guess" in warning


def test_an_unknown_network_or_predictor_is_refused() -> None:
    assert "unknown network 'alexnet'" in refusal("compare", "alexnet", "--predictor", DEVICES[0])
    assert "none.json" in refusal("compare", "mobilenet_v2", "--predictor", "none.json")

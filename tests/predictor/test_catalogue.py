from pathlib import Path

import numpy as np
import pytest
from synthetic_latency import block_records, random_blocks

from netlathe.archspace.block_names import parse_block
from netlathe.archspace.errors import FormatError
from netlathe.archspace.networks import network
from netlathe.archspace.resources import data_files
from netlathe.predictor import LatencyPredictor, Metrics, Prior, UnknownOpError
from netlathe.predictor.catalogue import Card, predictor_path, read_card, shipped_names
from netlathe.predictor.files import FILE_KIND, FILE_VERSION, read_model, write_model
from netlathe.predictor.transfer.prior import FILE_VERSION as PRIOR_VERSION

BLOCK = parse_block("mbconv_k3_e6_s1_c24-24_56x56_hard_swish")
ACCURACY = {"n": 12, "mape": 0.1, "within_5": 0.5, "within_10": 0.75, "spearman": 0.9, "coverage": 0.9}
NETWORKS = ("pixel4-cpu-networks", "pixel4-cpu-int8-networks", "pixel4-gpu", "unnamed-phone-cpu")


def write_with_card(path: Path, **changes: object) -> dict[str, object]:
    predictor = LatencyPredictor("none").fit(block_records(random_blocks(12)))
    card = {
        "name": "one", "summary": "Made up.", "source": "nowhere", "license": "MIT",
        "setup": predictor.setup_.to_json(), "counts": {"blocks": 12},
        "accuracy": {"blocks": ACCURACY},
        "limits": ["Everything."], **changes,
    }  # fmt: skip
    write_model(path, FILE_KIND, FILE_VERSION, predictor.to_json(), card)
    return card


@pytest.mark.parametrize("name", shipped_names())
class TestEachShippedPredictor:
    def test_is_small(self, name):
        assert predictor_path(name).stat().st_size < 1_000_000

    def test_has_a_card_that_belongs_to_it(self, name):
        card, predictor = read_card(name), LatencyPredictor.load(name)
        assert card.name == name
        assert card.setup == predictor.setup_
        assert sum(card.counts.values()) == predictor.n_blocks_ + predictor.n_networks_
        assert card.counts.get("networks", 0) == predictor.n_networks_
        assert card.source
        assert card.license in ("MIT", "Apache-2.0")
        assert all(limit.endswith(".") for limit in (card.summary, *card.limits))

    def test_tells_an_accuracy_that_makes_sense(self, name):
        for metrics in read_card(name).accuracy.values():
            assert metrics.n > 0
            assert 0 < metrics.mape < 0.3
            assert 0 <= metrics.within_5 <= metrics.within_10 <= 1
            assert 0.8 < metrics.spearman <= 1
            assert metrics.coverage is not None
            assert 0.5 < metrics.coverage <= 1

    def test_comes_back_unchanged_from_another_save(self, name, tmp_path):
        predictor = LatencyPredictor.load(name)
        predictor.save(tmp_path / "p.json")
        again = LatencyPredictor.load(tmp_path / "p.json")
        assert again.to_json() == predictor.to_json()


@pytest.mark.parametrize("path", data_files("priors", ".json"), ids=lambda path: path.stem)
def test_a_shipped_prior_is_small_and_says_where_it_comes_from(path):
    assert path.stat().st_size < 1_000_000
    assert Prior.load(path.stem).to_json()["devices"] == Prior.load(path).to_json()["devices"]
    card = read_model(path, "prior", PRIOR_VERSION, lambda file: file.card)
    assert card["name"] == path.stem
    assert card["source"]
    assert card["license"]
    assert card["accuracy"]


def test_there_are_phones_cpus_and_gpus():
    assert {"pixel1-cpu", "pixel4-cpu", "pixel4-gpu"} <= set(shipped_names())


def test_a_pixel_4_is_faster_than_a_pixel_1():
    pixel1, pixel4 = (LatencyPredictor.load(name).predict([BLOCK])[0] for name in ("pixel1-cpu", "pixel4-cpu"))
    assert 0 < pixel4 < pixel1


@pytest.mark.parametrize("name", NETWORKS)
def test_those_that_know_all_ops_of_a_network_rank_networks_by_size(name):
    predictor = LatencyPredictor.load(name)
    networks = [network(f"mobilenet_v2_{width}").graph() for width in ("0.35", "0.5", "0.75", "1.0", "1.4")]
    latency_ms = predictor.predict(networks)
    low_ms, high_ms = predictor.predict_interval(networks)
    assert (np.diff(latency_ms) > 0).all()
    assert (low_ms < latency_ms).all()
    assert (latency_ms < high_ms).all()


def test_a_network_with_ops_that_were_never_measured_is_an_error():
    with pytest.raises(UnknownOpError, match="no measured block contains"):
        LatencyPredictor.load("pixel4-cpu").predict([network("mobilenet_v2_1.0").graph()])


def test_an_unknown_name_lists_what_ships():
    with pytest.raises(FormatError, match=r"pixel5-cpu: there is no such file.*pixel1-cpu, pixel4-cpu"):
        LatencyPredictor.load("pixel5-cpu")


def test_a_file_of_that_name_comes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_with_card(tmp_path / "pixel4-cpu")
    assert LatencyPredictor.load("pixel4-cpu").n_blocks_ == 12
    assert predictor_path("pixel1-cpu") in data_files("predictors", ".json")


@pytest.mark.parametrize("path", ["folder/pixel4-cpu", "pixel4-cpu.json", "./x/../pixel4-cpu", "/pixel4-cpu"])
def test_a_path_is_never_taken_for_a_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=r"there is no such file$"):
        LatencyPredictor.load(path)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_name_at_all_is_an_error(name):
    with pytest.raises(FormatError):
        LatencyPredictor.load(name)


def test_a_card_comes_back_as_it_was_written(tmp_path):
    card = Card.from_json(write_with_card(tmp_path / "p.json"))
    assert read_card(tmp_path / "p.json") == card
    assert card.accuracy["blocks"] == Metrics(12, 0.1, 0.5, 0.75, 0.9, 0.9)
    assert Card.from_json(card.to_json()) == card


def test_a_predictor_of_ones_own_has_no_card(tmp_path):
    LatencyPredictor("none").fit(block_records(random_blocks(12))).save(tmp_path / "p.json")
    with pytest.raises(FormatError, match="has no card"):
        read_card(tmp_path / "p.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": 3}, {"summary": "\x1b[2J"}, {"limits": ["a\nb"]}, {"limits": [None]}, {"limits": None},
        {"setup": {}}, {"setup": "x"}, {"counts": []}, {"counts": {"blocks": "many"}},
        {"accuracy": {"a": {"n": 1}}}, {"accuracy": {"a": {**ACCURACY, "mape": "small"}}}, {"accuracy": {}},
        {"accuracy": {"a": 3}}, {"accuracy": []}, {"license": None},
    ],
)  # fmt: skip
def test_a_card_that_is_none_is_refused(changes, tmp_path):
    write_with_card(tmp_path / "p.json", **changes)
    with pytest.raises(FormatError, match="damaged"):
        read_card(tmp_path / "p.json")

import hashlib
import json

import numpy as np
import pytest
from synthetic_latency import block_records, head_and_stem_records, network_records, random_blocks, random_network

from archspace.errors import FormatError
from predictor import LatencyPredictor

ITEMS = [b.graph() for b in random_blocks(50, seed=9)] + [random_network(5), random_network(6)]


def fit(residual: str) -> LatencyPredictor:
    records = block_records(random_blocks(24), noise=0.02) + head_and_stem_records()
    return LatencyPredictor(residual, random_state=4).fit(records + network_records(range(6), 1.1, 0.3, 0.01))


@pytest.fixture(scope="module", params=["gp", "xgboost"])
def saved(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "predictor.json"
    fit(request.param).save(path)
    return path


@pytest.mark.parametrize("residual", ["none", "gp", "xgboost"])
def test_a_loaded_predictor_predicts_exactly_the_same(residual, tmp_path):
    predictor = fit(residual)
    predictor.save(tmp_path / "p.json")
    again = LatencyPredictor.load(tmp_path / "p.json")
    assert np.array_equal(again.predict(ITEMS), predictor.predict(ITEMS))
    assert np.array_equal(again.predict_interval(ITEMS, 0.8), predictor.predict_interval(ITEMS, 0.8))
    assert again.setup_ == predictor.setup_
    assert again.get_params() == predictor.get_params()
    for name in ("residual_", "network_slope_", "network_offset_ms_", "n_blocks_", "n_networks_"):
        assert getattr(again, name) == getattr(predictor, name)


def test_saving_a_loaded_predictor_gives_the_same_file(saved, tmp_path):
    LatencyPredictor.load(saved).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == saved.read_bytes()


def test_the_file_says_what_it_is(saved):
    file = json.loads(saved.read_text())
    assert file["schema"] == "netlathe.predictor/1"
    assert len(file["sha256"]) == 64


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"x"', "{}", '{"schema": "netlathe.space/1"}', '{"schema": 3}',
        '{"schema": "netlathe.predictor/1"}', '{"schema": "netlathe.predictor/1", "sha256": "", "content": {}}',
        '{"schema": "netlathe.predictor/1", "sha256": [], "content": null}', "[" * 100_000,
        '{"schema": "netlathe.predictor/1", "content": ' + "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_a_predictor_is_refused(text, tmp_path):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(FormatError, match=r"p\.json"):
        LatencyPredictor.load(tmp_path / "p.json")


@pytest.mark.parametrize("content", [b"\x80\x04\x95", b"\xff\xfe\x00", b"PK\x03\x04"])
def test_binary_files_are_refused(content, tmp_path):
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"p\.json"):
        LatencyPredictor.load(tmp_path / "p.json")


def test_a_missing_file_is_a_format_error(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        LatencyPredictor.load(tmp_path / "none.json")


def test_a_newer_file_asks_for_an_upgrade(saved, tmp_path):
    (tmp_path / "p.json").write_text(saved.read_text().replace("netlathe.predictor/1", "netlathe.predictor/2"))
    with pytest.raises(FormatError, match="upgrade netlathe"):
        LatencyPredictor.load(tmp_path / "p.json")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, tmp_path, part):
    text = saved.read_text()
    (tmp_path / "p.json").write_text(text[: int(len(text) * part)])
    with pytest.raises(FormatError, match="cannot be read as JSON"):
        LatencyPredictor.load(tmp_path / "p.json")


def test_a_changed_number_is_noticed(saved, tmp_path):
    file = json.loads(saved.read_text())
    file["content"]["networks"]["slope"] *= 1.01
    (tmp_path / "p.json").write_text(json.dumps(file))
    with pytest.raises(FormatError, match="checksum"):
        LatencyPredictor.load(tmp_path / "p.json")


def _leaves(value, path=()):
    """Paths of every object and the first element of every list."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from _leaves(value[0], (*path, 0))


HARMLESS = {("parameters", "residual"), ("counts", "blocks"), ("counts", "networks"), ("parameters", "random_state")}


@pytest.mark.parametrize("junk", [None, "junk", -1, [], {}, 1e400])
def test_content_with_a_right_checksum_and_wrong_values_is_refused_or_usable(saved, tmp_path, junk):
    """Whoever can compute a checksum may still be wrong: junk anywhere is a FormatError, or does no harm."""
    original = json.loads(saved.read_text())["content"]
    for path in list(_leaves(original))[1:]:
        content = json.loads(json.dumps(original))
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = junk
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        (tmp_path / "p.json").write_text(
            json.dumps({"schema": "netlathe.predictor/1", "sha256": digest, "content": content})
        )
        try:
            predictor = LatencyPredictor.load(tmp_path / "p.json")
        except FormatError:
            continue
        assert np.isfinite(predictor.predict(ITEMS[:3])).all(), path
        assert np.isfinite(predictor.predict_interval(ITEMS)).all(), path

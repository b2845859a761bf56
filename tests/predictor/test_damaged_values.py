"""Files with a right checksum and wrong numbers: refused, or good for latencies or an error, never for nan."""

import base64
import copy
import hashlib
import json
import random
import warnings
import zlib

import numpy as np
import pytest
from synthetic_latency import block_records, head_and_stem_records, network_records, random_blocks, true_latency_ms

from netlathe.archspace.errors import FormatError
from netlathe.predictor import LatencyPredictor, PredictorError, Prior
from netlathe.predictor.features.samples import sample_of
from netlathe.predictor.files import FILE_VERSION, pack
from netlathe.predictor.validation.choose_model import fit_model

RECORDS = block_records(random_blocks(24), noise=0.02) + head_and_stem_records()
NETWORKS = network_records(range(6), 1.1, 0.3, 0.01)
GRAPHS = [record.graph for record in RECORDS]
NUMBERS = (0, -1, 1, 0.5, 1e29, -1e29, 1e-29, 1e300, -1e300, 5e-324, 1e10, -1e-10)
FEW, MANY = 15, pytest.param(120, marks=pytest.mark.slow)
"""Wrong files of a kind, in the fast suite and in the slow one."""


def known_devices() -> Prior:
    return Prior.learn({str(s): (GRAPHS, [s * true_latency_ms(g) for g in GRAPHS]) for s in (1, 2, 3)})


def fitted(kind: str) -> LatencyPredictor:
    if "few-shot" not in kind:
        residual = {"gp": 0.5, "forest": 0.5} if "+" in kind else kind
        return LatencyPredictor(residual, 4).fit(RECORDS + NETWORKS)
    latency_ms = [1.5 * true_latency_ms(g) for g in GRAPHS[:9]]
    predictor = LatencyPredictor("none", prior=known_devices()).fit(GRAPHS[:9], latency_ms)
    if "+" in kind:
        predictor.model_ = fit_model(sample_of(GRAPHS[:9], latency_ms, None), known_devices(), "none", 0, share=0.5)
    return predictor


def unpacked(value):
    """The content as plain lists."""
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "zlib"}:
        array = np.frombuffer(zlib.decompress(base64.b64decode(value["zlib"])), value["dtype"])
        return array.reshape(value["shape"], order="F").tolist()
    if isinstance(value, dict):
        return {key: unpacked(inner) for key, inner in value.items()}
    return [unpacked(inner) for inner in value] if isinstance(value, list) else value


def sealed(content: object, kind: str = "predictor", version: int = FILE_VERSION) -> str:
    body = {"content": json.loads(json.dumps(pack(content))), "card": None}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({"schema": f"netlathe.{kind}/{version}", "sha256": digest, **body})


def mutated(content, rng: random.Random):
    """With one number, or all numbers of one list, replaced, scaled, turned round or left out."""
    content = place = copy.deepcopy(content)
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        value = place[key]
        if not (isinstance(value, (dict, list)) and value) or (isinstance(value, list) and rng.random() < 0.1):
            break
        place = value
    scale = rng.choice(NUMBERS)
    if isinstance(value, list):
        try:
            scaled = (np.array(value, dtype=float) * scale).tolist()
        except ValueError:  # of words
            scaled = []
        place[key] = rng.choice([value[:-1], value[::-1], scaled])
    elif isinstance(value, (int, float)):
        place[key] = rng.choice([scale, -value, value * 1e3, value * 1e-10, value + 1])
    else:
        place[key] = rng.choice(["", "x", None, 3])
    return content


def assert_sound(predictor: LatencyPredictor) -> None:
    """What it says of anything is a latency, or an error."""
    items = GRAPHS if "few-shot" in predictor.residual_ else [*GRAPHS, *(record.graph for record in NETWORKS)]
    try:
        latency_ms, (low, high) = predictor.predict(items), predictor.predict_interval(items)
        added = predictor.tabulate([items[:3]])
    except PredictorError:
        return
    assert np.isfinite([latency_ms, low, high]).all()
    assert np.isfinite(added).all()
    assert ((low >= 0) & (low <= latency_ms * (1 + 1e-9)) & (latency_ms <= high * (1 + 1e-9))).all()


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("kind", ["gp", "xgboost", "0.5 gp + 0.5 forest", "few-shot", "0.5 few-shot + 0.5 (none)"])
def test_wrong_numbers_in_a_predictor_s_file_never_become_a_prediction(kind, count, tmp_path):
    original, rng, refused = fitted(kind), random.Random(kind), 0
    assert original.residual_ == kind
    content = unpacked(json.loads(json.dumps(pack(original.to_json()))))
    path = tmp_path / "p.json"
    for _ in range(count):
        changed = mutated(content, rng)
        path.write_text(sealed(changed))
        try:
            loaded = LatencyPredictor.load(path)
        except FormatError:
            refused += 1
            continue
        assert_sound(loaded)
    assert refused > count / 10


@pytest.mark.parametrize("count", [FEW // 2, pytest.param(40, marks=pytest.mark.slow)])
def test_wrong_numbers_in_a_prior_s_file_never_become_a_prediction(count, tmp_path):
    content, rng = unpacked(json.loads(json.dumps(pack(known_devices().to_json())))), random.Random(0)
    path, refused = tmp_path / "p.json", 0
    for _ in range(count):
        changed = mutated(content, rng)
        path.write_text(sealed(changed, "prior", 1))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                predictor = LatencyPredictor("none", prior=str(path)).fit(
                    GRAPHS[:5], [1.5 * true_latency_ms(g) for g in GRAPHS[:5]]
                )
        except FormatError:
            refused += 1
            continue
        assert_sound(predictor)
    assert refused > count / 8

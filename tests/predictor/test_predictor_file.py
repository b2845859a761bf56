import base64
import hashlib
import io
import json
import pickle
import random
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from synthetic_latency import block_records, head_and_stem_records, network_records, random_blocks, random_network

from netlathe.archspace.errors import FormatError
from netlathe.predictor import LatencyPredictor, PredictorError
from netlathe.predictor.files import FILE_VERSION, pack, read_model, write_model

ITEMS = [b.graph() for b in random_blocks(50, seed=9)] + [random_network(5), random_network(6)]
SCHEMA = f"netlathe.predictor/{FILE_VERSION}"


@pytest.fixture(scope="module", params=["gp", "xgboost"])
def predictor(request):
    records = block_records(random_blocks(24), noise=0.02) + head_and_stem_records()
    return LatencyPredictor(request.param, 4).fit(records + network_records(range(6), 1.1, 0.3, 0.01))


@pytest.fixture(scope="module")
def saved(predictor, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "predictor.json"
    predictor.save(path)
    return path


@pytest.fixture
def refused(tmp_path):
    """Writes bytes or text and gives the message that loading them ends with."""

    def write(data: bytes | str) -> str:
        path = tmp_path / "p.json"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        with pytest.raises(FormatError, match=r"p\.json") as caught:
            LatencyPredictor.load(path)
        return str(caught.value)

    return write


def sealed(content: object, card: object = None, schema: str = SCHEMA) -> str:
    """A file with that content and the checksum that belongs to it."""
    body = {"content": content, "card": card}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({"schema": schema, "sha256": digest, **body})


def test_a_loaded_predictor_predicts_exactly_the_same(predictor, saved):
    again = LatencyPredictor.load(saved)
    assert np.array_equal(again.predict(ITEMS), predictor.predict(ITEMS))
    assert np.array_equal(again.predict_interval(ITEMS, 0.8), predictor.predict_interval(ITEMS, 0.8))
    assert again.setup_ == predictor.setup_
    assert again.get_params() == predictor.get_params()
    for name in ("residual_", "network_offset_ms_", "n_blocks_", "n_networks_"):
        assert getattr(again, name) == getattr(predictor, name)


def test_saving_a_loaded_predictor_gives_the_same_file(saved, tmp_path):
    LatencyPredictor.load(saved).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == saved.read_bytes()


def test_the_file_says_what_it_is(saved):
    assert json.loads(saved.read_text())["schema"] == SCHEMA


@pytest.mark.parametrize(
    "values",
    [
        [[0.1 * i, -0.0] for i in range(40)],
        list(range(300)),
        [-1, 2**40] * 40,
        [1e-320, 1.7e308] * 40,
        [0.5, -0.0, 1.25e30] * 40,
        {"short": [1, 2], "texts": ["a"] * 80, "ragged": [[1.0], [2.0, 3.0]] * 40, "flags": [True] * 80},
    ],
)
def test_packed_numbers_come_back_bit_for_bit(values, tmp_path):
    write_model(tmp_path / "m.json", "model", 1, {"values": values})
    again = read_model(tmp_path / "m.json", "model", 1, lambda file: file.content["values"])
    assert (again if isinstance(values, dict) else again.tolist()) == values
    assert str(again if isinstance(values, dict) else again.tolist()) == str(values)  # also the sign of zero


def test_long_lists_are_packed_and_short_ones_stay_readable():
    assert pack({"a": [1.5] * 10, "b": [3] * 64}) == {
        "a": [1.5] * 10,
        "b": {"dtype": "|u1", "shape": [64], "zlib": base64.b64encode(zlib.compress(b"\3" * 64, 9)).decode()},
    }


def test_numbers_that_take_half_of_the_space_without_loss_do():
    assert [pack([value] * 64)["dtype"] for value in (0.5, 0.1, 1e-320, 1e300)] == ["<f4", "<f8", "<f8", "<f8"]


def test_a_thousand_blocks_of_the_least_regular_numbers_stay_far_below_a_megabyte(tmp_path):
    rng = np.random.default_rng(0)
    content = {"points": rng.random((1000, 16)), "weights": rng.random(1000), "domain": rng.random((1000, 16))}
    write_model(tmp_path / "m.json", "model", 1, content)
    assert (tmp_path / "m.json").stat().st_size < 400_000


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    for values in ([float("nan")], [float("inf")] * 100):
        with pytest.raises(ValueError, match=r"finite|JSON"):
            write_model(tmp_path / "m.json", "model", 1, {"values": values})
    assert not list(tmp_path.iterdir())


def test_loading_and_predicting_needs_neither_torch_nor_xgboost(saved):
    code = (
        "import sys; from netlathe.predictor import LatencyPredictor\n"
        "from netlathe.archspace.block_names import parse_block\n"
        "block = parse_block('mbconv_k3_e6_s1_c16-16_56x56_relu6')\n"
        f"assert LatencyPredictor.load({str(saved)!r}).predict([block])[0] > 0\n"
        "print([name for name in ('torch', 'xgboost', 'tensorflow', 'onnx', 'matplotlib') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text",
    ["", "{", "not json", "[]", "null", '{"schema": "netlathe.space/1"}', '{"schema": 1}', '{"schema": "x/y/z"}'],
)
def test_what_is_no_predictor_is_refused(text, refused):
    assert refused(text)


def test_a_missing_file_is_a_format_error(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        LatencyPredictor.load(tmp_path / "none.json")


def test_a_folder_is_a_format_error(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        LatencyPredictor.load(tmp_path)


@pytest.mark.parametrize("version", [str(FILE_VERSION + 1), "9" * 5000, "²", "-1", "1.5", ""], ids=str.__len__)
def test_a_newer_file_asks_for_an_upgrade(saved, refused, version):
    text = saved.read_text().replace(SCHEMA, f"netlathe.predictor/{version}")
    assert "upgrade netlathe" in refused(text)


def test_a_file_of_an_older_version_asks_to_fit_again(saved, refused):
    message = refused(saved.read_text().replace(SCHEMA, "netlathe.predictor/1"))
    assert "older" in message
    assert "fit" in message


def test_a_truncated_file_is_refused(saved, refused):
    data = saved.read_bytes().rstrip()
    for length in {*range(0, len(data), len(data) // 40), len(data) - 1}:
        assert "cannot be read as JSON" in refused(data[:length])


def test_a_file_with_a_flipped_bit_is_refused_or_still_the_same(saved, tmp_path):
    data, rng, path = saved.read_bytes(), random.Random(0), tmp_path / "p.json"
    expected, refusals = LatencyPredictor.load(saved).predict(ITEMS), 0
    for position in rng.sample(range(len(data)), 100):
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:  # white space between values is free to change
            assert np.array_equal(LatencyPredictor.load(path).predict(ITEMS), expected)
        except FormatError:
            refusals += 1
    assert refusals > 80


def test_a_changed_number_is_noticed(saved, refused):
    file = json.loads(saved.read_text())
    file["content"]["model"]["networks"]["slope"] *= 1.01
    assert "checksum" in refused(json.dumps(file))


def test_a_changed_card_is_noticed(saved, refused):
    file = json.loads(saved.read_text())
    file["card"] = {"summary": "always right"}
    assert "checksum" in refused(json.dumps(file))


class _Trap:
    """Unpickling this leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.path, "sprung")


def _npz_of_objects(trap: _Trap) -> bytes:
    file = io.BytesIO()
    np.savez(file, content=np.array([trap], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("make", [pickle.dumps, lambda trap: pickle.dumps(trap, 0), _npz_of_objects])
def test_a_pickle_under_the_name_of_a_predictor_is_refused_and_does_not_run(make, refused, tmp_path):
    assert "cannot be read as JSON" in refused(make(_Trap(tmp_path / "sprung")))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900], ids=str.__len__)
def test_deep_nesting_is_refused(text, refused):
    assert refused(text)
    assert refused(f'{{"schema": "{SCHEMA}", "sha256": "", "card": null, "content": {text}}}')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000], ids=str.__len__)
def test_numbers_beyond_numbers_are_refused(saved, refused, number):
    content = json.loads(saved.read_text())["content"]
    content["model"]["networks"]["slope"] = "HERE"
    assert refused(sealed(content).replace('"HERE"', number))


def test_a_file_without_end_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "p.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match="larger than 16 MB"):
        LatencyPredictor.load(tmp_path / "p.json")


def packed(shape: object, data: bytes, dtype: object = "<f8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "zlib": base64.b64encode(data).decode()}


ZEROS = zlib.compress(bytes(80))


@pytest.mark.parametrize(
    "hostile",
    [
        packed([10], zlib.compress(bytes(1 << 24))),  # more than the shape asks for: a bomb
        packed([1 << 22], zlib.compress(bytes(80))),  # less
        packed([10 << 30], ZEROS),  # 80 GB by its own words
        packed([1 << 70], ZEROS),
        packed([0, 1 << 70], zlib.compress(b"")),
        packed([-10], ZEROS),
        packed([-5, -2], ZEROS),
        packed([10.0], ZEROS),
        packed([True] * 3, ZEROS),
        packed([1] * 100, zlib.compress(bytes(8))),
        packed("10", ZEROS),
        packed(None, ZEROS),
        packed([10], ZEROS, "|O"),
        packed([10], ZEROS, "O8"),
        packed([20], ZEROS, "<U1"),
        packed([10], ZEROS, ["<f8"]),
        packed([10], ZEROS, None),
        packed([10], ZEROS[:-4]),
        packed([10], ZEROS + b"more"),
        packed([10], b"no zlib"),
        packed([10], b""),
        packed([10], zlib.compress(np.full(10, np.nan).tobytes())),
        {**packed([10], ZEROS), "zlib": "\ud800"},
        {**packed([10], ZEROS), "zlib": 3},
        {**packed([10], ZEROS), "zlib": "!" + base64.b64encode(ZEROS).decode()},
    ],
)
def test_packed_numbers_that_are_not_what_they_claim_are_refused(saved, refused, hostile):
    content = json.loads(saved.read_text())["content"]
    content["model"]["errors"]["scores"] = hostile
    assert "damaged" in refused(sealed(content))


def test_many_small_bombs_together_are_refused(saved, refused):
    content = json.loads(saved.read_text())["content"]
    content["more"] = [packed([1 << 20], zlib.compress(bytes(8 << 20), 9))] * 10
    assert "more than a predictor can hold" in refused(sealed(content))


def _leaves(value, path=()):
    """Paths of every object and the first element of every list."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from _leaves(value[0], (*path, 0))


@pytest.mark.parametrize("junk", [None, "junk", -1, [], {}, 1e400, [[1, 2]], "1", True, 1 << 120, 1e308])
def test_content_with_a_right_checksum_and_wrong_values_is_refused_or_usable(saved, tmp_path, junk):
    """Whoever can compute a checksum may still be wrong: junk anywhere is a FormatError, or does no harm."""
    original = json.loads(saved.read_text())["content"]
    for path in list(_leaves(original))[1:]:
        content = json.loads(json.dumps(original))
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = junk
        (tmp_path / "p.json").write_text(sealed(content))
        try:
            loaded = LatencyPredictor.load(tmp_path / "p.json")
        except FormatError:
            continue
        if path == ("setup", "batch"):
            with pytest.raises(PredictorError, match="fitted on batches of"):
                loaded.predict(ITEMS)
            continue
        assert np.isfinite(loaded.predict(ITEMS[:3])).all(), path
        assert np.isfinite(loaded.predict_interval(ITEMS[-5:])).all(), path


@pytest.mark.parametrize("junk", [None, [], 3, "text"])
def test_a_file_whose_content_is_no_object_is_refused(junk, refused):
    assert "damaged" in refused(sealed(junk))


def test_trees_that_would_never_end_are_refused(saved, refused):
    content = json.loads(saved.read_text())["content"]
    count = 100_000
    chain = np.minimum(np.arange(count) + 1, count - 1)
    zeros = np.zeros(count, dtype=int)
    trees = {"kind": "xgboost", "value": zeros + 0.5, "feature": zeros, "left": chain, "right": chain}
    for roots in ([0], zeros, [count - 1] * count):
        content["model"]["blocks"]["residual"] = {**trees, "roots": roots}
        assert "more trees" in refused(sealed(pack(content)))

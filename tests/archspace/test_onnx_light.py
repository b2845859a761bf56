"""Reading an .onnx file passes over its weights, and finds all else."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netlathe.archspace.blocks import ConvBlock, LinearHead
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms import onnx_light
from netlathe.archspace.forms.onnx import read_onnx, read_onnx_file, read_onnx_precision, write_onnx
from netlathe.archspace.forms.onnx_light import read_without_weights
from netlathe.archspace.graph import chain

MOST = 1 << 31
GRAPH = chain([("a", ConvBlock(3, 512, 14, 14, 2).graph()), ("b", LinearHead(512, 1000, 7, 7).graph())])


def model_of(tmp_path: Path, dtype: type = np.float32) -> tuple[Path, onnx.ModelProto]:
    """A product with a large matrix, a small vector behind it, and a large constant that is a node."""
    large, small = np.ones((1024, 600), dtype), np.ones(600, dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["y"]),
        helper.make_node("Add", ["y", "small"], ["z"]),
        helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(large, "table")),
        helper.make_node("MatMul", ["x", "table"], ["w"]),
        helper.make_node("Add", ["z", "w"], ["out"]),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, (2, 1024))]
    outputs = [helper.make_tensor_value_info("out", kind, (2, 600))]
    stored = [numpy_helper.from_array(large, "large"), numpy_helper.from_array(small, "small")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], doc_string="kept")
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    return path, model


def test_all_but_the_values_of_large_initializers_is_kept(tmp_path: Path) -> None:
    path, model = model_of(tmp_path)
    light = onnx.ModelProto.FromString(read_without_weights(path, MOST))
    large = model.graph.initializer[0]
    assert len(large.raw_data) > len(read_without_weights(path, MOST)) - len(model.graph.node[2].SerializeToString())
    large.ClearField("raw_data")
    assert light == model
    assert light.graph.initializer[0].dims == [1024, 600]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_file_is_read_as_its_bytes_are(dtype: type, tmp_path: Path) -> None:
    path, _ = model_of(tmp_path, dtype)
    found = read_onnx_file(path)
    assert found.graph == read_onnx(path.read_bytes())
    assert found.precision == read_onnx_precision(path) == np.dtype(dtype).name
    assert not found.has_open_batch


def test_netlathes_own_files_come_back_exactly(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(write_onnx(GRAPH))
    assert len(read_without_weights(tmp_path / "own.onnx", MOST)) < 200_000
    assert read_onnx(tmp_path / "own.onnx") == GRAPH


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9999])
def test_a_truncated_file_is_refused_as_one(share: float, tmp_path: Path) -> None:
    content = write_onnx(GRAPH)
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"cut\.onnx: not an \.onnx file"):
        read_onnx(path)


@pytest.mark.parametrize(
    "content", [b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0f\x00", b"\x08", b"TFL3"]
)
def test_what_is_no_message_is_given_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.onnx").write_bytes(content)
    assert read_without_weights(tmp_path / "odd.onnx", MOST) == content


def test_many_parts_are_given_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_light, "MOST_MESSAGES", 10)
    path, _ = model_of(tmp_path)
    assert read_without_weights(path, MOST) == path.read_bytes()


def test_a_file_beyond_the_limit_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    path, _ = model_of(tmp_path)
    with pytest.raises(FormatError, match="larger than"):
        read_without_weights(path, 1000)
    with pytest.raises(FormatError, match="a folder"):
        read_without_weights(tmp_path, MOST)


def test_values_that_steer_an_op_are_never_passed_over(tmp_path: Path) -> None:
    """Few enough to be looked at: in the widest type, just below the limit."""
    values = np.zeros(onnx_light.MOST_FOLDED, np.complex128)
    tensor = TensorProto(dims=values.shape, data_type=TensorProto.COMPLEX128, name="c", raw_data=values.tobytes())
    graph = helper.make_graph([], "g", [], [], [tensor])
    model = helper.make_model(graph)
    (tmp_path / "c.onnx").write_bytes(model.SerializeToString())
    assert onnx.ModelProto.FromString(read_without_weights(tmp_path / "c.onnx", MOST)) == model

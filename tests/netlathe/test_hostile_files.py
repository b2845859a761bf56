"""Whatever is in a file, it is read or refused in one clear error, in little time and memory."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hostile_files import CONTROL, ENDLESS, FORMATS, NEVER_REFUSED, RECORDS, TABLES, profile_seed
from onnx import TensorProto, helper
from PIL import Image
from pyarrow import parquet
from test_cli import netlathe

from netlathe.archspace.block_names import parse_block
from netlathe.archspace.blocks import MBConv
from netlathe.archspace.errors import (
    ArchspaceError,
    BlockError,
    FormatError,
    GraphError,
    NetlatheError,
    RecordError,
    printable,
)
from netlathe.archspace.forms.onnx import read_onnx, write_onnx
from netlathe.archspace.forms.structure import EMBEDDED_KEY
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import Model, Operator, Tensor, all_options, pack, unpack
from netlathe.archspace.forms.tflite_reader import read_tflite
from netlathe.archspace.graph import MOST_NODES, Graph, GraphBuilder, Node
from netlathe.archspace.jsonfile import read_json, write_json
from netlathe.archspace.ops import (
    LARGEST,
    Activation,
    ActivationKind,
    Constant,
    Conv2d,
    FullyConnected,
    Mul,
    Pad,
    Reshape,
)
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Measurement, Round
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.archspace.tables import read_records
from netlathe.runs.files import load_network
from netlathe.runs.logs import _read_rows
from netlathe.targets import load_goal
from netlathe.training import DataError, load_images
from netlathe.training.checkpoint import load_checkpoint

GRAPH = MBConv(8, 8, 8, 8, se=0.25).graph()


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("count", [24, pytest.param(60, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused_in_one_clear_error(count: int) -> None:
    """The good files are read; of the damaged ones, some are, and the rest are refused. See hostile_files.py."""
    command = [sys.executable, str(Path(__file__).parents[1] / "hostile_files.py"), "all", str(count), "0"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found.keys() == FORMATS.keys()
    for name, outcomes in found.items():
        assert outcomes["failures"] == []
        assert outcomes["counts"]["read"] > 0
        assert (outcomes["counts"].get("refused", 0) > 0) is (name not in NEVER_REFUSED)


# Sizes and counts

HUGE = [2**31, 2**63 - 1, 2**63, 10**30]


@pytest.mark.parametrize("size", HUGE)
def test_sizes_that_no_file_can_have_are_refused_where_they_are_made(size: int) -> None:
    for make in (
        lambda: Conv2d(size),
        lambda: Conv2d(8, (size, 3)),
        lambda: Conv2d(8, (3, 3), (1, size)),
        lambda: FullyConnected(size),
        lambda: Pad((0, size), (0, 0)),
        lambda: Reshape((size,)),
        lambda: Graph(((1, size, 8, 8),), (Node("a", Activation(ActivationKind.RELU), (0,)),)),
    ):
        with pytest.raises(GraphError):
            make()
    with pytest.raises(BlockError):
        MBConv(8, size, 8, 8)


def test_results_and_weights_that_no_memory_holds_are_refused() -> None:
    builder = GraphBuilder((1, 40_000, 40_000, 8))
    with pytest.raises(GraphError, match="more than"):
        builder.add("conv", Conv2d(64), 0)
    builder = GraphBuilder((1, 2, 2, LARGEST // 8))
    with pytest.raises(GraphError, match="weights"):
        builder.add("conv", Conv2d(64), 0)
    with pytest.raises(GraphError, match="along an axis"):
        GraphBuilder((1, 1, 1, 1)).add("pad", Pad((LARGEST, LARGEST), (0, 0)), 0)


@pytest.mark.parametrize("digits", [20, 4_301, 100_000])
def test_numbers_of_any_length_are_no_block(digits: int, tmp_path: Path) -> None:
    for name in (f"conv_k3_s1_c{'9' * digits}-8_8x8_relu6", f"mbconv_k3_e{'9' * digits}_s1_c8-8_8x8_relu6"):
        with pytest.raises(BlockError):
            parse_block(name)
    path = tmp_path / "a.json"
    path.write_text('{"schema": "netlathe.architecture/1", "name": "x", "blocks": [%s]}' % ("9" * digits))
    with pytest.raises(FormatError):
        Architecture.load(path)


def test_more_blocks_than_any_network_has_are_refused(tmp_path: Path) -> None:
    names = ["conv_k1_s1_c1-1_1x1_relu6"] * 20_000
    write_json(tmp_path / "a.json", "architecture", 1, {"name": "a", "blocks": names})
    with pytest.raises(FormatError, match="has 20000 blocks, more than"):
        Architecture.load(tmp_path / "a.json")
    write_json(tmp_path / "s.json", "space", 1, {"name": "s", "positions": [[name] for name in names]})
    with pytest.raises(FormatError, match="has 20000 blocks, more than"):
        SearchSpace.load(tmp_path / "s.json")


def chain_of(count: int) -> Graph:
    builder, x = GraphBuilder((1, 2, 2, 2)), 0
    for index in range(count):
        x = builder.add(f"n{index}", Activation(ActivationKind.RELU) if index % 2 else Conv2d(2), x)
    return builder.build()


def test_graphs_of_the_most_nodes_are_cut_into_segments_in_one_pass() -> None:
    graph = chain_of(MOST_NODES)
    assert len(graph.scoped().segments()) == MOST_NODES // 2
    with pytest.raises(GraphError, match="more than the 20000"):
        chain_of(MOST_NODES + 1)


# .onnx


def relu_model(count: int = 1, name: str = "", inputs: tuple[int, ...] = (1, 2, 4, 4)) -> onnx.ModelProto:
    names = ["x", *(f"y{index}" for index in range(count))]
    nodes = [helper.make_node("Relu", [a], [b], name) for a, b in itertools.pairwise(names)]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, inputs) for n in (names[0], names[-1]))
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]))


def test_onnx_nodes_of_one_name_are_told_apart_in_one_pass() -> None:
    graph = read_onnx(relu_model(15_000, "same").SerializeToString())
    assert len({node.name for node in graph.nodes}) == 15_000


def test_millions_of_empty_onnx_nodes_are_refused_before_they_are_parsed() -> None:
    body = b"\x0a\x00" * 5_000_000  # field 1 of a graph, of no bytes
    content = b"\x08\x08" + b"\x3a" + varint(len(body)) + body
    with pytest.raises(FormatError, match="more than 300000 parts"):
        read_onnx(content)


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin", "sub/secret.bin"])
def test_an_onnx_model_reads_no_other_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "sub").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "here", tmp_path / "here" / "sub"):
        (folder / "secret.bin").write_bytes(struct.pack("<q", 4242) * 8)
    monkeypatch.chdir(tmp_path / "here")
    shape = TensorProto(name="shape", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    shape.external_data.add(key="location", value=place)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 4, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 32))
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [shape]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match=r"its (shape|weights) lies? in") as caught:
        read_onnx(tmp_path / "model.onnx")
    assert "4242" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 0]}),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2**63 - 1, 1]}),
        ("MaxPool", {"kernel_shape": [0, 0], "strides": [1, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "strides": [0, 1]}),
        ("HardSigmoid", {"alpha": float("nan")}),
        ("Concat", {"axis": -(2**63)}),
        ("Softmax", {"axis": 2**62}),
    ],
)
def test_onnx_settings_that_make_no_sense_are_refused(kind: str, attributes: dict[str, Any]) -> None:
    model = relu_model()
    model.graph.node[0].CopyFrom(helper.make_node(kind, ["x"], ["y0"], **attributes))
    with pytest.raises(FormatError):
        read_onnx(model.SerializeToString())


@pytest.mark.parametrize("shape", [(1, -1, 0, 0, 0), (2**62, -1), (-1, -1)])
def test_onnx_reshapes_that_make_no_sense_are_refused(shape: tuple[int, ...]) -> None:
    model = relu_model()
    model.graph.node[0].CopyFrom(helper.make_node("Reshape", ["x", "shape"], ["y0"]))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [len(shape)], shape))
    with pytest.raises(FormatError):
        read_onnx(model.SerializeToString())


def test_a_large_constant_in_place_of_a_setting_is_not_unpacked() -> None:
    model = relu_model()
    model.graph.node[0].CopyFrom(helper.make_node("Reshape", ["x", "shape"], ["y0"]))
    tensor = TensorProto(name="shape", data_type=TensorProto.INT64, dims=[1 << 40])
    model.graph.initializer.append(tensor)
    with pytest.raises(FormatError, match="no list of a few numbers"):
        read_onnx(model.SerializeToString())


# .tflite


def test_a_tflite_name_that_all_tensors_share_is_not_unpacked_for_each() -> None:
    content = shared_name_file(tensors=100_000, characters=1_000_000)
    assert len(content) < 4_000_000
    with pytest.raises(FormatError, match="asks for more than any network needs"):
        unpack(content)


def shared_name_file(tensors: int, characters: int) -> bytes:
    """A file of one tensor with a long name, to which every entry of the list of tensors points."""
    model = Model((Tensor("a" * characters, (1, 2)),), (), (0,), (0,))
    content = bytearray(pack(model, ""))
    # A new vector of offsets behind the rest: forward offsets are allowed to point forward only, so that the table it
    # points to is copied behind it as well, with its vtable where it was.
    from ai_edge_litert import schema_py_generated as schema

    root = schema.Model.GetRootAs(bytes(content), 0)
    graph = root.Subgraphs(0)._tab
    old = graph.Vector(graph.Offset(4)) - 4  # where the list of tensors begins
    field = graph.Pos + graph.Offset(4)
    table = schema.Model.GetRootAs(bytes(content), 0).Subgraphs(0).Tensors(0)._tab.Pos
    assert old < table
    vector = len(content)
    content[field : field + 4] = struct.pack("<I", vector - field)
    copy = vector + 4 + 4 * tensors
    content += struct.pack("<I", tensors)
    content += b"".join(struct.pack("<I", copy - (vector + 4 + 4 * index)) for index in range(tensors))
    (to_vtable,) = struct.unpack_from("<i", content, table)
    vtable = table - to_vtable
    (size,) = struct.unpack_from("<H", content, vtable + 2)
    body = bytearray(content[table : table + size])
    body[:4] = struct.pack("<i", copy - vtable)
    for slot in range(4, struct.unpack_from("<H", content, vtable)[0], 2):
        (place,) = struct.unpack_from("<H", content, vtable + slot)
        if place and slot in (4, 8 + 2):  # shape and name: offsets to what stays where it is would point backwards
            (distance,) = struct.unpack_from("<I", content, table + place)
            target = table + place + distance
            (count,) = struct.unpack_from("<I", content, target)
            data = bytes(content[target : target + 4 + (4 * count if slot == 4 else count + 1)])
            body[place : place + 4] = struct.pack("<I", len(body) - place)
            body += data + bytes(-len(data) % 4)
    return bytes(content + body)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf"), 0.0])
def test_a_tflite_factor_that_is_no_number_is_a_constant_like_any_other(factor: float) -> None:
    tensors = (
        Tensor("x", (1, 4, 4, 2)), Tensor("half", (), data=np.array(factor, np.float32)), Tensor("y", (1, 4, 4, 2)),
    )  # fmt: skip
    model = Model(tensors, (Operator("MUL", (0, 1), (2,), all_options("MUL")),), (0,), (2,))
    assert [node.op for node in read_tflite(pack(model, "")).nodes] == [Constant((1,)), Mul()]


@pytest.mark.parametrize("strides", [(0, 1), (-1, 1), (1, 0), (2**31 - 1, 2**31 - 1)])
def test_a_tflite_stride_of_nothing_is_refused(strides: tuple[int, int]) -> None:
    options = all_options("MAX_POOL_2D", strideH=strides[0], strideW=strides[1], filterHeight=2, filterWidth=2)
    model = Model(
        (Tensor("x", (1, 4, 4, 2)), Tensor("y", (1, 4, 4, 2))),
        (Operator("MAX_POOL_2D", (0,), (1,), options),),
        (0,),
        (1,),
    )
    with pytest.raises(FormatError, match="MAX_POOL_2D"):
        read_tflite(pack(model, ""))


def test_an_embedded_graph_of_more_weights_than_the_file_holds_is_not_built() -> None:
    content = write_tflite(GRAPH)
    start = content.index(b'{"version"')
    end = content.index(b"}]}", start) + 3
    builder = GraphBuilder((1, 4096))
    builder.add("linear", FullyConnected(500_000), 0)
    text = json.dumps({"version": 1, **builder.build().to_json()}).encode()
    changed = content[:start] + text.ljust(end - start) + content[end:]
    assert read_tflite(changed).macs == GRAPH.macs  # by its structure


# JSON and profiles


def test_a_profile_holds_nothing_but_our_tables(tmp_path: Path) -> None:
    path = tmp_path / "p.sqlite"
    for table in TABLES:
        for statement in (
            f"DROP TABLE {table}; CREATE VIEW {table} (a, b, c, d) AS {ENDLESS}",
            f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END",
            f"CREATE TABLE other AS SELECT * FROM {table}",
            f"ALTER TABLE {table} ADD COLUMN more TEXT",
            f"CREATE INDEX i ON {table} (1)",
        ):
            path.write_bytes(profile_seed())
            with closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA foreign_keys = OFF")
                db.executescript(statement)
            with pytest.raises(FormatError, match="which no profile has"):
                ProfileFile(path)


def test_a_profile_that_was_analyzed_vacuumed_or_dumped_is_still_one(tmp_path: Path) -> None:
    path, other = tmp_path / "p.sqlite", tmp_path / "o.sqlite"
    path.write_bytes(profile_seed())
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(other)) as copy:
        db.execute("ANALYZE")
        db.execute("VACUUM")
        copy.executescript("\n".join(line for line in db.iterdump() if "sqlite_stat" not in line))
        for pragma in ("application_id", "user_version"):
            copy.execute(f"PRAGMA {pragma} = {db.execute(f'PRAGMA {pragma}').fetchone()[0]}")
    for one in (path, other):
        with ProfileFile(one) as file:
            assert len(file.records()) == len(RECORDS)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("samples", "samples_ms", "[" * 100_000 + "]" * 100_000),
        ("samples", "samples_ms", f"[{'9' * 5000}]"),
        ("samples", "samples_ms", f"[1{'0' * 400}]"),
        ("samples", "samples_ms", "[NaN]"),
        ("samples", "samples_ms", "[5e-324, 1e308]"),
        ("samples", "samples_ms", '["1"]'),
        ("rounds", "drift", 1e-300),
        ("rounds", "drift", "fast"),
        ("graphs", "json", '{"inputs": [[1, 9223372036854775808]], "nodes": []}'),
        ("graphs", "name", b"\x00\xff"),
        ("setups", "json", '{"device": {}}'),
        ("setups", "json", "[" * 100_000),
        ("outcomes", "message", 3.5e300),
    ],
)
def test_cells_of_a_profile_that_make_no_sense_are_one_clear_error(
    table: str, column: str, value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "p.sqlite"
    path.write_bytes(profile_seed())
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE {table} SET {column} = ?", (value,))
        if column == "message":
            db.execute("UPDATE outcomes SET message = x'00ff'")
        db.commit()
    with ProfileFile(path) as file, pytest.raises(FormatError, match="damaged"):
        file.records()


@pytest.mark.parametrize(
    "samples_ms", [(0.0,), (-1.0,), (1e-300,), (1e300,), (10**400,), ("1",), (None,), (float("nan"),)]
)
def test_a_time_beyond_reason_is_no_measurement(samples_ms: tuple[Any, ...]) -> None:
    with pytest.raises(RecordError):
        Measurement((Round(samples_ms),))


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="mounts a read-only disk")
def test_a_profile_on_a_read_only_disk_can_be_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    for name, mode in (("rollback.sqlite", "DELETE"), ("wal.sqlite", "WAL")):
        (disk / name).write_bytes(profile_seed())
        with closing(sqlite3.connect(disk / name)) as db:
            db.execute(f"PRAGMA journal_mode = {mode}")
    code = (
        "import sys; from netlathe.archspace.tables import read_records\n"
        "for path in sys.argv[1:]: print(len(read_records(path)))\n"
    )
    script = f'mount --bind "{disk}" "{disk}" && mount -o remount,ro,bind "{disk}" && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", code]
    done = subprocess.run([*words, *map(str, sorted(disk.iterdir()))], capture_output=True, text=True)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.stderr == ""
    assert done.stdout.split() == [str(len(RECORDS))] * 2
    assert {path.name for path in disk.iterdir()} == {"rollback.sqlite", "wal.sqlite"}


# What is no plain file


def test_a_pipe_is_refused_wherever_a_file_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    readers: dict[str, Any] = {
        ".json": lambda path: read_json(path, "thing", 1),
        ".tflite": read_tflite,
        ".onnx": read_onnx,
        ".sqlite": read_records,
        ".csv": read_records,
        ".parquet": read_records,
        ".npz": lambda path: load_checkpoint(path, {}),
    }
    for suffix, read in readers.items():
        path = pipe.with_suffix(suffix)
        os.mkfifo(path)
        with pytest.raises(FormatError, match="cannot be read, as it is a named pipe"):
            read(path)
    with pytest.raises(FormatError, match="named pipe"):
        load_goal("pixel4-cpu", 3.0, [], [f"{pipe.with_suffix('.csv')}:energy=1"])
    with pytest.raises(FormatError, match="named pipe"):
        ProfileFile(pipe.with_suffix(".sqlite"), create=True)
    with pytest.raises(DataError, match="is a named pipe"):
        load_images(str(pipe.with_suffix(".npz")), (8, 8))


def test_a_pipe_among_the_images_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    (tmp_path / "dog" / "folder.png").mkdir()  # no image, but no harm either
    assert len(load_images(str(tmp_path), (8, 8)).train) > 0
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: is a named pipe"):
        load_images(str(tmp_path), (8, 8))


# What unpacks to gigabytes


def test_an_npz_that_unpacks_out_of_all_proportion_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x_train=np.zeros((400_000, 32, 32), np.uint8), y_train=np.zeros(400_000))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    with pytest.raises(DataError, match="out of all proportion"):
        load_images(str(tmp_path / "a.npz"), (8, 8))


def test_a_parquet_of_one_text_a_million_times_is_refused(tmp_path: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["a" * 1_000_000]))
    columns = {"op": pa.array(["conv"] * 3000), "latency_ms": pa.array([1.0] * 3000), "note": text}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    with pytest.raises(FormatError, match="unpacks to more"):
        read_records(tmp_path / "a.parquet")
    rows = pa.table({"op": pa.array(["conv"]).take(pa.array(np.zeros(30_000_000, np.int8)))})
    parquet.write_table(rows, tmp_path / "b.parquet", compression="zstd")
    with pytest.raises(FormatError, match="out of all proportion"):
        read_records(tmp_path / "b.parquet")


def test_a_picture_of_a_hundred_million_pixels_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    (tmp_path / "cat" / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"bomb\.png: not a readable image .*exceeds limit"):
        load_images(str(tmp_path), (8, 8))


def test_a_picture_is_only_decoded_in_formats_that_start_no_programs(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "0.png", "EPS")
    with pytest.raises(DataError, match=r"0\.png: not a readable image .*cannot identify"):
        load_images(str(tmp_path), (8, 8))


def test_weights_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    Architecture("a", (MBConv(8, 8, 8, 8),)).save(tmp_path / "architecture.json")
    np.savez_compressed(tmp_path / "weights.npz", x=np.zeros(1 << 28, np.uint8))
    with pytest.raises(FormatError, match="out of all proportion"):
        load_network(tmp_path)


def test_reports_and_logs_of_runs_that_make_no_sense_are_one_clear_error(tmp_path: Path) -> None:
    target = {"setup": "a phone", "predicted_ms": 1.0, "measured_ms": None}
    good = {"name": "a", "targets": [target], "accuracy": {"torch": 0.5}}
    bad: list[dict[str, Any]] = [
        {**good, "accuracy": {"torch": "high"}}, {**good, "targets": [{**target, "predicted_ms": []}]},
        {**good, "targets": [{**target, "measured_ms": 10**400}]}, {**good, "targets": [{**target, "setup": {}}]},
    ]  # fmt: skip
    write_json(tmp_path / "report.json", "run", 1, good)
    assert netlathe("pareto", tmp_path).exit_code == 0
    for report in bad:
        write_json(tmp_path / "report.json", "run", 1, report)
        result = netlathe("pareto", tmp_path)
        assert result.exit_code == 1, report
        assert "its report lacks or confuses" in " ".join(result.stderr.split())
    (tmp_path / "train.csv").write_text("epoch,loss,accuracy\n1,2\n")
    assert _read_rows(tmp_path / "train.csv") == []


# Messages


@pytest.mark.parametrize("error", [ArchspaceError, FormatError, DataError])
def test_messages_about_files_are_short_and_printable(error: type[NetlatheError]) -> None:
    message = str(error("\x1b]0;owned\x07\n\ud800\u202e" + "a" * 10_000 + "; do this"))
    assert len(message) <= 500
    assert not CONTROL.search(message)
    assert message.startswith("\\x1b]0;owned\\x07\\n\\ud800\\u202e")
    assert message.endswith("; do this")
    assert printable("two\nlines\x1b") == "two\nlines\\x1b"


def test_names_of_files_are_shown_escaped_on_the_terminal(tmp_path: Path) -> None:
    for name in ("\x1b[2Jowned.onnx", "\udcff.json", "a\nb.tflite", "\x07" * 200 + ".json"):
        for command in (["show", tmp_path / name], ["fit", tmp_path / name, "--output", tmp_path / "m.json"]):
            result = netlathe(*command)
            assert result.exit_code == 1
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", result.output.replace("\r", ""))
            assert "Error: " in result.output


def test_names_in_files_are_shown_escaped_on_the_terminal(tmp_path: Path) -> None:
    model = relu_model(2, "\x1b[2Jowned\x9b")
    model.graph.node[0].op_type = "Unknown"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    result = netlathe("show", tmp_path / "m.onnx")
    assert result.exit_code == 1
    assert "\\x1b[2Jowned" in result.output
    assert "\x1b" not in result.output
    write_json(tmp_path / "a.json", "architecture", 1, {"name": "\x1b[31m\ud800", "blocks": [MBConv(8, 8, 8, 8).name]})
    result = netlathe("show", tmp_path / "a.json")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "\x1b" not in result.output


def test_a_written_model_still_carries_its_graph() -> None:
    assert read_onnx(write_onnx(GRAPH)) == GRAPH
    assert EMBEDDED_KEY in unpack(write_tflite(GRAPH)).metadata

"""Damaged and hostile files by the thousand, made from good ones: each must be read, or refused in one clear error.

`python tests/hostile_files.py FORMAT COUNT SEED` (with PYTHONPATH=.) makes COUNT files of a format, or of `all`, and
prints what came of them as JSON. The memory that may be added to what is loaded at the start is limited, and so is the
processor time per file.
"""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import sys
import tarfile
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pandas as pd
from PIL import Image

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.configurations import graphs_of
from netlathe.archspace.errors import MOST_CHARACTERS, NetlatheError
from netlathe.archspace.forms.model_file import open_model_file
from netlathe.archspace.forms.onnx import read_onnx, read_onnx_weights, write_onnx
from netlathe.archspace.forms.structure import EMBEDDED_KEY
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_reader import read_tflite, read_tflite_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Concat,
    Conv2d,
    FullyConnected,
    PadAxes,
    PReLU,
    Reduce,
    ReduceKind,
    Reshape,
    Resize,
    Slice,
    Split,
    Tile,
    Transpose,
    TransposeConv2d,
)
from netlathe.archspace.pools import pool_of
from netlathe.archspace.presets import tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status
from netlathe.archspace.resources import data_files
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.archspace.sustained import SustainedPoint, SustainedRun
from netlathe.archspace.tables import read_records, write_table
from netlathe.checked import KIND, VERSION, Baseline, Checked, CheckReport, KernelTime, Latency, with_baseline
from netlathe.events import Listener
from netlathe.layer_costs import read_layer_table
from netlathe.predictor import LatencyPredictor
from netlathe.progress_files import ProgressFile, read_work
from netlathe.report.load_parts import load_parts
from netlathe.report.watch_content import Watched
from netlathe.report.watch_page import page_of_watched
from netlathe.runs.comparisons import ComparisonLog
from netlathe.runs.compression.looked import loss_inputs
from netlathe.runs.compression.shaped import ShapePhase
from netlathe.runs.files import (
    COMPARISONS,
    EXPORTED,
    IMPORTANCE,
    REPORT,
    SENSITIVITY,
    TRAINED,
    TRAINING_CHECKPOINT,
    UNIFORM,
    WIDTHS,
)
from netlathe.runs.phase import Phase
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.strategy import RandomDraws
from netlathe.search.strategies.blackbox.study import Study
from netlathe.training import load_images
from netlathe.training.errors import UnreadableError
from tests import model_files

MEMORY_BYTES = 1 << 30
CPU_S = 20
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
NUMBERS = [0, -1, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400, 10**4000]
ODD: list[Any] = [
    *NUMBERS, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("nan"), None, True, False, "", "x", "\x1b[2J\x07", "\ud800",
    "9" * 5000, "a" * 100_000, [], {}, [[]], [1] * 1000, {"a": 1}, "nan", "inf", "-1", "1e400", "٣", "\u202e",
]  # fmt: skip
BLOCKS = [MBConv(8, 8, 8, 8, se=0.25), MBConv(8, 16, 8, 8, 2, kernel=5, activation="hard_swish")]  # type: ignore[arg-type]


class SlowError(BaseException):
    """A file took more processor time than any should."""


def bytes_mutated(data: bytes, rng: random.Random) -> bytes:
    """A few changes of any bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place, size = rng.randrange(len(changed) + 1), rng.choice((1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + 4] = (rng.choice(NUMBERS[:12]) & (2**32 - 1)).to_bytes(4, "little")
        elif kind == 2:
            changed[place : place + 8] = (rng.choice(NUMBERS[:12]) & (2**64 - 1)).to_bytes(8, "little")
        elif kind == 3:
            del changed[place : place + size]
        elif kind == 4:
            changed[place:place] = changed[place : place + size] * rng.choice((1, 2, 50))
        elif kind == 5:
            changed[place : place + size] = rng.randbytes(size)
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def json_mutated(value: Any, rng: random.Random) -> Any:
    """One part of it replaced, left out, repeated or renamed."""
    if not isinstance(value, (list, dict)) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    if isinstance(value, list):
        index, copy = rng.randrange(len(value)), list(value)
        kind = rng.randrange(8)
        if kind == 0:
            del copy[index]
        elif kind == 1:
            copy.insert(index, copy[rng.randrange(len(copy))])
        else:
            copy[index] = json_mutated(copy[index], rng)
        return copy
    key, fields = rng.choice(list(value)), dict(value)
    kind = rng.randrange(10)
    if kind == 0:
        del fields[key]
    elif kind == 1:
        fields[str(rng.choice(ODD))[:200] if rng.random() < 0.5 else "new"] = rng.choice(ODD)
    else:
        fields[key] = json_mutated(fields[key], rng)
    return fields


def json_text(value: Any, rng: random.Random) -> bytes:
    """As JSON, integers of any length spelled out, now and then nested too deeply."""
    sys.set_int_max_str_digits(0)
    text = json.dumps(value)
    sys.set_int_max_str_digits(4300)
    if rng.random() < 0.02:
        depth = rng.choice((100, 100_000))
        text = text.replace("null", "[" * depth + "]" * depth)
    return text.encode()


def json_file(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return bytes_mutated(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2))):
        value = json_mutated(value, rng)
    return json_text(value, rng)


def walk(graph: Graph) -> None:
    """What every user of a graph asks."""
    graph.costs()
    assert graph.macs < 2**80
    assert graph.parameters >= 0
    assert len(graph.key) == 32
    graph.peak_activation_bytes()
    graph.scoped().segments()
    Graph.from_json(graph.to_json())


# A format is: good files, how they are changed, and how they are read.

Seeds = list[bytes]
Reader = Callable[[Path], None]


def protobuf_mutated(data: bytes, rng: random.Random) -> bytes:
    """One field somewhere in the model set to something odd, or a message repeated or removed."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        message: Any = model
        while True:
            fields = [f for f in message.DESCRIPTOR.fields if is_repeated(message, f) or rng.random() < 0.3]
            field = rng.choice(fields or list(message.DESCRIPTOR.fields))
            if message is model and rng.random() < 0.85:
                field = message.DESCRIPTOR.fields_by_name["graph"]
            value = getattr(message, field.name)
            if is_repeated(message, field) and field.message_type and len(value):
                kind = rng.randrange(12)
                if kind == 0:
                    del value[rng.randrange(len(value))]
                elif kind == 1:
                    value.add().CopyFrom(value[rng.randrange(len(value))])
                else:
                    message = value[rng.randrange(len(value))]
                    continue
                break
            if field.message_type and not is_repeated(message, field):
                message = value
                continue
            set_field(message, field, rng)
            break
    return bytes(model.SerializeToString())


def is_repeated(message: Any, field: Any) -> bool:
    return hasattr(getattr(message, field.name), "extend")


def set_field(message: Any, field: Any, rng: random.Random) -> None:
    if field.message_type:
        getattr(message, field.name).add()
        return
    odd: list[Any] = list(NUMBERS[:10])
    if field.type == field.TYPE_STRING:
        odd = ["", "x", "\x1b[31m", "a" * 10_000, "input", "output"]
    elif field.type == field.TYPE_BYTES:
        odd = [b"", b"\0" * 4, rng.randbytes(8), b"\xff" * 100]
    elif field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        odd = [0.0, -1.0, float("nan"), float("inf"), 1e30]
    value = rng.choice(odd)
    try:
        if not is_repeated(message, field):
            setattr(message, field.name, value)
            return
        values = getattr(message, field.name)
        if len(values) and rng.random() < 0.7:
            values[rng.randrange(len(values))] = value
        else:
            values.extend([value] * rng.choice((1, 1, 1000)))
    except (ValueError, TypeError):  # out of the field's range
        pass


def onnx_seeds() -> Seeds:
    own = [write_onnx(block.graph()) for block in BLOCKS]
    foreign = []
    for data in own:
        model = onnx.ModelProto.FromString(data)
        del model.metadata_props[:]
        foreign.append(bytes(model.SerializeToString()))
    return [*own, *foreign]


def onnx_mutated(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return bytes_mutated(data, rng)
    model = onnx.ModelProto.FromString(data)
    if model.metadata_props and rng.random() < 0.3:
        embedded = json_mutated(json.loads(model.metadata_props[0].value), rng)
        model.metadata_props[0].value = json_text(embedded, rng).decode()
        return bytes(model.SerializeToString())
    return protobuf_mutated(data, rng)


def detector() -> Graph:
    """Ops that no block has, with integers that steer them."""
    builder = GraphBuilder((1, 8, 8, 4))
    x = builder.add("pad", PadAxes(((0, 0), (1, 1), (0, 0), (0, 4))), 0)
    x = builder.add("slopes", PReLU((1, 1, 8)), x)
    x = builder.add("up", TransposeConv2d(4, (2, 2), (2, 2)), x)
    x = builder.add("size", Resize((8, 8)), x)
    first = builder.add("parts", Split((1, 3)), x)
    y = builder.add("cut", Slice((0, 0, 1, 0), (1, 4, 3, 3), (1, 2, 2, 1)), first + 1)
    y = builder.add("mean", Reduce(ReduceKind.MEAN, (1, 3)), y)
    z = builder.add("turned", Transpose((0, 3, 1, 2)), first)
    z = builder.add("tiled", Tile((1, 3, 1, 1)), z)
    z = builder.add("boxes", Reshape((64, 3)), z)
    z = builder.add("joined", Concat(1), z, z)
    return builder.build(z, y)


def tflite_seeds() -> Seeds:
    graphs = [*(block.graph() for block in BLOCKS), detector()]
    own = [*(write_tflite(graph) for graph in graphs), write_tflite(graphs[0], dtype="int8")]
    return [*own, *(data.replace(EMBEDDED_KEY.encode(), b"another_thing!") for data in own)]


def outline_seeds() -> Seeds:
    return [*tflite_seeds(), model_files.two_and_two(), model_files.branching(), model_files.open_batch()]


def tflite_mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes outside the weights: most of a file is nothing but numbers that nobody looks at."""
    start = data.find(b'{"version"')
    if start >= 0 and rng.random() < 0.3:
        end = data.find(b"\0", start)
        text = json_text(json_mutated(json.loads(data[start:end]), rng), rng)[: end - start]
        return data[:start] + text.ljust(end - start) + data[end:]
    return bytes_mutated(data, rng)


def saved(write: Callable[[Path], Any], suffix: str = "") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"one{suffix}"
        write(path)
        return path.read_bytes()


RECORDS = [
    LatencyRecord(
        block.name, "block", block.graph(), Setup("a phone", "a chip", "an OS", "litert", "2"), Status.OK,
        Measurement(tuple(Round((1.0 + n, 1.1), 1.0, float(n)) for n in range(4))),
    )
    for block in BLOCKS
]  # fmt: skip


def load_of(key: str) -> SustainedRun:
    """A load of eight visits of one graph."""
    told = {"battery_c": 30.0, "freq_mhz": "1800,900", "powered": "none", "current_ua": 1e5, "voltage_mv": 4000.0}
    return SustainedRun(tuple(SustainedPoint(float(n), key, 1.0 + n, told) for n in range(8)), {key: "a"}, 8.0)


def profile_seed() -> bytes:
    def write(path: Path) -> None:
        with ProfileFile(path, create=True) as file:
            file.add_records(RECORDS)
            file.set_anchors(RECORDS[0].setup, [RECORDS[0].graph.key])
            file.set_op_times(RECORDS[0].setup, RECORDS[0].graph.key, [{"node_type": "CONV", "mean_ms": 1.0}])
            first, second = (record.graph.key for record in RECORDS[:2])
            file.begin_again(RECORDS[0].setup, [first, second], "unstable", 2.0)
            file.end_again(RECORDS[0].setup, first, None, discounted=[0.0])
            pool = pool_of(RECORDS[0].setup)
            file.set_pool(pool, {RECORDS[0].setup: 1.1})
            file.lease(pool, [first], "a", now=0.0, until=1.0)
            file.add_load(RECORDS[0].setup, load_of(first))
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = DELETE")

    return saved(write)


TABLES = (
    "setups",
    "graphs",
    "anchors",
    "rounds",
    "samples",
    "outcomes",
    "details",
    "op_times",
    "again",
    "discounted",
    "pools",
    "leases",
    "made",
    "loads",
    "load_points",
)
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, x, x, x FROM n"


def profile_mutated(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return bytes_mutated(data, rng)

    def write(path: Path) -> None:
        path.write_bytes(data)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA foreign_keys = OFF")
            sql_mutated(db, rng)

    return saved(write)


def sql_mutated(db: sqlite3.Connection, rng: random.Random) -> None:
    table = rng.choice(TABLES)
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    column = rng.choice(columns)
    kind = rng.randrange(8)
    try:
        if kind == 0:
            db.executescript(f"DROP TABLE {table}; CREATE VIEW {table} ({', '.join(columns)}) AS {endless(columns)}")
        elif kind == 1:
            db.executescript(f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END")
        elif kind == 2:
            db.execute(f"PRAGMA user_version = {rng.choice((-1, 0, 1, 99))}")
        else:
            (old,) = db.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone() or (None,)
            try:
                new = json_text(json_mutated(json.loads(old), rng), rng).decode()
            except (TypeError, ValueError):
                new = rng.choice([odd for odd in ODD if not isinstance(odd, (list, dict))])
            db.execute(f"UPDATE OR REPLACE {table} SET {column} = ?", (new,))
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        pass  # a value that no SQLite file can hold


def endless(columns: list[str]) -> str:
    """Rows without end, of as many columns."""
    return ENDLESS.replace("x, x, x, x", ", ".join("x" for _ in columns))


def read_profile(path: Path) -> None:
    with ProfileFile(path) as file:
        for record in file.records():
            if record.measurement:
                assert record.measurement.spread >= 0
                record.measurement.repeatability  # noqa: B018
        for setup in file.setups():
            file.anchors(setup), file.op_times(setup), file.outcomes(setup), file.again(setup)
            file.round_log(setup), file.leases(setup, 0.0)
            for load in file.loads(setup):
                load_parts(load), load.to_json()
        file.made()


FRAME = pd.DataFrame(
    {
        "op": ["conv", "mbconv", "max_pool", "add", "depthwise"], "h": [8] * 5, "cin": [4, 8, 4, 4, 4],
        "cout": [8, 8, 4, 4, 4], "kernel": [3] * 5, "stride": [1, 2, 1, 1, 1], "expand": [0, 6, 0, 0, 0],
        "groups": [1, 1, 1, 1, 4], "se": [0, 0.25, 0, 0, 0], "threads": [1] * 5, "device": ["a"] * 5,
        "latency_ms": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)  # fmt: skip


def csv_seeds() -> Seeds:
    own = saved(lambda path: write_table(RECORDS, path), ".csv")
    blocks = pd.DataFrame({"block": [block.name for block in BLOCKS], "latency_ms": [1.0, 2.0]})
    return [own, FRAME.to_csv(index=False).encode(), blocks.to_csv(index=False).encode()]


def csv_mutated(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return bytes_mutated(data, rng)
    frame = pd.read_csv(io.BytesIO(data), dtype=object, keep_default_na=False)
    row, column = rng.randrange(len(frame)), rng.randrange(len(frame.columns))
    cell = frame.iat[row, column]
    try:
        cell = json_text(json_mutated(json.loads(cell), rng), rng).decode()
    except (TypeError, ValueError):
        cell = text_of(rng.choice(ODD))
    if rng.random() < 0.1:
        odd = text_of(rng.choice(ODD)).encode(errors="replace").decode()
        frame.columns = [*frame.columns[:column], odd, *frame.columns[column + 1 :]]
    else:
        frame.iat[row, column] = cell
    return frame.to_csv(index=False).encode(errors="surrogatepass")


def text_of(value: Any) -> str:
    sys.set_int_max_str_digits(0)
    text = str(value)
    sys.set_int_max_str_digits(4300)
    return text


def parquet_of(frame: pd.DataFrame) -> bytes:
    return saved(lambda path: frame.to_parquet(path, index=False))


def parquet_seeds() -> Seeds:
    own = saved(lambda path: write_table(RECORDS, path), ".parquet")
    return [own, parquet_of(FRAME)]


def parquet_mutated(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.6:
        return bytes_mutated(data, rng)
    frame = pd.read_parquet(io.BytesIO(data))
    column = rng.choice(list(frame.columns))
    frame[column] = frame[column].astype(object)
    frame.loc[rng.randrange(len(frame)), column] = rng.choice([o for o in ODD if not isinstance(o, (list, dict))])
    try:
        return parquet_of(frame)
    except (ValueError, TypeError, OverflowError, UnicodeEncodeError):  # mixed columns: of text
        frame[column] = [text_of(cell).encode(errors="replace").decode() for cell in frame[column]]
        return parquet_of(frame)


def read_table(path: Path) -> None:
    for record in read_records(path):
        walk(record.graph)


def read_configurations(path: Path) -> None:
    try:
        frame = pd.read_csv(path)
    except (ValueError, OverflowError, UnicodeDecodeError):
        return
    for graph in graphs_of(frame):
        walk(graph)


def npz_seeds() -> Seeds:
    images = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8)
    arrays = {"x_train": images, "y_train": np.arange(40) % 2}
    return [
        saved(lambda path: np.savez(path, **arrays), ".npz"),  # type: ignore[arg-type]
        saved(lambda path: np.savez_compressed(path, **arrays), ".npz"),  # type: ignore[arg-type]
    ]


def png(index: int) -> bytes:
    return saved(lambda path: Image.new("RGB", (8, 8), (index, 0, 0)).save(path, "PNG"))


def image_parquet_seeds() -> Seeds:
    frame = pd.DataFrame({"image": [png(i) for i in range(40)], "label": [i % 2 for i in range(40)]})
    return [saved(lambda path: frame.to_parquet(path, row_group_size=8, compression=None))]


def tar_seeds() -> Seeds:
    def write(path: Path) -> None:
        with tarfile.open(path, "w") as file:
            for i in range(40):
                for name, content in ((f"{i:03}.png", png(i)), (f"{i:03}.cls", b"%d" % (i % 2))):
                    about = tarfile.TarInfo(name)
                    about.size = len(content)
                    file.addfile(about, io.BytesIO(content))

    return [saved(write)]


def read_images(path: Path) -> None:
    for room in (0, 1 << 20):
        data = load_images(str(path), (8, 8), in_memory_bytes=room)
        data.train.load(data.train.labels[:1] * 0)


def picture_seeds() -> Seeds:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return [
        saved(lambda path, form=form: Image.fromarray(pixels).save(path, form))  # type: ignore[misc]
        for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM")
    ]


def read_picture(path: Path) -> None:
    """The file as one image of a folder of two classes."""
    folder = path.parent / "images"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(5):
            target = folder / name / f"{index}.png"
            if not target.exists():
                Image.new("RGB", (8, 8)).save(target)
    shutil.copy(path, folder / "cat" / "0.png")
    read_images(folder)


def read_architecture(path: Path) -> None:
    walk(Architecture.load(path).graph())


def read_space(path: Path) -> None:
    space = SearchSpace.load(path)
    walk(space.sample(random.Random(0)).graph())


def read_predictor(path: Path) -> None:
    LatencyPredictor.load(path)


def check_seeds() -> Seeds:
    latency = Latency(20.0, 19.0, 21.0, Setup("phone", "chip", "OS", "tflite", "2"), {"conv": KernelTime(2, 3.0)})
    report = CheckReport((Checked("a.onnx", latency), Checked("b.onnx", error="no")), 20.0, None, 0.9, predictor="p")
    return [saved(lambda path: write_json(path, KIND, VERSION, report.to_json()))]


def read_check(path: Path) -> None:
    """The baseline, compared with what is no other setup's."""
    for before in Baseline.load(path).networks.values():
        with_baseline(Checked("a.onnx", before), before, 0.05, is_exact=False)


def json_lines(content: bytes, rng: random.Random) -> bytes:
    """A log of JSON lines, some of them changed, cut off, or repeated."""
    if rng.random() < 0.3:
        return bytes_mutated(content, rng)
    lines = content.splitlines()
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.randrange(len(lines))
        try:
            value = json.loads(lines[place])
        except ValueError:
            continue
        lines[place] = json_text(json_mutated(value, rng), rng)
    return b"\n".join(lines)


@cache
def study_space() -> SearchSpace:
    return tiny(8)


def study_seeds() -> Seeds:
    def write(path: Path) -> None:
        study = Study(path, study_space(), {"seed": 0})
        study.work(RandomDraws(FeasibleSet(study_space())), lambda choices: float(sum(choices)), 4)

    return [saved(write)]


def progress_seeds() -> Seeds:
    def write(path: Path) -> None:
        with ProgressFile(Listener(), path, "search", "mine") as work, work.progress("searching", "steps") as update:
            work.phase("search", is_done=False)
            update(1, 9, "a note")
            update(3, 9, "a note")
            with work.watching(["a"]) as (watch,), work.following(["device", "state"]) as follow:
                watch(0.5, 30.0, "30 °C")
                follow([["a", "measuring"]], "1 of 1 measure", None, None)
                work.scalar("search/loss", 1.0, 1)
                work.phase("search", is_done=True)
            content = path.read_bytes()
        path.write_bytes(content)  # as of work that was killed

    return [saved(write)]


def read_study(path: Path) -> None:
    Study(path, study_space(), {"seed": 0}).ledger()


COST_TABLE = b"""op,shape,bits,ms,mJ
conv k3x3,8x8x1->8x8x8,32,0.4,1.5
conv k3x3 s2x2,8x8x8->4x4x16,32,0.5,1.5
conv k3x3 s2x2,8x8x4->4x4x8,32,0.2,0.7
fully_connected,16->2,32,0.1,0.2
fully_connected,8->2,32,0.1,0.2
"""


def read_costs(path: Path) -> None:
    """A table of layers' costs, and what it says of a network."""
    for column in ("ms", "mJ"):
        table = read_layer_table(path, column)
        try:
            assert table.predict([small_network()])[0] >= 0
        finally:
            assert len(table.digest) > 8


def small_network() -> Graph:
    builder = GraphBuilder((1, 8, 8, 1))
    x = builder.add("stem/conv", Conv2d(8, (3, 3)), 0)
    x = builder.add("stem/relu", Activation(ActivationKind.RELU), x)
    x = builder.add("down/conv", Conv2d(16, (3, 3), (2, 2)), x)
    x = builder.add("down/relu", Activation(ActivationKind.RELU), x)
    x = builder.add("head/mean", Reduce(ReduceKind.MEAN, (1, 2)), x)
    return builder.build(builder.add("head/linear", FullyConnected(2), x))


class Law:
    """A model of the user's own: a million MACs per ms."""

    def predict(self, graphs: Sequence[Graph], /) -> Any:
        return np.array([1e-6 * graph.macs for graph in graphs])


@cache
def phases() -> dict[str, Phase[Any]]:
    """Phases of a finished compression by their records."""
    import torch

    import netlathe as nl
    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.training import TrainConfig

    found: dict[str, Phase[Any]] = {}
    real = Phase.output

    def noted(phase: Phase[Any]) -> Any:
        found[phase.record] = phase
        return real(phase)

    rng, labels, graph = np.random.default_rng(0), np.arange(60) % 2, small_network()
    images = (rng.integers(0, 100, (60, 8, 8)) + 150 * labels[:, None, None]).astype(np.uint8)
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with (
        patch.object(Phase, "output", noted),
        patch("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name),
        patch.dict(os.environ, {"NETLATHE_PAGES": "0"}),
    ):
        nl.compress(
            TorchGraph(graph, generator=torch.Generator().manual_seed(0)).eval(), torch.zeros(1, 1, 8, 8),
            target=nl.Target(Law(), 0.4e-6 * graph.macs, "law"), data=(images, labels), output=folder / "run", step=4,
            precisions=("float32", "int8"), strategy="random", looks=3, compute=nl.Compute(threads=1),
            training=TrainConfig(epochs=1, batch_size=16, learning_rate=0.01),
        )  # fmt: skip
    return found


def record_seeds(name: str) -> Seeds:
    phase = phases()[name]
    return [(phase.place.path / name).read_bytes()]


def read_record(name: str) -> Reader:
    """Reads a file in the place of a compression's record."""

    def read(path: Path) -> None:
        phase = phases()[name]
        shutil.copy(path, phase.place.path / name)
        phase.load()

    return read


def checkpoint_seeds() -> Seeds:
    return [(phases()[TRAINED].place.path / TRAINING_CHECKPOINT).read_bytes()]


def read_checkpoint(path: Path) -> None:
    phase = phases()[TRAINED]
    shutil.copy(path, phase.place.path / TRAINING_CHECKPOINT)
    phase.checkpointer(TRAINING_CHECKPOINT).load()


def comparison_seeds() -> Seeds:
    return [(phases()[WIDTHS].place.path / COMPARISONS).read_bytes()]


def read_comparisons(path: Path) -> None:
    """The losses of a compression; a line that is none counts for nothing."""
    phase = phases()[WIDTHS]
    assert isinstance(phase, ShapePhase)
    for _, value in ComparisonLog(path, loss_inputs(phase.settings)).items():
        assert math.isfinite(value)


NEVER_REFUSED = ("comparisons",)
"""Formats of which any line may be cut off by a kill, and then counts for nothing."""
RECORD_NAMES = (IMPORTANCE, SENSITIVITY, WIDTHS, TRAINED, EXPORTED, UNIFORM, REPORT)


def read_progress(path: Path) -> None:
    """Its state, and the page of it, whose charts are not drawn."""
    work = read_work(path)
    for one in (
        Watched("mine", path, work.kind, work.standing(), work),
        Watched("x", path, work.kind, "working", work),
    ):
        page_of_watched("runs", [one], 1.7e9)
        page_of_watched("runs", [one, one], 1.7e9)


FORMATS: dict[str, tuple[str, Callable[[], Seeds], Callable[[bytes, random.Random], bytes], Reader]] = {
    "tflite": (".tflite", tflite_seeds, tflite_mutated, lambda path: walk(read_tflite(path))),
    "onnx": (".onnx", onnx_seeds, onnx_mutated, lambda path: walk(read_onnx(path))),
    "tflite_weights": (".tflite", tflite_seeds, tflite_mutated, read_tflite_weights),
    "onnx_weights": (".onnx", onnx_seeds, onnx_mutated, read_onnx_weights),
    "tflite_outline": (".tflite", outline_seeds, bytes_mutated, open_model_file),
    "onnx_outline": (".onnx", onnx_seeds, onnx_mutated, open_model_file),
    "architecture": (
        ".json", lambda: [saved(network("mobilenet_v2").save), saved(tiny(8).architecture([1] * 10).save)], json_file,
        read_architecture,
    ),
    "space": (".json", lambda: [saved(tiny(8).save)], json_file, read_space),
    "profile": (".sqlite", lambda: [profile_seed()], profile_mutated, read_profile),
    "csv": (".csv", csv_seeds, csv_mutated, read_table),
    "configurations": (".csv", lambda: csv_seeds()[1:], csv_mutated, read_configurations),
    "parquet": (".parquet", parquet_seeds, parquet_mutated, read_table),
    "npz": (".npz", npz_seeds, bytes_mutated, read_images),
    "image_parquet": (".parquet", image_parquet_seeds, bytes_mutated, read_images),
    "tar": (".tar", tar_seeds, bytes_mutated, read_images),
    "picture": (".png", picture_seeds, bytes_mutated, read_picture),
    "check": (".json", check_seeds, json_file, read_check),
    "progress": (".json", progress_seeds, json_file, read_progress),
    "predictor": (
        ".json", lambda: [file.read_bytes() for file in data_files("predictors", ".json") if file.stem == "pixel4-cpu"],
        json_file, read_predictor,
    ),
    "study": (".journal", study_seeds, json_lines, read_study),
    "costs": (".csv", lambda: [COST_TABLE], csv_mutated, read_costs),
    "checkpoint": (".npz", checkpoint_seeds, bytes_mutated, read_checkpoint),
    "comparisons": (".jsonl", comparison_seeds, json_lines, read_comparisons),
    **{
        f"compression {name}": (".json", partial(record_seeds, name), json_file, read_record(name))
        for name in RECORD_NAMES
    },
}  # fmt: skip


def outcome(read: Reader, path: Path) -> str:
    """'read', 'refused', or what is wrong with how it ended."""
    try:
        read(path)
    except NetlatheError as error:
        lines = str(error).splitlines() if isinstance(error, UnreadableError) else [str(error)]
        for message in lines:
            if len(message) > MOST_CHARACTERS:
                return f"a message of {len(message)} characters: {type(error).__name__} {message[:100]!r}"
            if CONTROL.search(message):
                return f"a raw control character: {message!r}"
        return "refused"
    except SlowError:
        return f"slow: {traceback.format_exc(limit=-4)}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]} {traceback.format_exc(limit=-4)[-700:]}"
    return "read"


def cases(name: str, count: int, seed: int) -> Iterator[bytes]:
    _, seeds, mutate, _ = FORMATS[name]
    rng = random.Random(f"{name} {seed}")
    good = seeds()
    yield from good
    for _ in range(count):
        yield mutate(rng.choice(good), rng)


def run(name: str, count: int, seed: int) -> dict[str, Any]:
    suffix, _, _, read = FORMATS[name]
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"case{suffix}"
        for number, content in enumerate(cases(name, count, seed)):
            path.write_bytes(content)
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            found = outcome(read, path)
            signal.setitimer(signal.ITIMER_PROF, 0)
            counts[found if found in ("read", "refused") else "failed"] += 1
            if found not in ("read", "refused"):
                failures.append(f"{name} {number}: {found}")
    return {"counts": counts, "failures": failures}


def main(name: str, count: int, seed: int) -> None:
    def slow(*_: object) -> None:
        raise SlowError

    signal.signal(signal.SIGPROF, slow)
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    names = list(FORMATS) if name == "all" else [name]
    for one in names:  # loads what is loaded on demand, before memory is limited
        run(one, 0, 0)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES,) * 2)
    found = {one: run(one, count, seed) for one in names}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Shards: what is read together, in which order, and how much of it is held."""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from netlathe.training import DataError, load_images, shards, tars
from netlathe.training.encoded import EncodedSplit
from netlathe.training.shards import Grouped
from netlathe.training.stream import stream

LONG_AGO = 1_500_000_000
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 10, 12, 3), dtype=np.uint8)
LABELS = [i % 3 for i in range(24)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def samples(indices: Sequence[int], ending: str = "cls") -> list[tuple[str, bytes]]:
    labels = {i: json.dumps({"label": LABELS[i]}) if ending == "json" else str(LABELS[i]) for i in indices}
    return [
        member
        for i in indices
        for member in ((f"{i:03}.png", png(PIXELS[i])), (f"{i:03}.{ending}", labels[i].encode()))
    ]


def write_parquet(path: Path, indices: Sequence[int], rows: int = 4) -> None:
    frame = pd.DataFrame({"image": [png(PIXELS[i]) for i in indices], "label": [LABELS[i] for i in indices]})
    frame.to_parquet(path, row_group_size=rows)
    os.utime(path, (LONG_AGO, LONG_AGO))


def numbers(data: object) -> list[int]:
    """The images of all splits by their place in PIXELS."""
    places = {image.tobytes(): i for i, image in enumerate(PIXELS)}
    splits = [data.train, data.validation, data.test]  # type: ignore[attr-defined]
    images = torch.cat([split.load(torch.arange(len(split))) for split in splits]).permute(0, 2, 3, 1).numpy()
    labels = torch.cat([split.labels for split in splits]).tolist()
    found = [places[image.tobytes()] for image in images]
    assert [LABELS[i] for i in found] == labels
    return sorted(found)


@pytest.mark.parametrize("kind", ["cls", "json", "folders", "parquet"])
@pytest.mark.parametrize("room", [1 << 20, 0])
def test_a_folder_of_shards_is_read_whole(tmp_path: Path, kind: str, room: int) -> None:
    for name, part in (("a-train-000", range(12)), ("a-train-001", range(12, 20)), ("a-val-000", range(20, 24))):
        if kind == "parquet":
            write_parquet(tmp_path / f"{name}.parquet", part)
        elif kind == "folders":
            write_tar(tmp_path / f"{name}.tar", [(f"./x/{LABELS[i]}/{i}.png", png(PIXELS[i])) for i in part])
        else:
            write_tar(tmp_path / f"{name}.tar", samples(part, kind))
    data = load_images(tmp_path, (10, 12), in_memory_bytes=room)
    assert numbers(data) == list(range(24))
    assert data.classes == ("0", "1", "2")
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 4)


def test_shards_are_named_by_patterns_and_by_the_folder_of_their_split(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / "train" / f"{number:04}.tar", samples(range(8 * number, 8 * number + 8)))
    write_tar(tmp_path / "test" / "0000.tar", samples(range(3)))
    assert len(load_images(tmp_path, (8, 8)).test) == 3
    for pattern, count in (("train/{0000..0001}.tar", 16), ("train/*.tar", 24), ("train/0002.tar", 8)):
        data = load_images(tmp_path / pattern, (8, 8)) if count > 8 else None
        assert data is None or sum(map(len, (data.train, data.validation, data.test))) == count


def test_names_of_classes_come_from_the_metadata_of_hugging_face(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": png(image), "path": None} for image in PIXELS], "label": LABELS})
    features = {"label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(about), tmp_path / "d.parquet")
    assert load_images(tmp_path / "d.parquet", (8, 8)).classes == ("ant", "bee", "cat")


def test_shards_that_webdataset_wrote_are_read(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("webdataset")
        with library.TarWriter(str(tmp_path / "a-000.tar")) as writer:
            for i, image in enumerate(PIXELS):
                writer.write({"__key__": f"{i:04}", "png": png(image), "cls": LABELS[i]})
    data = load_images(tmp_path / "a-{000..000}.tar", (10, 12))
    assert numbers(data) == list(range(24))


class Counted(Grouped):
    """Ten groups of ten rows; notes what is read."""

    def __init__(self) -> None:
        super().__init__(np.full(10, 10), np.full(10, 30))
        self.reads: list[int] = []

    def name(self, row: int) -> str:
        return str(row)

    def read(self, group: int) -> list[bytes]:
        self.reads.append(group)
        return [bytes([10 * group + i]) for i in range(10)]


def test_a_pass_goes_through_windows_of_groups_and_reads_each_group_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "HELD_BYTES", 180)
    monkeypatch.setattr(shards, "WINDOW_BYTES", 90)
    source = Counted()
    order = source.order(np.arange(100), torch.Generator().manual_seed(0)).tolist()
    assert sorted(order) == list(range(100))
    for row in order:
        with source.open(row) as content:
            assert content.read() == bytes([row])
        assert len(source._held) <= 6
    assert sorted(source.reads) == list(range(10))
    groups = [row // 10 for row in order]
    assert len(set(groups[:20])) >= 2  # of one window, mixed
    assert groups != sorted(groups)
    assert order != source.order(np.arange(100), torch.Generator().manual_seed(1)).tolist()


def test_a_stream_of_shards_starts_anywhere_and_is_the_same_with_workers(tmp_path: Path) -> None:
    for number in range(2):
        write_parquet(tmp_path / f"{number}.parquet", range(12 * number, 12 * number + 12))
    train = load_images(tmp_path, (10, 12), in_memory_bytes=0).train
    assert isinstance(train, EncodedSplit)
    batches = {}
    for start, workers in ((0, 0), (3, 0), (3, 1)):
        with closing(stream(train, 4, seed=5, start=start, augment=True, workers=workers)) as one:
            batches[start, workers] = [x for x, _ in itertools.islice(one, 8 - start)]
    for other in (3, 0), (3, 1):
        for one, same in zip(batches[0, 0][3:], batches[other], strict=True):
            assert torch.equal(one, same)


def test_a_later_call_reads_no_image_of_a_shard_that_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", samples(range(8 * number, 8 * number + 8)))
    known = load_images(tmp_path, (8, 8), in_memory_bytes=0).train.digest()
    read: list[str] = []
    monkeypatch.setattr(tars.Stretches, "read", lambda self, group: pytest.fail("an image is read"))
    monkeypatch.setattr(tars, "list_tars", lambda files: read.extend(file.name for file in files) or iter(()))
    monkeypatch.setattr("netlathe.training.sources.list_tars", tars.list_tars)
    assert load_images(tmp_path, (8, 8), in_memory_bytes=0).train.digest() == known
    assert read == []
    monkeypatch.undo()


def test_a_tar_file_is_read_in_short_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_GROUP_BYTES", 3000)
    path = write_tar(tmp_path / "a.tar", samples(range(24)))
    source = tars.stretches([path], list(tars.list_tars([path]))).source
    assert len(source.sizes) > 5
    assert [source.open(row).read() for row in range(24)] == [png(image) for image in PIXELS]


def bad_shards(folder: Path, case: str) -> Path:
    match case:
        case "compressed":
            (folder / "a.tar").write_bytes(b"\x1f\x8b" + bytes(100))
        case "no tar":
            (folder / "a.tar").write_bytes(b"nothing of the kind" * 100)
        case "no label":
            write_tar(folder / "a.tar", [("a.png", png(PIXELS[0]))])
        case "cut off":
            path = write_tar(folder / "a.tar", samples(range(24)))
            path.write_bytes(path.read_bytes()[:-11_000])
        case "two kinds":
            write_tar(folder / "a.tar", samples(range(3)))
            write_parquet(folder / "a.parquet", range(3))
        case "other columns":
            write_parquet(folder / "a.parquet", range(3))
            pd.DataFrame({"picture": [png(PIXELS[0])], "class": [1]}).to_parquet(folder / "b.parquet")
        case "no training shard":
            write_parquet(folder / "test-0.parquet", range(3))
        case "unreadable":
            write_tar(folder / "a.tar", [*samples(range(24)), ("x.png", b"no picture"), ("x.cls", b"1")])
    return folder


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("compressed", r"a\.tar: is compressed"),
        ("no tar", r"a\.tar: cannot be read as a tar file"),
        ("no label", r"a\.tar: 1 images have no label, among them a\.png"),
        ("cut off", r"a\.tar: has been cut off"),
        ("two kinds", r"holds \.tar and \.parquet files"),
        ("other columns", r"b\.parquet: has other columns than .*a\.parquet"),
        ("no training shard", "no shard is of the training split, only of test"),
        ("unreadable", r"a\.tar: x\.png: not a readable image"),
    ],
)
def test_bad_shards_are_one_clear_error(tmp_path: Path, case: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images(bad_shards(tmp_path, case), (8, 8))

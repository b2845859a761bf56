"""Images from every source, and one clear error for each thing that can be wrong with them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from netlathe.training import examined, held, stream
from netlathe.training.encoded import EncodedSplit
from netlathe.training.errors import DataError
from netlathe.training.held import HeldSplit
from netlathe.training.images import augment
from netlathe.training.normalization import SYMMETRIC
from netlathe.training.sources import load_images

COLORS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def picture(color: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.new("RGB", size, color)


def fill_folder(folder: Path, count: int = 10, names: tuple[str, ...] = ("blue", "red")) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            picture(COLORS.get(name, (9, 9, 9))).save(folder / name / f"{i}.png")


def encoded(color: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    picture(color).save(stream, "PNG")
    return stream.getvalue()


def test_digits_are_the_published_set_and_may_not_be_mirrored() -> None:
    data = load_images("digits", (16, 16))
    assert data.input_shape == (16, 16, 3)
    assert len(data.classes) == 10
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert not data.mirror
    assert int(data.train.images.max()) == 255


def test_digits_keep_their_own_pixels_at_their_own_size() -> None:
    data = load_images("digits", (8, 8), channels=1)
    assert data.input_shape == (8, 8, 1)
    assert set(torch.unique(data.test.images).tolist()) <= {round(v * 255 / 16) for v in range(17)}


def test_equal_seeds_give_equal_splits_and_splits_do_not_overlap() -> None:
    first, second, other = (load_images("digits", (8, 8), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.test.images, second.test.images)
    assert not torch.equal(first.test.labels, other.test.labels)


def test_every_class_is_held_out_in_proportion() -> None:
    data = load_images("digits", (8, 8))
    shares = torch.bincount(data.test.labels).double() / torch.bincount(data.train.labels).double()
    assert float(shares.max() - shares.min()) < 0.05


def test_a_folder_per_class_is_read_with_its_names_and_colors(tmp_path: Path) -> None:
    fill_folder(tmp_path)
    data = load_images(str(tmp_path), (8, 8))
    assert data.classes == ("blue", "red")
    for image, label in zip(data.test.images, data.test.labels, strict=True):
        assert tuple(image[:, 4, 4].tolist()) == COLORS[data.classes[label]]


def test_train_and_val_folders_are_kept_apart(tmp_path: Path) -> None:
    fill_folder(tmp_path / "train", 10)
    fill_folder(tmp_path / "val", 3)
    data = load_images(str(tmp_path), (8, 8))
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 6)


def test_an_npz_in_keras_style_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 9, 9, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8, None])
    data = load_images(str(tmp_path / "d.npz"), (9, 9))
    assert len(data.classes) == 4
    assert torch.equal(data.test.images, torch.from_numpy(x[:8]).permute(0, 3, 1, 2))


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_float_pixels_of_either_range_become_the_same_bytes(tmp_path: Path, scale: float) -> None:
    x = np.linspace(0, 1, 20 * 64).reshape(20, 8, 8)
    np.savez(tmp_path / "d.npz", x=x * scale, y=np.arange(20) % 2)
    data = load_images(str(tmp_path / "d.npz"), (8, 8))
    assert int(torch.cat([s.images for s in (data.train, data.validation, data.test)]).max()) == 255


@pytest.mark.parametrize("struct", [False, True])
def test_a_parquet_of_encoded_images_is_read(tmp_path: Path, struct: bool) -> None:
    names = ["blue", "red"] * 10
    images = [encoded(COLORS[name]) for name in names]
    cells = [{"bytes": image, "path": None} for image in images] if struct else images
    frame = pd.DataFrame({"image": cells, "label": names, "split": ["train"] * 14 + ["test"] * 6})
    frame.to_parquet(tmp_path / "d.parquet")
    data = load_images(str(tmp_path / "d.parquet"), (10, 12))
    assert data.classes == ("blue", "red")
    assert len(data.test) == 6
    for image, label in zip(data.test.images, data.test.labels, strict=True):
        assert tuple(image[:, 0, 0].tolist()) == COLORS[data.classes[label]]


@pytest.mark.parametrize("limit", [10, 100, 250])
def test_a_limit_keeps_every_class_alike(limit: int) -> None:
    data = load_images("digits", (8, 8), limit=limit)
    for split in (data.train, data.validation, data.test):
        assert len(split) == limit
        assert torch.bincount(split.labels).tolist() == [limit // 10] * 10


def test_a_limit_just_below_the_number_of_images_is_no_trouble() -> None:
    assert len(load_images("digits", (8, 8), limit=1148).train) == 1148


def test_booleans_are_black_and_white(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(20 * 64).reshape(20, 8, 8) % 2 == 0, y=np.arange(20) % 2)
    assert torch.unique(load_images(str(tmp_path / "d.npz"), (8, 8)).test.images).tolist() == [0, 255]


def write_bad(tmp_path: Path, case: str) -> str:
    good = np.zeros((20, 8, 8), np.uint8)
    labels = np.arange(20) % 2
    npz = tmp_path / "d.npz"
    match case:
        case "missing":
            return str(tmp_path / "nothing")
        case "empty folder":
            return str(tmp_path)
        case "class folders without images":
            (tmp_path / "cat").mkdir()
            return str(tmp_path)
        case "text file":
            (tmp_path / "d.txt").write_text("x")
            return str(tmp_path / "d.txt")
        case "broken image":
            fill_folder(tmp_path)
            (tmp_path / "red" / "3.png").write_bytes(b"not a picture")
            return str(tmp_path)
        case "other classes in test":
            fill_folder(tmp_path / "train")
            fill_folder(tmp_path / "test", names=("blue", "green"))
            return str(tmp_path)
        case "not an npz":
            npz.write_bytes(b"PK\x03\x04 broken")
        case "npz without images":
            np.savez(npz, a=good)
        case "npz of objects":
            np.savez(npz, x=np.array([{}, {}], dtype=object), y=labels[:2])
        case "labels missing":
            np.savez(npz, x=good, y=labels[:7])
        case "five channels":
            np.savez(npz, x=np.zeros((20, 8, 8, 5), np.uint8), y=labels)
        case "flat images":
            np.savez(npz, x=np.zeros((20, 64), np.uint8), y=labels)
        case "negative pixels":
            np.savez(npz, x=good.astype(float) - 1, y=labels)
        case "one image":
            np.savez(npz, x=good[:1], y=labels[:1])
        case "two images":
            np.savez(npz, x=good[:2], y=labels[:2])
        case "zeros and ones":
            np.savez(npz, x=(good + labels[:, None, None]).astype(np.int64), y=labels)
        case "pixels of text":
            np.savez(npz, x=good.astype(str), y=labels)
        case "missing label":
            np.savez(npz, x=good, y=np.where(np.arange(20) == 3, np.nan, labels))
        case "empty npz":
            npz.write_bytes(b"")
        case "16-bit image":
            fill_folder(tmp_path)
            Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "red" / "deep.png")
            return str(tmp_path)
        case "not parquet":
            (tmp_path / "d.parquet").write_bytes(b"PAR1")
            return str(tmp_path / "d.parquet")
        case "parquet without images":
            pd.DataFrame({"label": [1, 2]}).to_parquet(tmp_path / "d.parquet")
            return str(tmp_path / "d.parquet")
        case "parquet with a strange split":
            pd.DataFrame({"image": [encoded(COLORS["red"])], "label": [0], "split": ["dev"]}).to_parquet(
                tmp_path / "d.parquet"
            )
            return str(tmp_path / "d.parquet")
    return str(npz)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "no such file or folder"),
        ("empty folder", "no images found"),
        ("class folders without images", "no images found"),
        ("text file", "not from '.txt'"),
        ("broken image", r"3\.png: not a readable image"),
        ("other classes in test", "test split has images of class 'green', and the training split none"),
        ("not an npz", "cannot be read as an .npz"),
        ("npz without images", "holds a; expected x_train and y_train"),
        ("npz of objects", "cannot be read as an .npz of plain arrays"),
        ("labels missing", "20 images but 7 labels"),
        ("five channels", r"got \(20, 8, 8, 5\)"),
        ("flat images", r"got \(20, 64\)"),
        ("negative pixels", "pixel values must lie in"),
        ("one image", "one class only"),
        ("two images", "too few"),
        ("zeros and ones", "nearly black"),
        ("pixels of text", "pixels must be numbers"),
        ("missing label", "1 labels are missing"),
        ("empty npz", "cannot be read as an .npz"),
        ("16-bit image", "more than 8 bits a channel"),
        ("not parquet", "cannot be read as Parquet"),
        ("parquet without images", "needs a column of encoded images"),
        ("parquet with a strange split", "unknown split 'dev'"),
    ],
)
def test_bad_images_are_one_clear_error(tmp_path: Path, case: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images(write_bad(tmp_path, case), (8, 8))


def test_input_pixels_lie_between_minus_one_and_one() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1)
    assert SYMMETRIC(pixels).flatten().tolist() == [-1.0, 1.0]


def test_augmenting_shifts_and_mirrors_but_invents_no_pixels() -> None:
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(200, 3, 8, 8)
    y = augment(x, torch.Generator().manual_seed(0), mirror=False)
    assert y.shape == x.shape
    assert torch.equal(y[:, 0], y[:, 2])
    assert (y[:, :, :, 1:] >= y[:, :, :, :-1]).all()  # never mirrored
    offsets = (y[:, 0, 4, 4] - 36).unique()
    assert offsets.tolist() == [-9.0, -8.0, -7.0, -1.0, 0.0, 1.0, 7.0, 8.0, 9.0]
    mirrored = augment(x, torch.Generator().manual_seed(0), mirror=True)
    flipped = (mirrored[:, 0, 4, 0] > mirrored[:, 0, 4, 7]).float().mean()
    assert 0.35 < float(flipped) < 0.65


def test_augmenting_leaves_still_images_where_they_are() -> None:
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(20, 3, 8, 8)
    still = torch.arange(20) % 2 == 0
    y = augment(x, torch.Generator().manual_seed(0), mirror=False, still=still)
    assert torch.equal(y[still], x[still])
    assert not torch.equal(y[~still], x[~still])


def colorful(folder: Path, count: int) -> None:
    """`count` images a class of 12 x 10 random pixels."""
    rng = np.random.default_rng(0)
    for name in ("blue", "red"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(folder / name / f"{i:02}.png")


def test_images_that_do_not_fit_in_memory_stay_encoded_and_decode_to_the_same_pixels(tmp_path: Path) -> None:
    colorful(tmp_path, 10)
    pixels = 20 * 3 * 8 * 6
    inside, outside = (load_images(str(tmp_path), (6, 8), in_memory_bytes=pixels - less) for less in (0, 1))
    for whole, kept in zip(*((data.train, data.validation, data.test) for data in (inside, outside)), strict=True):
        assert isinstance(whole, HeldSplit)
        assert isinstance(kept, EncodedSplit)
        assert torch.equal(whole.labels, kept.labels)
        assert torch.equal(whole.images, kept.load(torch.arange(len(kept))))
    assert outside.input_shape == inside.input_shape == (6, 8, 3)


@pytest.mark.parametrize("case", ["broken image", "16-bit image"])
def test_images_that_stay_encoded_are_opened_at_the_start(tmp_path: Path, case: str) -> None:
    with pytest.raises(DataError, match=r"not a readable image|more than 8 bits"):
        load_images(write_bad(tmp_path, case), (8, 8), in_memory_bytes=0)


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    cells = [encoded(COLORS["red"])] * 9 + [None]
    pd.DataFrame({"image": cells, "label": [0, 1] * 5, "split": "train"}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"d\.parquet row 9: not a readable image"):
        load_images(str(tmp_path / "d.parquet"), (8, 8))


def test_a_limit_is_met_by_splits_that_are_held_out_of_a_parquet_too(tmp_path: Path) -> None:
    cells = [encoded(COLORS["red"]), encoded(COLORS["blue"])] * 40
    pd.DataFrame({"image": cells, "label": ["red", "blue"] * 40}).to_parquet(tmp_path / "d.parquet")
    data = load_images(str(tmp_path / "d.parquet"), (8, 8), limit=10)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [10, 10, 10]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_many_images_are_decoded_by_processes_to_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colorful(tmp_path, 10)
    alone = load_images(str(tmp_path), (6, 8))
    for room in (examined, stream):
        monkeypatch.setattr(room, "workers_for", lambda images: 2)
    for room in (examined, held):
        monkeypatch.setattr(room, "CHUNK", 3)
    assert torch.equal(load_images(str(tmp_path), (6, 8)).train.images, alone.train.images)
    (tmp_path / "red" / "03.png").write_bytes(b"not a picture")
    for room in (1 << 20, 0):
        with pytest.raises(DataError, match=r"03\.png: not a readable image"):
            load_images(str(tmp_path), (6, 8), in_memory_bytes=room)


def test_two_channels_are_refused() -> None:
    with pytest.raises(DataError, match="not with 2 channels"):
        load_images("digits", (8, 8), channels=2)

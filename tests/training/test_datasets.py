"""Arrays and datasets of other libraries as they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netlathe.training import DataError, ImageData, load_images
from netlathe.training.datasets import DatasetSplit

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 10, 12, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3


def assert_whole(data: ImageData) -> None:
    """All images are there once, each with its label."""
    places = {image.tobytes(): i for i, image in enumerate(PIXELS)}
    splits = (data.train, data.validation, data.test)
    images = torch.cat([split.load(torch.arange(len(split))) for split in splits]).permute(0, 2, 3, 1).numpy()
    found = [places[image.tobytes()] for image in images]
    assert sorted(found) == list(range(30))
    assert LABELS[found].tolist() == torch.cat([split.labels for split in splits]).tolist()


class Items:
    """A map-style dataset; notes what is asked for."""

    def __init__(self, kind: str = "image", targets: Sequence[int] | None = None) -> None:
        self.kind, self.asked = kind, list[int]()
        self.classes = ["ant", "bee", "cat"]
        if targets is not None:
            self.targets = targets

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.asked.append(index)
        pixels = PIXELS[index]
        image = {
            "image": lambda: Image.fromarray(pixels),
            "array": lambda: pixels,
            "tensor": lambda: torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
            "one-hot": lambda: pixels,
        }[self.kind]()
        return image, np.eye(3)[LABELS[index]] if self.kind == "one-hot" else int(LABELS[index])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "tensor"])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], np.eye(3)[LABELS], torch.from_numpy(LABELS)])
def test_arrays_are_taken_in_any_layout(layout: str, labels: Any) -> None:
    images = {
        "NHWC": PIXELS, "NCHW": PIXELS.transpose(0, 3, 1, 2), "tensor": torch.from_numpy(PIXELS.transpose(0, 3, 1, 2))
    }[layout]  # fmt: skip
    data = load_images((images, labels), (10, 12))
    assert_whole(data)
    assert data.classes == ("0", "1", "2")


def test_splits_are_given_by_their_names() -> None:
    data = load_images({"training": (PIXELS[:20], LABELS[:20]), "test": (PIXELS[20:], LABELS[20:])}, (10, 12))
    assert_whole(data)
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 10)
    with pytest.raises(DataError, match="unknown split 'dev'; known: train"):
        load_images({"train": (PIXELS, LABELS), "dev": (PIXELS, LABELS)}, (10, 12))


@pytest.mark.parametrize("kind", ["image", "array", "tensor", "one-hot"])
@pytest.mark.parametrize("room", [1 << 20, 0])
def test_torch_datasets_are_taken_in_any_form(kind: str, room: int) -> None:
    data = load_images(Items(kind), (10, 12), in_memory_bytes=room)
    assert_whole(data)
    assert data.classes == ("ant", "bee", "cat")
    assert isinstance(data.train, DatasetSplit) == (room == 0)


def test_a_dataset_that_lists_its_labels_is_asked_for_no_images_before_they_are_used() -> None:
    items = Items(targets=LABELS.tolist())
    data = load_images(items, (10, 12), in_memory_bytes=0)
    assert len(items.asked) == 3
    assert_whole(data)


def test_listed_labels_that_its_items_do_not_have_are_not_believed() -> None:
    assert_whole(load_images(Items(targets=[0] * 30), (10, 12), in_memory_bytes=0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.linspace(0, 1, 30), r"labels are numbers such as 0\.0344828, which name no classes"),
        (np.full((30, 3), 1 / 3), r"labels of \(30, 3\) must be one-hot.*argmax"),
        (np.ones((30, 3)), r"labels of \(30, 3\) must be one-hot"),
        (np.arange(30), "every class has one image, too few to hold some out"),
        (np.r_[LABELS[:29], 7], "class '7' has a single image left, too few to hold some out"),
        (np.arange(30) % 15, "30 images are too few to hold a fifth out with each of 15 classes"),
        (LABELS[:29], "30 images but 29 labels"),
    ],
)
def test_labels_that_make_no_classes_are_spoken_of(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images((PIXELS, labels), (10, 12))


@pytest.fixture(scope="module")
def hugging_face() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def table(library: Any, rows: slice = slice(0, 30)) -> Any:
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["ant", "bee", "cat"])})
    columns = {"image": [Image.fromarray(image) for image in PIXELS[rows]], "label": LABELS[rows].tolist()}
    return library.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("room", [1 << 20, 0])
@pytest.mark.parametrize("form", [None, "torch"])
def test_datasets_of_hugging_face_are_taken_as_they_are(hugging_face: Any, room: int, form: str | None) -> None:
    data = load_images(table(hugging_face).with_format(form), (10, 12), in_memory_bytes=room)
    assert_whole(data)
    assert data.classes == ("ant", "bee", "cat")


def test_the_splits_of_a_dictionary_of_hugging_face_are_kept(hugging_face: Any) -> None:
    parts = {"train": table(hugging_face, slice(0, 20)), "test": table(hugging_face, slice(20, 30))}
    data = load_images(hugging_face.DatasetDict(parts), (10, 12))
    assert_whole(data)
    assert len(data.test) == 10


def test_files_that_hugging_face_wrote_have_its_names_of_classes(hugging_face: Any, tmp_path: Path) -> None:
    hugging_face.disable_progress_bars()
    table(hugging_face).to_parquet(tmp_path / "d.parquet")
    data = load_images(tmp_path / "d.parquet", (10, 12))
    assert_whole(data)
    assert data.classes == ("ant", "bee", "cat")


def test_a_table_without_images_is_refused(hugging_face: Any) -> None:
    with pytest.raises(DataError, match=r"needs a column of images and one of labels .*; it has text, label"):
        load_images(hugging_face.Dataset.from_dict({"text": ["a"], "label": [1]}), (8, 8))

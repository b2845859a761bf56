"""How networks take pixels: closed forms, names, splits that keep it, refusals."""

from __future__ import annotations

import pytest
import torch

from netlathe.training import DataError, Normalization, evaluate, load_images
from netlathe.training.normalization import NORMALIZATIONS, SYMMETRIC
from netlathe.training.stream import stream

BYTES = torch.tensor([[[[0, 51, 255]]] * 3], dtype=torch.uint8).reshape(1, 3, 1, 3)


@pytest.mark.parametrize(("name", "values"), [
    ("-1..1", [-1, -0.6, 1]), ("0..1", [0, 0.2, 1]), ("0..255", [0, 51, 255]),
    ("0.5/0.25", [-2, -1.2, 2]), ("imagenet", [-0.485 / 0.229, (0.2 - 0.485) / 0.229, (1 - 0.485) / 0.229]),
])  # fmt: skip
def test_bytes_become_values(name: str, values: list[float]) -> None:
    taken = Normalization.parse(name)
    assert str(taken) == name
    assert Normalization.parse(str(taken)) == taken
    assert taken(BYTES)[0, 0, 0].tolist() == pytest.approx(values, rel=1e-5, abs=1e-6)


def test_each_channel_has_its_own() -> None:
    found = Normalization((0.0, 0.2, 1.0), (1.0, 0.5, 2.0))(BYTES)[0, :, 0, 1]
    assert found.tolist() == pytest.approx([0.2, 0.0, -0.4])
    assert str(Normalization((0.1, 0.2, 0.3), (1.0,))) == "0.1,0.2,0.3/1"


@pytest.mark.parametrize("text", ["", "imagnet", "0.5", "0.5/0", "0.5/-1", "a/b", "0.1,0.2/1", "nan/1", "1/2/3"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="normalization"):
        Normalization.parse(text)


def test_a_split_keeps_it_wherever_its_images_go() -> None:
    data = load_images("digits", (8, 8), channels=1, limit=60)
    raw = data.normalized(NORMALIZATIONS["0..255"])
    assert data.normalization == SYMMETRIC
    assert raw.normalized(SYMMETRIC).normalization == SYMMETRIC
    joined = raw.train.take(torch.arange(20)).joined(raw.validation)
    assert len(joined) == 80
    assert joined.normalization == raw.normalization
    batch, _ = next(stream(joined, 80, seed=0, augment=True))
    assert batch.max() > 200
    means: list[float] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        means.append(float(x.mean()))
        return torch.zeros(len(x), 10)

    for one in (data, raw):
        evaluate(network, one.test)
    assert means[1] == pytest.approx(127.5 * (means[0] + 1), rel=1e-4)


def test_splits_of_two_normalizations_and_of_other_channels_are_refused() -> None:
    data = load_images("digits", (8, 8), channels=1, limit=30)
    with pytest.raises(DataError, match=r"as 0..1 and -1..1 cannot be joined"):
        data.normalized(NORMALIZATIONS["0..1"]).train.joined(data.validation)
    with pytest.raises(DataError, match="has three numbers, the images have 1 channel"):
        data.normalized(NORMALIZATIONS["imagenet"])


def test_images_are_told_in_a_line() -> None:
    data = load_images("digits", (8, 8), channels=1, limit=30)
    assert repr(data) == "<ImageData digits: 10 classes, 30 train, 30 validation, 30 test images of (8, 8, 1)>"
    assert repr(data.train) == "<MemorySplit: 30 images of (1, 8, 8)>"


@pytest.mark.parametrize("size", [32, (32,), (0, 8), ("8", "8"), None])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(DataError, match="give height and width in pixels"):
        load_images("digits", size)  # type: ignore[arg-type]

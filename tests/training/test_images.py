"""One contract for images in memory, encoded, and joined; the random cuts of encoded ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from netlathe.training.augmentation import MODERATE_AREA as LEAST_AREA
from netlathe.training.augmentation import crop_box
from netlathe.training.datasets import DatasetSplit
from netlathe.training.encoded import Encoded, EncodedSplit, Files
from netlathe.training.errors import DataError
from netlathe.training.held import Held, HeldSplit
from netlathe.training.images import ImageSplit, JoinedSplit, MemorySplit, NormalizedSplit
from netlathe.training.normalization import SYMMETRIC
from netlathe.training.parquet import open_parquet
from netlathe.training.tars import list_tars, stretches

COUNT, HEIGHT, WIDTH = 12, 6, 8
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
LABELS = torch.arange(COUNT) % 5


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def from_parquet(folder: Path) -> EncodedSplit:
    """Row groups of 5 images, in two files of 7 and 5."""
    folder.mkdir(exist_ok=True)
    for name, part in (("a", slice(0, 7)), ("b", slice(7, COUNT))):
        frame = pd.DataFrame({"image": [png(image) for image in PIXELS[part]], "label": LABELS[part].numpy()})
        frame.to_parquet(folder / f"{name}.parquet", row_group_size=5)
    return encoded(open_parquet([folder / "a.parquet", folder / "b.parquet"]).source)


def from_tar(folder: Path) -> EncodedSplit:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "a.tar", "w") as file:
        for i, image in enumerate(PIXELS):
            for name, content in ((f"{i:02}.png", png(image)), (f"{i:02}.cls", str(int(LABELS[i])).encode())):
                about = tarfile.TarInfo(name)
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))
    paths = [folder / "a.tar"]
    return encoded(stretches(paths, list(list_tars(paths))).source)


def from_files(folder: Path, pixels: np.ndarray = PIXELS, size: tuple[int, int] = (HEIGHT, WIDTH)) -> EncodedSplit:
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(pixels):
        (folder / f"{i}.png").write_bytes(png(image))
    names = np.array([f"{i}.png".encode() for i in range(len(pixels))])
    return encoded(Files(str(folder), names, np.zeros(len(pixels), np.uint64)), size)


def encoded(source: Encoded, size: tuple[int, int] = (HEIGHT, WIDTH)) -> EncodedSplit:
    return EncodedSplit(source, torch.arange(COUNT), LABELS, size, 3)


class Items:
    """A map-style dataset."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return PIXELS[index], int(LABELS[index])


@pytest.fixture(params=["memory", "parquet", "tar", "files", "held", "dataset", "normalized", "joined"])
def split(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSplit:
    match request.param:
        case "memory":
            return MemorySplit(IMAGES, LABELS)
        case "parquet":
            return from_parquet(tmp_path)
        case "tar":
            return from_tar(tmp_path)
        case "files":
            return from_files(tmp_path)
        case "held":
            return HeldSplit(Held(from_files(tmp_path)), torch.arange(COUNT), LABELS)
        case "dataset":
            return DatasetSplit(Items(), torch.arange(COUNT), LABELS, (HEIGHT, WIDTH), 3)
        case "normalized":
            return NormalizedSplit(from_files(tmp_path), SYMMETRIC)
    return MemorySplit(IMAGES[:5], LABELS[:5]).joined(from_files(tmp_path).take(torch.arange(5, COUNT)))


def loaded(split: ImageSplit) -> Tensor:
    return split.load(torch.arange(len(split)))


class TestEveryKindOfSplit:
    def test_has_the_images_and_labels_that_it_was_made_of(self, split: ImageSplit) -> None:
        assert len(split) == COUNT
        assert split.shape == (3, HEIGHT, WIDTH)
        assert loaded(split).dtype == torch.uint8
        assert torch.equal(loaded(split), IMAGES)
        assert torch.equal(split.labels, LABELS)

    def test_loads_any_images_in_any_order(self, split: ImageSplit) -> None:
        index = torch.tensor([7, 0, 7, 11, 3])
        assert torch.equal(split.load(index), IMAGES[index])
        assert split.load(index[:0]).shape == (0, 3, HEIGHT, WIDTH)

    def test_takes_some_of_what_was_taken(self, split: ImageSplit) -> None:
        part = split.take(torch.tensor([9, 2, 4, 0])).take(torch.tensor([2, 0]))
        assert torch.equal(loaded(part), IMAGES[[4, 9]])
        assert torch.equal(part.labels, LABELS[[4, 9]])

    @pytest.mark.parametrize("kind", ["memory", "encoded"])
    def test_is_joined_with_every_other_kind(self, split: ImageSplit, kind: str, tmp_path: Path) -> None:
        other = MemorySplit(IMAGES, LABELS) if kind == "memory" else from_files(tmp_path / "other")
        both = split.take(torch.tensor([3, 1])).joined(other.take(torch.tensor([8])))
        assert torch.equal(loaded(both), IMAGES[[3, 1, 8]])
        assert torch.equal(both.labels, LABELS[[3, 1, 8]])
        assert torch.equal(both.take(torch.tensor([2, 0])).load(torch.tensor([0])), IMAGES[[8]])

    def test_refuses_to_join_images_of_another_shape(self, split: ImageSplit) -> None:
        with pytest.raises(DataError, match=r"\(3, 6, 8\) and of \(1, 6, 8\)"):
            split.joined(MemorySplit(IMAGES[:, :1], LABELS))

    def test_orders_a_pass_by_the_generator_alone_and_shows_each_image_once(self, split: ImageSplit) -> None:
        part = split.take(torch.tensor([11, 3, 0, 7, 5, 2]))
        one, same, other = (part.order(torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2))
        assert one == same
        assert sorted(one) == sorted(other) == list(range(6))

    def test_is_told_from_others_by_its_digest(self, split: ImageSplit) -> None:
        whole = split.digest()
        assert whole == split.take(torch.arange(COUNT)).digest()
        assert whole != split.take(torch.tensor([1, *range(1, COUNT)])).digest()

    def test_augments_alike_for_equal_generators_only(self, split: ImageSplit) -> None:
        one, same, other = (
            split.augmented(torch.arange(COUNT), torch.Generator().manual_seed(seed), mirror=True) for seed in (1, 1, 2)
        )
        assert one.dtype == torch.uint8
        assert one.shape == IMAGES.shape
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_parts_of_one_source_are_joined_without_a_layer_between(tmp_path: Path) -> None:
    whole = from_files(tmp_path)
    assert isinstance(whole.take(torch.arange(3)).joined(whole.take(torch.arange(3, 6))), EncodedSplit)
    assert isinstance(whole.joined(from_files(tmp_path)), JoinedSplit)


def test_a_file_that_is_gone_by_the_time_it_is_wanted_is_named(tmp_path: Path) -> None:
    split = from_files(tmp_path)
    (tmp_path / "3.png").unlink()
    assert len(split.load(torch.tensor([2]))) == 1
    with pytest.raises(DataError, match=r"3\.png: not a readable image .*No such file.*remove or replace it"):
        split.load(torch.tensor([2, 3]))


def test_large_encoded_images_are_cut_for_training_and_resized_whole_otherwise(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None], (100, 100, 3))
    split = from_files(tmp_path, np.repeat(ramp[None], COUNT, 0), (10, 10))
    assert abs(float(loaded(split)[0, 0, 0, -1]) - 94.5) < 2
    cuts = split.augmented(torch.arange(COUNT), torch.Generator().manual_seed(0), mirror=False)[:, 0, 0].int()
    wide = (cuts[:, -1] - cuts[:, 0]) / 0.9  # columns that a cut spans
    least = (LEAST_AREA / (4 / 3)) ** 0.5 * 100
    assert wide.min() > least - 3
    assert wide.max() <= 102
    assert wide.max() - wide.min() > 10
    mirrored = split.augmented(torch.arange(COUNT), torch.Generator().manual_seed(0), mirror=True)[:, 0, 0].int()
    assert {True, False} == set((mirrored[:, -1] < mirrored[:, 0]).tolist())


def test_encoded_images_of_the_networks_size_are_shifted_like_those_in_memory(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, :, None] * 10, (8, 8, 3))
    split = from_files(tmp_path, np.repeat(ramp[None], COUNT, 0), (8, 8))
    shifted = split.augmented(torch.arange(COUNT), torch.Generator().manual_seed(0), mirror=False)
    assert set(shifted[:, 0, 4, 4].tolist()) == {30, 40, 50}


def test_cuts_lie_inside_the_image_and_keep_to_area_and_ratio() -> None:
    for draws in np.random.default_rng(0).random((500, 4)):
        left, top, right, bottom = crop_box((120, 90), draws.tolist(), LEAST_AREA)
        wide, high = right - left, bottom - top
        assert 0 <= left < right <= 120
        assert 0 <= top < bottom <= 90
        area = 120 * 90 * (LEAST_AREA + (1 - LEAST_AREA) * draws[0])
        if wide < 120 and high < 90:
            assert wide * high == pytest.approx(area, rel=0.03)
            assert 0.73 < wide / high < 1.37


def test_extreme_draws_and_tiny_images_give_a_cut_too() -> None:
    assert crop_box((120, 120), [1.0, 0.5, 0.0, 0.0], LEAST_AREA) == (0, 0, 120, 120)
    assert crop_box((1, 1), [0.0, 0.0, 0.999, 0.999], LEAST_AREA) == (0, 0, 1, 1)
    assert crop_box((100, 100), [0.0, 0.5, 0.999999, 0.999999], LEAST_AREA) == (41, 41, 100, 100)

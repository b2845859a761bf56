"""Random changes of training images: their shapes and ranges, what mixed labels say, and what they depend on."""

from __future__ import annotations

import itertools
import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from netlathe.training import augmentation
from netlathe.training.augmentation import Augmentation, ImageChanges, Mixing, crop_box, cut_box
from netlathe.training.errors import TrainingError
from netlathe.training.images import ImageData, ImageSplit, augment
from netlathe.training.normalization import NORMALIZATIONS, SYMMETRIC
from netlathe.training.ranks import Ranks
from netlathe.training.sources import load_images
from netlathe.training.stream import stream

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8))
RICH = Augmentation(
    crop="resized", color_jitter=(0.4, 0.4, 0.4, 0.1), policy="randaugment", erasing=0.5, mixup=0.4, cutmix=1.0
)
KINDS = {
    "color jitter": Augmentation(color_jitter=(0.4, 0.4, 0.4, 0.1)),
    "randaugment": Augmentation(policy="randaugment", magnitude=15),
    "trivialaugment": Augmentation(policy="trivialaugment"),
    "erasing": Augmentation(erasing=1.0),
}


class Several(Ranks):
    """A process of several that are only counted."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self._count = index, count

    @property
    def count(self) -> int:
        return self._count


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=60)


def taken(split: ImageSplit, count: int, own: Augmentation, **options: object) -> list[tuple[Tensor, Tensor]]:
    options = {"seed": 3, "augment": True, "mirror": True, "augmentation": own, "classes": 10, **options}
    with closing(stream(split, 20, **options)) as found:  # type: ignore[arg-type]
        return list(itertools.islice(found, count))


# Single images


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_their_shape_and_type_and_each_is_changed_by_its_own_numbers(name: str, channels: int) -> None:
    images = IMAGES[:, :channels]
    changes = ImageChanges(KINDS[name], SYMMETRIC)
    changed = changes(images, 1, 0, range(12))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, images)
    assert torch.equal(changed, changes(images, 1, 0, range(12)))
    assert not torch.equal(changed, changes(images, 1, 1, range(12)))
    places = [2, 5, 11]
    assert torch.equal(changes(images[places], 1, 0, places), changed[places])


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    ImageChanges(KINDS["randaugment"], SYMMETRIC)(IMAGES, 1, 0, range(12))
    Mixing(RICH, 10, 0)(IMAGES.float(), torch.arange(12) % 10, 4)
    assert torch.equal(torch.rand(3), wanted)


def test_an_erased_square_has_its_area_and_the_mean() -> None:
    own = Augmentation(erasing=1.0, erased_area=(0.25, 0.25), erased_ratio=(1.0, 1.0))
    normalization = NORMALIZATIONS["imagenet"]
    white = torch.full((12, 3, 16, 16), 255, dtype=torch.uint8)
    changed = ImageChanges(own, normalization)(white, 0, 0, range(12))
    is_erased = (changed != 255).all(1)
    assert is_erased.sum((1, 2)).tolist() == [8 * 8] * 12
    for one in is_erased:
        rows, columns = one.nonzero(as_tuple=True)
        assert rows.max() - rows.min() == columns.max() - columns.min() == 7
    mean = round(255 * sum(normalization.mean) / 3)
    assert set(changed[is_erased[:, None].expand(-1, 3, -1, -1)].tolist()) == {mean}


def test_the_probability_of_erasing_is_kept() -> None:
    white = torch.full((200, 1, 8, 8), 255, dtype=torch.uint8)
    changed = ImageChanges(Augmentation(erasing=0.3), SYMMETRIC)(white, 0, 0, range(200))
    share = float((changed != 255).flatten(1).any(1).float().mean())
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 200)


def test_trivialaugment_leaves_about_one_in_fourteen_images() -> None:
    images = IMAGES[:1].expand(200, -1, -1, -1)
    changed = ImageChanges(KINDS["trivialaugment"], SYMMETRIC)(images, 0, 0, range(200))
    same = int((changed == images).flatten(1).all(1).sum())
    assert 200 / 14 / 3 < same < 200 / 14 * 3  # those of strength near 0 leave an image, too


# Crops


def test_a_random_part_takes_the_images_size() -> None:
    ramp = torch.arange(16, dtype=torch.uint8).mul(10).expand(64, 1, 16, 16)
    own = Augmentation(crop="resized", least_area=0.08)
    cut = augment(ramp, torch.Generator().manual_seed(0), mirror=False, augmentation=own)
    assert cut.shape == ramp.shape
    assert cut.dtype == torch.uint8
    widths = cut[:, 0, 0, -1].int() - cut[:, 0, 0, 0].int()  # columns are 10 apart
    assert (widths > 0).all()
    assert widths.min() < 80
    assert widths.max() > 120
    mirrored = augment(ramp, torch.Generator().manual_seed(0), mirror=True, augmentation=own)
    falls = (mirrored[:, 0, 0, -1].int() < mirrored[:, 0, 0, 0].int()).float().mean()
    assert 0.25 < float(falls) < 0.75


def test_a_whole_area_with_square_sides_is_the_image() -> None:
    assert crop_box((32, 32), [0.3, 0.5, 0.7, 0.7], 1.0) == (0, 0, 32, 32)


# Mixtures


@pytest.mark.parametrize(
    "own", [Augmentation(mixup=0.4), Augmentation(cutmix=1.0), RICH], ids=["mixup", "cutmix", "either"]
)
def test_mixed_labels_are_the_shares_of_pixels(own: Augmentation) -> None:
    """Images of one value each tell how much of a mixture is theirs."""
    values = torch.arange(1.0, 11.0)
    images = values[:, None, None, None].expand(10, 1, 16, 16).clone()
    for batch in range(20):
        x, shares = Mixing(own, 10, 7)(images, torch.arange(10), batch)
        torch.testing.assert_close(shares.sum(1), torch.ones(10))
        assert ((shares > 0).sum(1) <= 2).all()
        torch.testing.assert_close(x.mean((1, 2, 3)), shares @ values, rtol=1e-5, atol=1e-5)
    assert torch.equal(images[:, 0, 0, 0], values)  # what was given is left


def test_a_batch_is_mixed_in_either_way_with_equal_probability() -> None:
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 16, 16)
    kinds = []
    for batch in range(200):
        x, shares = Mixing(RICH, 2, 0)(images, torch.arange(2), batch)
        assert shares.shape == (2, 2)
        kinds.append(len(x[0].unique()) == 2)
    assert abs(sum(kinds) - 100) < 4 * math.sqrt(50)


def test_mixups_share_is_of_a_beta_distribution() -> None:
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 1, 1)
    found = [float(Mixing(Augmentation(mixup=0.2), 2, 0)(images, torch.arange(2), b)[1][0, 0]) for b in range(2000)]
    mean, variance = np.mean(found), np.var(found)
    assert mean == pytest.approx(0.5, abs=0.04)
    assert variance == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.015)  # of Beta(a, a)


def test_cutmixs_box_has_the_area_that_is_asked_for_unless_the_border_cuts_it() -> None:
    rng = np.random.default_rng(0)
    for share in rng.random(200):
        top, bottom, left, right = cut_box(40, 60, share, rng)
        assert 0 <= top <= bottom <= 40
        assert 0 <= left <= right <= 60
        half = int(40 * math.sqrt(1 - share) / 2), int(60 * math.sqrt(1 - share) / 2)
        assert bottom - top <= 2 * half[0]
        assert right - left <= 2 * half[1]
        if top > 0 and bottom < 40:
            assert bottom - top == 2 * half[0]


# What a batch depends on


@pytest.mark.parametrize("own", [RICH, replace(RICH, mixup=0.0, cutmix=0.0), *KINDS.values()])
def test_a_process_sees_of_a_batch_what_one_alone_sees(digits: ImageData, own: Augmentation) -> None:
    whole = taken(digits.train, 3, own, start=1)
    for index in range(3):
        share = Several(index, 3).share(20, 2)
        for (x, labels), (own_x, own_labels) in zip(
            whole, taken(digits.train, 3, own, start=1, share=share), strict=True
        ):
            assert torch.equal(x[share.kept], own_x)
            assert torch.equal(labels[share.kept], own_labels)


def test_a_later_start_and_workers_change_nothing(digits: ImageData) -> None:
    whole = taken(digits.train, 4, RICH)
    for options in ({"start": 2}, {"workers": 2}):
        found = taken(digits.train, 4 - options.get("start", 0), RICH, **options)
        for (x, labels), (other, other_labels) in zip(whole[options.get("start", 0) :], found, strict=True):
            assert torch.equal(x, other)
            assert torch.equal(labels, other_labels)


def test_what_a_network_takes_lies_where_pixels_do(digits: ImageData) -> None:
    for x, shares in taken(digits.train, 3, RICH):
        assert x.dtype == shares.dtype == torch.float32
        assert x.shape == (20, 3, 8, 8)
        assert float(x.min()) >= -1
        assert float(x.max()) <= 1
        torch.testing.assert_close(shares.sum(1), torch.ones(20))


# Bad settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop", "centre"), ("least_area", 0.0), ("color_jitter", (0.4, 0.4, 0.4, 0.6)), ("policy", "auto"),
        ("operations", 0), ("magnitude", 30), ("erasing", 1.5), ("erased_area", (0.3, 0.2)), ("erased_ratio", (0, 1)),
        ("mixup", -1.0), ("cutmix", math.inf),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"^{name} = .* is out of range") as told:
        Augmentation(**{name: value})  # type: ignore[arg-type]
    assert "\n" not in str(told.value)


@pytest.fixture
def no_kornia(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(augmentation, "import_module", refuse)


@pytest.mark.usefixtures("no_kornia")
def test_a_package_that_is_missing_is_one_clear_line() -> None:
    with pytest.raises(
        TrainingError, match=r"needs kornia \(No module named 'kornia.augmentation'\); pip install"
    ) as told:
        RICH.check_packages()
    assert "\n" not in str(told.value)
    Augmentation(mixup=0.2, cutmix=1.0, crop="resized").check_packages()

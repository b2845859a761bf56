"""What a folder of images holds besides images, and what is known of it the next time."""

from __future__ import annotations

import builtins
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netlathe.archspace.files import cache_directory
from netlathe.training import DataError, load_images
from netlathe.training.folders import list_folder

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
LONG_AGO = 1_500_000_000


def fill(folder: Path, count: int = 10, names: tuple[str, ...] = ("blue", "red")) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            path = folder / name / f"{i:02}.png"
            Image.fromarray(PIXELS[i]).save(path)
            os.utime(path, (LONG_AGO, LONG_AGO))


def files_of(folder: Path) -> list[str]:
    return [os.fsdecode(name) for name in list_folder(folder).files.names]


def test_what_no_image_lies_in_is_skipped_in_one_line(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    (tmp_path / "red" / "._00.png").write_bytes(b"resource fork")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "__MACOSX" / "red").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "red" / "0.png").write_bytes(b"resource fork")
    (tmp_path / "green").mkdir()
    data = load_images(tmp_path, (8, 8))
    assert data.classes == ("blue", "red")
    assert data.notes == (
        f"{tmp_path}: skipped 3 hidden files or folders and the folder green, as no images are expected there",
    )


def test_files_that_are_not_read_are_counted_by_their_ending(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for name in ("red/a.tiff", "red/b.TIFF", "blue/labels.txt", "README"):
        (tmp_path / name).write_bytes(b"x")
    (note,) = load_images(tmp_path, (8, 8)).notes
    assert "(1 without an ending, 2 .tiff, 1 .txt); convert them if they are images" in note


def test_images_below_a_class_folder_are_of_that_class_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    fill(tmp_path / "red" / "more", 1, ("deep",))
    (tmp_path / "red" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [name for name in files_of(tmp_path) if "deep" in name] == ["red/more/deep/00.png"]
    assert len(files_of(tmp_path)) == 11


def test_a_class_that_only_a_later_split_has_is_an_error_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "train", 5)
    fill(tmp_path / "val", 2, ("blue", "red", "green"))
    with pytest.raises(DataError, match="test split has images of class 'green', and the training split none"):
        load_images(tmp_path, (8, 8))


def test_a_class_that_the_test_split_lacks_is_a_note(tmp_path: Path) -> None:
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 2, ("blue",))
    assert load_images(tmp_path, (8, 8)).notes == (f"{tmp_path.stem}: the test split has no images of class 'red'",)


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "validation"):
        fill(tmp_path / name, 2)
    with pytest.raises(DataError, match="val/ and validation/ are the same split"):
        load_images(tmp_path, (8, 8))


def test_images_outside_of_class_folders_are_spoken_of(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"no images found.*; 1 images lie in no class folder"):
        load_images(tmp_path, (8, 8))


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_all_unreadable_images_are_named_at_once(tmp_path: Path, room: int) -> None:
    fill(tmp_path)
    (tmp_path / "red" / "03.png").write_bytes(b"not a picture")
    content = (tmp_path / "blue" / "07.png").read_bytes()
    (tmp_path / "blue" / "07.png").write_bytes(content[:-30])
    with pytest.raises(DataError) as caught:
        load_images(tmp_path, (8, 8), in_memory_bytes=room, skip_unreadable=1)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("2 images cannot be used (--skip-unreadable 1); remove or replace them, or leave them out")
    assert [line.partition(":")[0].strip() for line in lines] == [
        str(tmp_path / "blue" / "07.png"), str(tmp_path / "red" / "03.png")
    ]  # fmt: skip


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_as_many_unreadable_images_as_are_allowed_are_left_out_and_named(tmp_path: Path, room: int) -> None:
    fill(tmp_path)
    (tmp_path / "red" / "03.png").write_bytes(b"not a picture")
    for _ in range(2):  # the second time, what can be read is known
        data = load_images(tmp_path, (12, 10), in_memory_bytes=room, skip_unreadable=1)
        splits = (data.train, data.validation, data.test)
        assert sum(len(split) for split in splits) == 19
        assert f"left out 1 unreadable image: {tmp_path / 'red' / '03.png'}: not a readable image" in data.notes[0]
        seen = torch.cat([split.load(torch.arange(len(split))) for split in splits]).permute(0, 2, 3, 1).numpy()
        wanted = sorted(PIXELS[i].tobytes() for i in range(10) for red in (0, 1) if not (red and i == 3))
        assert sorted(image.tobytes() for image in seen) == wanted


def test_a_class_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path)
    for path in (tmp_path / "red").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="no training image of 'red' can be read"):
        load_images(tmp_path, (8, 8), in_memory_bytes=0, skip_unreadable=10)


# What is known the next time


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Images that are opened."""
    names: list[str] = []

    def noting(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file).endswith((".png", ".tar")):
            names.append(Path(str(file)).name)
        return real(file, *rest, **options)

    real = builtins.open
    monkeypatch.setattr(builtins, "open", noting)
    return iter([names]).__next__()  # type: ignore[return-value]


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_a_later_call_opens_no_image_and_gives_the_same_digest(tmp_path: Path, opened: list[str], room: int) -> None:
    fill(tmp_path)
    first = load_images(tmp_path, (8, 8), in_memory_bytes=room)
    known = first.train.digest()
    assert len(set(opened)) == 10
    opened.clear()
    again = load_images(tmp_path, (8, 8), in_memory_bytes=room)
    assert again.train.digest() == known
    assert opened == []
    assert torch.equal(again.train.load(torch.arange(3)), first.train.load(torch.arange(3)))
    assert opened


def test_only_what_changed_is_opened_again(tmp_path: Path, opened: list[str]) -> None:
    fill(tmp_path)
    before = load_images(tmp_path, (8, 8), in_memory_bytes=0)
    changed = tmp_path / "red" / "04.png"
    Image.fromarray(PIXELS[15]).save(changed)
    os.utime(changed, (LONG_AGO + 1, LONG_AGO + 1))
    shutil.copy2(tmp_path / "red" / "05.png", tmp_path / "red" / "99.png")
    opened.clear()
    after = load_images(tmp_path, (8, 8), in_memory_bytes=0)
    assert sorted(set(opened)) == ["04.png", "99.png"]
    digests = [{split.digest() for split in (data.train, data.validation, data.test)} for data in (before, after)]
    assert digests[0] != digests[1]


def test_a_folder_that_is_copied_has_the_same_digest(tmp_path: Path) -> None:
    fill(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)
    one, other = (load_images(tmp_path / name, (8, 8)) for name in ("here", "there"))
    assert one.train.digest() == other.train.digest()
    assert one.train.digest() != load_images(tmp_path / "here", (8, 9)).train.digest()


def test_a_file_that_changed_just_before_is_opened_again(tmp_path: Path, opened: list[str]) -> None:
    fill(tmp_path)
    os.utime(tmp_path / "red" / "04.png")
    for _ in range(2):
        opened.clear()
        load_images(tmp_path, (8, 8), in_memory_bytes=0)
    assert set(opened) == {"04.png"}


def test_a_limit_opens_no_more_images_than_it_allows(tmp_path: Path, opened: list[str]) -> None:
    fill(tmp_path)
    opened.clear()
    load_images(tmp_path, (8, 8), limit=2)
    assert len(opened) == 6


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\0" * 1000])
def test_a_damaged_index_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path)
    known = load_images(tmp_path, (8, 8)).train.digest()
    (index,) = (cache_directory() / "images").glob("*.npz")
    index.write_bytes(content)
    assert load_images(tmp_path, (8, 8)).train.digest() == known


def test_an_index_of_other_columns_is_as_good_as_none(tmp_path: Path) -> None:
    fill(tmp_path)
    known = load_images(tmp_path, (8, 8)).train.digest()
    (index,) = (cache_directory() / "images").glob("*.npz")
    with np.load(index) as file:
        arrays = dict(file)
    for name, value in (
        ("marks", arrays["marks"][:3]),
        ("file_sizes", arrays["file_sizes"].astype(float)),
        ("file_counts", -arrays["file_counts"]),
    ):
        np.savez(index, **{**arrays, name: value})
        assert load_images(tmp_path, (8, 8)).train.digest() == known


def test_without_a_cache_images_are_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "images")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_images(tmp_path / "images", (8, 8)).train) == 12

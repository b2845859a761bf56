"""unpack.sh puts all models of an archive in place, or none."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from toybox_phone import ToyboxPhone

MODELS = {f"key{i:02d}.tflite": bytes([i]) * 3000 for i in range(30)}


def archive(phone: ToyboxPhone, files: Mapping[str, bytes]) -> tuple[Path, str]:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    path = phone.directory / "models.tar"
    path.write_bytes(content.getvalue())
    return path, hashlib.sha256(content.getvalue()).hexdigest()


def models(phone: ToyboxPhone) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (phone.directory / "models").iterdir()}


def test_models_are_put_in_place_beside_those_that_are_there(phone: ToyboxPhone, shell: str) -> None:
    (phone.directory / "models/old.tflite").write_bytes(b"old")
    tar, digest = archive(phone, MODELS)
    assert phone.text(shell, "unpack.sh", phone.directory, tar, digest) == ""
    assert models(phone) == {**MODELS, "old.tflite": b"old"}
    assert sorted(path.name for path in phone.directory.iterdir()) == ["models"]


def test_a_damaged_archive_changes_nothing_and_is_removed(phone: ToyboxPhone, shell: str) -> None:
    tar, digest = archive(phone, MODELS)
    tar.write_bytes(tar.read_bytes()[:-2048])
    done = phone.run(shell, "unpack.sh", phone.directory, tar, digest)
    assert done.returncode == 65
    assert b"arrived damaged" in done.stderr
    assert models(phone) == {}
    assert not tar.exists()


def test_an_archive_that_does_not_fit_leaves_no_half_models(phone: ToyboxPhone, shell: str) -> None:
    phone.tool("tar", 'cd "$4"; echo half >key00.tflite; echo "tar: write: No space left on device" >&2; exit 1')
    tar, digest = archive(phone, MODELS)
    done = phone.run(shell, "unpack.sh", phone.directory, tar, digest)
    assert done.returncode == 74
    assert b"No space left" in done.stderr
    assert models(phone) == {}
    assert not (phone.directory / "unpacking").exists()
    assert not tar.exists()


def test_what_an_interrupted_run_left_does_not_come_along(phone: ToyboxPhone, shell: str) -> None:
    (phone.directory / "unpacking").mkdir()
    (phone.directory / "unpacking/half.tflite").write_bytes(b"half")
    tar, digest = archive(phone, {"new.tflite": b"new"})
    phone.text(shell, "unpack.sh", phone.directory, tar, digest)
    assert models(phone) == {"new.tflite": b"new"}


def test_an_archive_without_models_is_an_error(phone: ToyboxPhone, shell: str) -> None:
    tar, digest = archive(phone, {"readme.txt": b"?"})
    assert phone.run(shell, "unpack.sh", phone.directory, tar, digest).returncode == 65


def test_a_phone_without_the_tools_says_so(phone: ToyboxPhone, shell: str) -> None:
    tar, digest = archive(phone, MODELS)
    (phone.tools / "sha256sum").unlink()
    done = phone.run(shell, "unpack.sh", phone.directory, tar, digest)
    assert done.returncode == 69
    assert b"no sha256sum" in done.stderr

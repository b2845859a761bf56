"""Provision of the benchmark_model for a phone: the user's, or the official one, downloaded once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.request import OpenerDirector

from filelock import FileLock

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import cache_directory, sweep, write_whole
from netlathe.archspace.jsonfile import read_json, write_json
from netlathe.profiler.benchmark_failures import DOWNLOADS
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone.download import download
from netlathe.profiler.phone.elf import read_elf

OFFICIAL = {"arm64-v8a": "android_aarch64_benchmark_model", "armeabi-v7a": "android_arm_benchmark_model"}
"""Android's name of an ABI -> the file in DOWNLOADS. There is none for x86."""

MOST_BYTES = 64 * 2**20
"""An official build has about 10 MB."""

MOST_GIVEN_BYTES = 2**30
"""Builds with debug information are large."""

_LITERT = b"BENCHMARK RESULTS"
"""Only LiteRT's newer tool holds these words."""

_PIN = ("benchmark-binary", 1)


@dataclass(frozen=True)
class Binary:
    """A checked benchmark_model, TFLite's or LiteRT's newer one. Its hash belongs to the setup of all that is measured
    with it."""

    path: Path
    sha256: str
    kind: Literal["benchmark_model", "benchmark_litert_model", "script"]
    abi: str
    """ABI in Android's words; "script" for a script, which runs on any."""
    source: Literal["given", "downloaded"]
    content: bytes = field(repr=False)


def find_binary(
    given: Path | None,
    abis: Sequence[str],
    *,
    cache_dir: Path | None = None,
    base_url: str = DOWNLOADS,
    refresh: bool = False,
    opener: OpenerDirector | None = None,
) -> Binary:
    """The user's file, or the official build for the phone's first ABI from the cache or else from the net.

    `abis` are those of ro.product.cpu.abilist, best first. A file in the cache is pinned: its hash at first use is
    kept beside it, and neither the file nor a new download (`refresh` asks for one) may differ from it, as times of
    different builds must not be mixed unnoticed. Raises DeviceError with what to do: wrong kind of file, wrong ABI,
    another tool, no network, changed content.
    """
    if not abis:
        raise DeviceError("the phone does not say which ABIs it runs (ro.product.cpu.abilist is empty)")
    if given is not None:
        return _checked(f"{given}", given, _read_given(given), abis, "given")
    name = OFFICIAL.get(abis[0])
    if name is None:
        raise DeviceError(
            f"there is no official benchmark_model for {abis[0]} phones; build one from LiteRT's source "
            "(//tflite/tools/benchmark:benchmark_model) and pass it with --benchmark-binary"
        )
    target = (cache_dir or cache_directory()) / name
    with _exclusive(target):
        return _cached(target, base_url.rstrip("/") + "/" + name, abis[:1], refresh, opener)


def check_given(path: Path) -> None:
    """Raises DeviceError where there is no file to send."""
    if not path.is_file():
        raise DeviceError(f"{path}: there is no such file; --benchmark-binary needs one")


def _read_given(path: Path) -> bytes:
    try:
        check_given(path)
        if path.stat().st_size > MOST_GIVEN_BYTES:
            raise DeviceError(f"{path}: too large for a benchmark_model ({path.stat().st_size / 2**20:.0f} MB)")
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read ({error})") from error


def _checked(
    origin: str, path: Path, content: bytes, abis: Sequence[str], source: Literal["given", "downloaded"]
) -> Binary:
    """Raises DeviceError, beginning with `origin`, unless it is a benchmark_model that these ABIs can run."""
    sha256 = hashlib.sha256(content).hexdigest()
    if content.startswith(b"#!") and source == "given":
        kind: Literal["script", "benchmark_litert_model"] = "benchmark_litert_model" if _LITERT in content else "script"
        return Binary(path, sha256, kind, "script", source, content)
    advice = _advice(abis)
    elf = read_elf(content, origin, advice)
    if elf.abi not in abis:
        raise DeviceError(f"{origin}: is built for {elf.abi}, this phone runs {', '.join(abis)}; {advice}")
    # Phones with x86 may be computers in truth, and run what is built for Linux.
    if elf.abi in OFFICIAL and elf.interpreter and "/linker" not in elf.interpreter:
        raise DeviceError(f"{origin}: is built for Linux (needs {elf.interpreter}), not for Android; {advice}")
    if _LITERT in content and source == "given":
        return Binary(path, sha256, "benchmark_litert_model", elf.abi, source, content)
    if _LITERT in content:
        raise DeviceError(
            f"{origin}: is LiteRT's CompiledModel tool, which has the same name but other options and output; {advice}"
        )
    if b"nference timings in us" not in content:
        raise DeviceError(f"{origin}: is a program, but not TFLite's benchmark_model; {advice}")
    return Binary(path, sha256, "benchmark_model", elf.abi, source, content)


def _advice(abis: Sequence[str]) -> str:
    """Advice where to get the right file."""
    name = next((OFFICIAL[abi] for abi in abis if abi in OFFICIAL), None)
    return f"take {DOWNLOADS}{name}" if name else f"build TFLite's benchmark_model for {abis[0]}"


@contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    """One process at a time downloads; others wait for its file. The system releases the lock even after kill -9."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(target.name + ".lock"))
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise DeviceError(f"{target.parent}: no files can be kept there ({error}); set XDG_CACHE_HOME") from error
    try:
        yield
    except OSError as error:
        raise DeviceError(f"{target}: cannot be kept there ({error}); set XDG_CACHE_HOME to another folder") from error
    finally:
        lock.release()


def _cached(target: Path, url: str, abis: Sequence[str], refresh: bool, opener: OpenerDirector | None) -> Binary:
    sweep(target)
    pinned = _pinned(target)
    is_kept = target.is_file() and not refresh
    origin = f"{target}" if is_kept else url
    content = target.read_bytes() if is_kept else download(url, target, MOST_BYTES, opener)
    found = hashlib.sha256(content).hexdigest()
    is_changed = pinned is not None and found != pinned
    # A kept file was a program once; what comes from the net may be none, which is worth saying first.
    if not (is_kept and is_changed):
        binary = _checked(origin, target, content, abis, "downloaded")
    if is_changed:
        raise DeviceError(_kept_changed(target, pinned, found) if is_kept else _new_build(target, url, pinned, found))
    if not is_kept:
        write_whole(target, content, durable=True)
    if pinned is None:
        write_json(_pin(target), *_PIN, {"url": url, "sha256": found, "bytes": len(content)})
    return binary


def _kept_changed(target: Path, pinned: str | None, found: str) -> str:
    return (
        f"{target}: has changed since it was first used (sha256 {pinned} then, {found} now). Delete it to download "
        f"it again; delete {_pin(target)} too to use another build from now on"
    )


def _new_build(target: Path, url: str, pinned: str | None, found: str) -> str:
    return (
        f"{url}: is another build than the one in use (sha256 {found}, in use {pinned}); only the latest is kept "
        f"there, and times of both must not be mixed. To change over, delete {target} and {_pin(target)}; to stay, "
        "pass a copy of the old one with --benchmark-binary"
    )


def _pin(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _pinned(target: Path) -> str | None:
    """The hash at first use; None before."""
    if not _pin(target).exists():
        return None
    try:
        sha256 = read_json(_pin(target), *_PIN).get("sha256")
    except FormatError as error:
        raise DeviceError(f"{error}; delete it and {target} to start afresh") from error
    if not isinstance(sha256, str):
        raise DeviceError(f"{_pin(target)}: names no sha256; delete it and {target} to start afresh")
    return sha256

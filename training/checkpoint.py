"""Checkpoints: the whole state of a run in one file, from which the run goes on as if it had never stopped.

The file is an .npz: numbered arrays, and a `header` of JSON bytes that holds the tree they hang in. It has no objects,
so it is safe to open. A kill at any moment leaves the old file or the new one, whole.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import check_plain, sweep, writing
from netlathe.training.errors import TrainingError
from netlathe.training.ranks import ALONE, Ranks

SCHEMA_VERSION = 1
_HEADER = "header"
_NAMED_DIFFERENCES = 6
_DAMAGE = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, RecursionError, BadZipFile, RuntimeError,
    NotImplementedError, SyntaxError, MemoryError, OverflowError,
)  # fmt: skip
_Array = NDArray[Any]


def save_checkpoint(path: Path, state: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Writes `state` whole or not at all, and through to the disk.

    `state` is made of dicts (keys str or int), lists, tuples, tensors, numpy arrays of numbers, int, float, str, bool
    and None; all of it comes back exactly, on the CPU. `run` is the JSON-able description of the run that owns it.
    Raises TrainingError for a tensor that holds NaN or infinity (the file from before stays), for a value that has no
    place in the file, and where the disk refuses.
    """
    arrays: list[_Array] = []
    header = {
        "schema": f"netlathe.checkpoint/{SCHEMA_VERSION}",
        "run": run,
        "state": _packed(dict(state), "state", arrays),
    }
    text = json.dumps(header, allow_nan=False).encode()
    members: dict[str, Any] = {str(index): array for index, array in enumerate(arrays)}
    members[_HEADER] = np.frombuffer(text, np.uint8)
    try:
        with writing(path, durable=True) as part, part.open("wb") as stream:
            np.savez(stream, **members)
    except OSError as error:
        raise TrainingError(
            f"{path}: the checkpoint cannot be written ({error}); make room, or choose another folder"
        ) from error


def load_checkpoint(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """The state that `save_checkpoint` was given. Raises FormatError when the file is missing, damaged, foreign, newer
    than this netlathe, or of a run other than `run` (it names the settings that differ)."""
    here = _plain(run)
    try:
        check_plain(path)
        with path.open("rb") as stream, ZipFile(stream) as file:
            sizes = {info.filename: info.file_size for info in file.infolist()}
            stored = all(info.compress_type == ZIP_STORED for info in file.infolist())
            if not stored or sum(sizes.values()) > os.fstat(stream.fileno()).st_size:
                raise ValueError("it claims more than it holds")
            if f"{_HEADER}.npy" not in sizes:
                raise ValueError("it has no header")
            header = json.loads(_read(file, _HEADER).tobytes())
            _check_schema(path, header)
            check_run(path, here, header["run"])
            state = _unpacked(header["state"], lambda index: _read(file, str(int(index))))
            if not isinstance(state, dict):
                raise ValueError("its state is no table")
            return state
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such checkpoint") from None
    except _DAMAGE as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise FormatError(
            f"{path}: not a whole checkpoint of netlathe ({reason:.120}); remove it to start anew"
        ) from error


class ForeignCheckpointError(FormatError):
    """A checkpoint of another run; `differences` are the names of the settings that differ, as config.epochs."""

    def __init__(self, message: str, path: Path, differences: tuple[str, ...]) -> None:
        super().__init__(message)
        self.path = path
        self.differences = differences


@dataclass
class Checkpointer:
    """Checkpoint file of one run, and when to write it.

    `run` describes the run (JSON-able); a file of another run is refused. `clock` gives seconds. Of several processes
    (`ranks`), all make the same calls; the leader alone reads and writes, and all go on from what it read.
    """

    path: Path
    run: Mapping[str, Any]
    every_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    ranks: Ranks = field(default=ALONE, repr=False)
    is_asked: bool = field(default=False, init=False)
    """Whether a save was asked for in this process."""
    is_answered: bool = field(default=False, init=False)
    """Whether one that was asked for, in whichever process, has been made."""
    _is_agreed: bool = field(default=False, init=False, repr=False)
    _last_s: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        self._last_s = self.clock()

    def ask(self) -> None:
        """Makes the next save due at once; safe to call in a signal handler."""
        self.is_asked = True

    def due(self) -> bool:
        """Whether a save was asked for in any process, or, in this one, `every_s` seconds have gone by since the last
        one (or since the start)."""
        self._is_agreed = self.ranks.any(self.is_asked)
        return self._is_agreed or self.clock() - self._last_s >= self.every_s

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes the file. Raises TrainingError as `save_checkpoint` does."""
        if self.ranks.leads:
            self.write(state)
        self._last_s = self.clock()
        self.is_answered |= self._is_agreed

    def write(self, state: Mapping[str, Any]) -> None:
        """The leader's part of saving."""
        save_checkpoint(self.path, state, self.run)

    def resume(self, load: Callable[[Mapping[str, Any]], None], state: Mapping[str, Any]) -> None:
        """Hands the state to `load`. Raises FormatError where it does not fit, as that of another version's network."""
        try:
            load(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = f"{(str(error) or repr(error)).splitlines()[0]:.120}"
            raise FormatError(f"{self.path}: does not fit this run ({reason}); remove it to start anew") from error

    def load(self) -> dict[str, Any] | None:
        """The saved state, None when there is no file. Raises FormatError as `load_checkpoint` does. Removes what an
        interrupted save left."""
        return self.ranks.told(self._read)

    def _read(self) -> dict[str, Any] | None:
        sweep(self.path)
        return load_checkpoint(self.path, self.run) if self.path.exists() else None

    def forget(self) -> None:
        """Removes the file, and what an interrupted save left."""
        if self.ranks.leads:
            self.path.unlink(missing_ok=True)
            sweep(self.path)


def _packed(value: Any, where: str, arrays: list[_Array]) -> Any:
    """The JSON form of a state: scalars as they are, everything else as {kind: content}; arrays go to `arrays`."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise TrainingError(f"{where}: a checkpoint's keys are str or int, not {key!r}")
        return {"dict": [[key, _packed(content, f"{where}[{key!r}]", arrays)] for key, content in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(content, f"{where}[{index}]", arrays) for index, content in enumerate(value)]}
    if isinstance(value, Tensor):
        return _packed_tensor(value, where, arrays)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        arrays.append(np.asarray(value, order="C"))
        return {"array": len(arrays) - 1}
    kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TrainingError(f"{where}: a checkpoint has no place for this {kind}; turn it into numbers or text")


def _packed_tensor(value: Tensor, where: str, arrays: list[_Array]) -> dict[str, int]:
    value = value.detach().cpu()
    if not bool(torch.isfinite(value).all()):
        raise TrainingError(f"{where} holds NaN or infinity: not saved, what was saved before is kept")
    # Strides are kept: sums may differ in the last bit between layouts, and a resumed run must not.
    last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
    try:
        array = (value.permute(0, 2, 3, 1) if last else value).numpy()
    except TypeError:
        raise TrainingError(f"{where} is {value.dtype}, which numpy lacks; keep it as float32") from None
    arrays.append(np.asarray(array, order="C"))
    return {"channels_last" if last else "tensor": len(arrays) - 1}


def _unpacked(node: Any, read: Callable[[Any], _Array]) -> Any:
    if not isinstance(node, dict):
        if isinstance(node, list):
            raise ValueError("the tree of its state is broken")
        return node
    ((kind, content),) = node.items()
    if kind == "dict":
        return {key: _unpacked(value, read) for key, value in content}
    if kind in ("list", "tuple"):
        values = [_unpacked(value, read) for value in content]
        return values if kind == "list" else tuple(values)
    if kind == "float":
        return float(content)
    if kind == "array":
        return read(content)
    if kind in ("tensor", "channels_last"):
        tensor = torch.from_numpy(read(content))
        return tensor.permute(0, 3, 1, 2) if kind == "channels_last" else tensor
    raise ValueError(f"unknown kind {kind!r} in its state")


def _read(file: ZipFile, name: str) -> _Array:
    """One array, without trusting its own word about its size."""
    with file.open(f"{name}.npy") as stream:
        shape, fortran_order, dtype = _npy_header(stream)
        content = stream.read()
    if dtype.hasobject or dtype.kind not in "biufc" or fortran_order:
        raise ValueError(f"array {name} is of {dtype}, no plain numbers")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"array {name} is not as long as it says")
    return np.frombuffer(content, dtype).reshape(shape).copy()


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of format {version}")
    return np.lib.format.read_array_header_1_0(stream)


def _check_schema(path: Path, header: Any) -> None:
    schema = str(header.get("schema") if isinstance(header, dict) else None)
    kind, _, version = schema.partition("/")
    if kind != "netlathe.checkpoint" or not version.isdecimal() or len(version) > 9:
        raise FormatError(f"{path}: expected a netlathe checkpoint, found {schema:.60}")
    if int(version) > SCHEMA_VERSION:
        raise FormatError(
            f"{path}: {schema} is newer than this netlathe reads (version {SCHEMA_VERSION}); upgrade netlathe"
        )


def check_run(path: Path, here: Any, there: Any, what: str = "checkpoint") -> None:
    """Raises ForeignCheckpointError where two runs differ, and names the settings. `here` and `there` describe them as
    JSON does; `what` is what `path` holds of the one there."""
    if here == there:
        return
    ours, theirs = _settings(here), _settings(there)
    names = [name for name in {**ours, **theirs} if ours.get(name, _ABSENT) != theirs.get(name, _ABSENT)]
    shown = [
        f"{name}: {ours.get(name, _ABSENT):.60} here, {theirs.get(name, _ABSENT):.60} in the {what}"
        for name in names[:_NAMED_DIFFERENCES]
    ]
    more = f"; and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    raise ForeignCheckpointError(
        f"{path}: a {what} of another run ({'; '.join(shown)}{more}); go on with its settings, or remove it to "
        "start anew",
        path,
        tuple(names),
    )


_ABSENT = "absent"


def _settings(value: Any, name: str = "") -> dict[str, str]:
    """A run's description as 'config.epochs' -> '20'."""
    if isinstance(value, dict) and value:
        parts = [_settings(content, f"{name}.{key}" if name else str(key)) for key, content in value.items()]
    elif isinstance(value, list) and value:
        parts = [_settings(content, f"{name}[{index}]") for index, content in enumerate(value)]
    else:
        return {name or "run": json.dumps(value)}
    return {key: text for part in parts for key, text in part.items()}


def _plain(run: Mapping[str, Any]) -> Any:
    """Description as JSON gives it back: tuples are lists, keys are text."""
    return json.loads(json.dumps(run, allow_nan=False))

"""Files of fitted models: one JSON file with a kind, a version and a checksum, and nothing in it that could run.

Long lists of numbers are packed: {"dtype", "shape", "zlib": base64 of the compressed bytes}. They come back bit for
bit, in a tenth of the space and of the time that decimal digits take. Everything else stays readable.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError, RecordError, did_you_mean
from netlathe.archspace.jsonfile import read_json, write_json
from netlathe.archspace.resources import data_files

T = TypeVar("T")

FILE_KIND = "predictor"
"""Kind of a LatencyPredictor's file."""
FILE_VERSION = 2
"""Version of a LatencyPredictor's file."""

_FEWEST_PACKED = 64
"""Fewest numbers of a list that is packed."""
_INTEGERS = ("|u1", "<u2", "<u4", "<i8")
"""Types of packed integers, the smallest first."""
_FLOATS = ("<f4", "<f8")
"""Types of packed floats, the smallest first."""
_MOST_NUMBERS = 1 << 20
"""Most numbers in all packed lists of a file together: a small file could claim, and unpack to, anything."""
_DAMAGE = (
    ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError, RecordError, zlib.error,
)  # fmt: skip
"""Errors that making sense of any content may raise."""


class ModelFile(NamedTuple):
    """Content of a file: a model's JSON, and for shipped ones the card that says what it is good for."""

    content: dict[str, Any]
    card: dict[str, Any] | None


def find_file(path: str | Path, folder: str) -> Path:
    """Path of the file itself, or of the one that ships under that name in that folder of data/: predictors, priors.
    Raises FormatError, listing the names, when there is neither."""
    path = Path(path)
    if path.is_file() or path.suffix or len(path.parts) != 1:
        return path
    shipped = {file.stem: file for file in data_files(folder, ".json")}
    if path.name not in shipped:
        raise FormatError(
            f"{path}: there is no such file, and no such name among the {folder} that ship"
            f"{did_you_mean(path.name, shipped)}: {', '.join(shipped) or 'there are none'}"
        )
    return shipped[path.name]


def write_model(
    path: str | Path, kind: str, version: int, content: Mapping[str, Any], card: Mapping[str, Any] | None = None,
    *, held_out: Mapping[str, Any] | None = None, made: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes the file whole or not at all. The content's numbers must be finite, and no more than read_model takes:
    ValueError. What was `held_out` stands beside the model, with a checksum of its own, and so does how it was `made`,
    in words: readers of earlier versions pass over both."""
    body = {"content": pack(content), "card": card}
    _unpack(body["content"], _Budget())
    beside: dict[str, Any] = {}
    if held_out is not None:
        packed = pack(held_out)
        _unpack(packed, _Budget())
        beside["held_out"] = {"sha256": _checksum({"content": packed}), "content": packed}
    if made is not None:
        beside["made"] = dict(made)
    write_json(path, kind, version, {"sha256": _checksum(body), **body, **beside})


def read_held_out(path: str | Path, kind: str, version: int, build: Callable[[dict[str, Any]], T]) -> T | None:
    """Held-out predictions of a model's file, as `build` makes them of its content, packed lists being arrays; None
    where it holds none. Raises FormatError as read_model does."""
    kept = read_json(path, kind, version).get("held_out")
    if kept is None:
        return None
    try:
        if kept["sha256"] != _checksum({"content": kept["content"]}):
            raise ValueError("the checksum of what was held out does not match its content")
        return build(_unpack(kept["content"], _Budget()))
    except _DAMAGE as error:
        raise FormatError(f"{path}: this {kind} is damaged ({error!r:.200}); fit and save it again") from error


def read_made(path: str | Path, kind: str, version: int) -> dict[str, Any] | None:
    """How a model was made, as write_model was told; None where its file does not tell. Raises FormatError as
    read_model does."""
    made = read_json(path, kind, version).get("made")
    if made is not None and not isinstance(made, dict):
        raise FormatError(f"{path}: this {kind} is damaged ({made!r:.80} is no record); fit and save it again")
    return made


def read_model(path: str | Path, kind: str, version: int, build: Callable[[ModelFile], T]) -> T:
    """The model that `build` makes of the file that write_model wrote, packed lists being arrays. Raises FormatError
    for a file that is missing, truncated, changed, of another kind or version, or that `build` cannot make sense of."""
    file = read_json(path, kind, version)
    try:
        if file["schema"] != f"netlathe.{kind}/{version}":
            raise FormatError(f"{path}: {file['schema']} is older than this netlathe reads; fit and save it again")
        if file["sha256"] != _checksum({"content": file["content"], "card": file["card"]}):
            raise ValueError("its checksum does not match its content")
        return build(ModelFile(_unpack(file["content"], _Budget()), file["card"]))
    except FormatError:
        raise
    except _DAMAGE as error:
        raise FormatError(f"{path}: this {kind} is damaged ({error!r:.200}); fit and save it again") from error


def _checksum(body: Mapping[str, Any]) -> str:
    """SHA-256 of a file's values, whatever the white space between them."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def pack(value: Any) -> Any:
    """A value with every long list of numbers packed, nested lists of equal lengths as one array."""
    if isinstance(value, Mapping):
        return {key: pack(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return pack(value.tolist())
    if not isinstance(value, (list, tuple)):
        return value
    array = _as_array(value)
    return [pack(inner) for inner in value] if array is None else _packed(array)


def _as_array(values: Sequence[Any]) -> NDArray[Any] | None:
    """Array of a list's numbers; None for a list that is short, ragged, or holds anything else."""
    try:
        array = np.array(values)
    except ValueError:
        return None
    return array if array.size >= _FEWEST_PACKED and array.dtype.kind in "if" else None


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    if not np.isfinite(array).all():
        raise ValueError("a model to be saved holds a number that is not finite")
    with np.errstate(over="ignore", under="ignore"):  # the smallest numbers that hold these exactly
        of_kind = map(np.dtype, _FLOATS if array.dtype.kind == "f" else _INTEGERS)
        dtype = next(d for d in of_kind if np.array_equal(array.astype(d), array))
    # Column by column: a feature repeats its values from row to row, and compresses several times better so.
    data = zlib.compress(array.astype(dtype).tobytes(order="F"), 9)
    return {"dtype": dtype.str, "shape": list(array.shape), "zlib": base64.b64encode(data).decode()}


class _Budget:
    """Budget of the numbers that may still be unpacked."""

    def __init__(self) -> None:
        self.left = _MOST_NUMBERS

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError("it unpacks to more than a predictor can hold")


def _unpack(value: Any, budget: _Budget) -> Any:
    """The value that pack packed, packed lists being arrays. Raises ValueError beyond the budget."""
    if isinstance(value, list):
        return [_unpack(inner, budget) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"dtype", "shape", "zlib"}:
        return _unpacked(value, budget)
    return {key: _unpack(inner, budget) for key, inner in value.items()}


def _unpacked(value: dict[str, Any], budget: _Budget) -> NDArray[Any]:
    shape = value["shape"]
    if value["dtype"] not in (*_INTEGERS, *_FLOATS):
        raise ValueError(f"packed numbers cannot be of type {value['dtype']!r:.20}")
    dtype = np.dtype(value["dtype"])
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{shape} is no shape")
    budget.spend(math.prod(shape))
    size = dtype.itemsize * math.prod(shape)
    stream = zlib.decompressobj()
    data = stream.decompress(base64.b64decode(value["zlib"], validate=True), size + 1)
    if len(data) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"packed numbers do not fill their shape {shape}")
    return np.ascontiguousarray(np.frombuffer(data, dtype).reshape(shape, order="F"))

"""A model file to be run as it is: what it takes, in which sizes, and what a runtime may stumble over.

Only what stands around the network is read, so that files of any ops can be run; whether they do is for the runtime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from netlathe.archspace.errors import FormatError
from netlathe.archspace.ops.base import is_integer

FileFormat = Literal["tflite", "onnx"]

_COMPUTED = ("float16", "float32", "float64", "int8", "uint8", "int16")

Sizes = tuple[int | None, ...]
"""Sizes of one input; None where the file leaves one open."""


@dataclass(frozen=True)
class ModelInput:
    """One input of a model file."""

    name: str
    dtype: str
    """As NumPy calls it; "string" for text."""
    sizes: Sizes
    batch: int | None = None
    """Size of an open batch where nobody says otherwise, as the file itself holds one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Raises FormatError where a size is open."""
        if None in self.sizes:
            raise FormatError(f"input {self.name!r} has no size yet")
        return tuple(size for size in self.sizes if size is not None)


@dataclass(frozen=True)
class ModelFile:
    """A .tflite or .onnx file, and the sizes of inputs that it is run with."""

    path: Path
    format: FileFormat
    inputs: tuple[ModelInput, ...]
    custom_ops: tuple[str, ...] = ()
    """Ops that the format does not define, which need a runtime that has them."""
    control_flow: tuple[str, ...] = ()
    """Ops that run parts of the model as often as values say."""
    resized: frozenset[str] = field(default=frozenset())
    """Inputs that are run in other sizes than the file says."""
    remarks: tuple[str, ...] = ()
    """Remarks on what a person may not expect."""

    @property
    def dtype(self) -> str:
        """Dtype that it computes in, by its first input; "mixed" where that is an index, or there is none."""
        dtype = self.inputs[0].dtype if self.inputs else ""
        return dtype if dtype in _COMPUTED else "mixed"

    @property
    def batch(self) -> int:
        """The first input's first size; 1 where there is none."""
        sizes = self.inputs[0].sizes if self.inputs else ()
        return (sizes[0] if sizes else 1) or 1

    @cached_property
    def key(self) -> str:
        """16 hex digits; equal files run in equal sizes have equal keys. Raises FormatError where it cannot be read."""
        try:
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read ({error})") from error
        digest.update(repr([one.sizes for one in self.inputs]).encode())
        return digest.hexdigest()[:16]


def open_model_file(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> ModelFile:
    """The model file at `path`, with open sizes of inputs filled in from `shapes`.

    `shapes` are by the inputs' names, in the file's order of axes; the name "" is that of a single input.
    Raises FormatError for what is no whole .tflite or .onnx file, for sizes that stay open, and for shapes that do not
    fit the file.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in get_args(FileFormat):
        raise FormatError(f"{path}: expected a .tflite or an .onnx file")
    try:
        if not path.is_file():
            raise FormatError(f"{path}: there is no such file")
        if not path.stat().st_size:
            raise FormatError(f"{path}: the file is empty; fetch or write it again")
        if suffix == "tflite":
            from netlathe.archspace.forms.tflite_outline import read_outline
        else:
            from netlathe.archspace.forms.onnx_outline import read_outline
        return _sized(read_outline(path), {name: tuple(shape) for name, shape in (shapes or {}).items()})
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error})") from error


def _sized(file: ModelFile, shapes: Mapping[str, tuple[int, ...]]) -> ModelFile:
    known = {one.name: one for one in file.inputs}
    if "" in shapes:
        if len(known) != 1:
            raise FormatError(
                f"{file.path}: has {len(known)} inputs, so --shape must name each: "
                + " ".join(f"--shape {_example(one)}" for one in file.inputs)
            )
        shapes = {file.inputs[0].name: shapes[""], **{name: shape for name, shape in shapes.items() if name}}
    for name, shape in shapes.items():
        if name not in known:
            raise FormatError(f"{file.path}: has no input {name!r}; its inputs are {_told(file.inputs)}")
        if not all(is_integer(size, 1) for size in shape):
            raise FormatError(f"{file.path}: input {name!r} cannot have the shape {tuple(shape)!r:.80}")
    inputs = tuple(_with_shape(file.path, one, shapes.get(one.name)) for one in file.inputs)
    remarks = tuple(
        f"the batch of input {new.name!r} is open, and is {new.batch} as in the file; --shape gives it another"
        for new, old in zip(inputs, file.inputs, strict=True)
        if old.batch is not None and new.name not in shapes
    )
    still_open = [one for one in inputs if None in one.sizes]
    if still_open:
        options = " ".join(f"--shape {_example(one)}" for one in still_open)
        raise FormatError(
            f"{file.path}: leaves sizes of its input open: {_told(still_open)}; say them, as in {options}"
        )
    text = [one.name for one in inputs if one.dtype == "string"]
    if text:
        raise FormatError(
            f"{file.path}: input {text[0]!r} takes text, and netlathe has only numbers to run a model with; cut the "
            "part that reads text off the model"
        )
    changed = frozenset(
        new.name
        for new, old in zip(inputs, file.inputs, strict=True)
        if new.sizes not in (old.sizes, _as_in_file(old).sizes)
    )
    return replace(file, inputs=inputs, resized=changed, remarks=(*file.remarks, *remarks))


def _as_in_file(one: ModelInput) -> ModelInput:
    return one if one.batch is None else replace(one, sizes=(one.batch, *one.sizes[1:]))


def _with_shape(path: Path, one: ModelInput, shape: tuple[int, ...] | None) -> ModelInput:
    if shape is None:
        return _as_in_file(one)
    fits = len(shape) == len(one.sizes) and all(
        own in (None, given) for own, given in zip(one.sizes, shape, strict=True)
    )
    if fits:
        return replace(one, sizes=shape)
    own, given = _by_x(one.sizes), _by_x(shape)
    hint = f"give it {own} with its open sizes filled in" if None in one.sizes else "leave --shape out"
    if len(shape) == len(one.sizes) == 4 and _fits_turned(one.sizes, shape):
        hint = "these sizes fit in another layout, and the layout is the file's"
    raise FormatError(f"{path}: input {one.name!r} is {own} in the file, so it cannot be {given}; {hint}")


def _fits_turned(sizes: Sizes, shape: tuple[int, ...]) -> bool:
    """Whether the shape fits once its channels are moved to the other end."""
    for order in ((0, 2, 3, 1), (0, 3, 1, 2)):
        if all(own in (None, shape[place]) for own, place in zip(sizes, order, strict=True)):
            return True
    return False


def _by_x(sizes: Sizes) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes) or "a single number"


def _told(inputs: Iterable[ModelInput]) -> str:
    return ", ".join(f"{one.name} ({_by_x(one.sizes)} {one.dtype})" for one in inputs)


def _example(one: ModelInput) -> str:
    """The open batch as 1, other open sizes as those of a common image."""
    sizes = [size or (1 if place == 0 else 224 if len(one.sizes) == 4 else 16) for place, size in enumerate(one.sizes)]
    return f"{one.name}={_by_x(tuple(sizes))}"

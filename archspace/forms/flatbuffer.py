"""Writes flatbuffers through a schema's generated code, several times faster than the library's own Builder.

A flatbuffer is laid out from its end to its beginning, so that what a table points to is already there. Offsets here
are distances from the end of the file. Layout: https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partialmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FILE_ALIGNMENT = 16  # bytes; what a file may ask of its reader's memory


class FlatWriter:
    """Stands in for flatbuffers.Builder in generated code: tables of scalars up to 4 bytes and of offsets.

    The methods in the library's spelling are those that generated code calls; a table is laid out in one piece when
    it ends instead of field by field.
    """

    def __init__(self) -> None:
        self._pieces: list[Any] = []  # last ones first
        self._size = 0
        self._fields: list[tuple[int, int, str, Any]] = []  # slot, bytes, struct format ('' for an offset), value
        self._vtables: dict[bytes, int] = {}
        self._integers: dict[tuple[int, ...], int] = {}

    def _prepend(self, data: bytes | memoryview) -> int:
        self._pieces.append(data)
        self._size += len(data)
        return self._size

    def _align(self, upcoming: int, alignment: int) -> None:
        """Pads so that what is `upcoming` bytes long will begin aligned."""
        padding = -(self._size + upcoming) % alignment
        if padding:
            self._prepend(bytes(padding))

    def vector(self, data: bytes | memoryview, count: int, alignment: int = 4) -> int:
        """`count` elements of that content, its begin aligned to so many bytes."""
        self._align(len(data), alignment)
        self._prepend(data)
        return self._prepend(struct.pack("<I", count))

    def string(self, text: str) -> int:
        data = text.encode()
        return self.vector(data + b"\0", len(data))

    def integers(self, values: tuple[int, ...]) -> int:
        """A vector of 32-bit integers; equal ones are stored once."""
        if values not in self._integers:
            self._integers[values] = self.vector(struct.pack(f"<{len(values)}i", *values), len(values))
        return self._integers[values]

    def offsets(self, targets: Sequence[int]) -> int:
        """A vector of offsets."""
        self._align(4 * len(targets), 4)
        begin = self._size + 4 * len(targets)
        distances = [begin - 4 * index - target for index, target in enumerate(targets)]
        return self.vector(struct.pack(f"<{len(targets)}I", *distances), len(targets))

    def finish(self, root: int, identifier: bytes) -> bytes:
        """The file whose root table is at that offset."""
        self._align(8, _FILE_ALIGNMENT)
        self._prepend(struct.pack("<I4s", self._size + 8 - root, identifier))
        return b"".join(reversed(self._pieces))

    def StartObject(self, numfields: int) -> None:  # noqa: N802
        self._fields = []

    def _slot(self, size: int, kind: str, slot: int, value: Any, default: Any) -> None:
        if value != default:
            self._fields.append((slot, size, kind, value))

    PrependBoolSlot = partialmethod(_slot, 1, "?")
    PrependInt8Slot = partialmethod(_slot, 1, "b")
    PrependUint8Slot = partialmethod(_slot, 1, "B")
    PrependInt32Slot = partialmethod(_slot, 4, "i")
    PrependUint32Slot = partialmethod(_slot, 4, "I")
    PrependFloat32Slot = partialmethod(_slot, 4, "f")
    PrependUOffsetTRelativeSlot = partialmethod(_slot, 4, "")

    def EndObject(self) -> int:  # noqa: N802
        """Writes the table: the distance to its vtable, then its fields, larger ones first."""
        fields = sorted(self._fields, key=lambda field: -field[1])
        length = 4 + sum(size for _, size, _, _ in fields)
        length += -length % 4
        self._align(length, 4)
        begin = self._size + length
        places = [0] * (1 + max((slot for slot, *_ in fields), default=-1))
        kinds, values, place = "<i", [], 4
        for slot, size, kind, value in fields:
            places[slot] = place
            kinds += kind or "I"
            values.append(value if kind else begin - place - value)
            place += size
        vtable = struct.pack(f"<{2 + len(places)}H", 4 + 2 * len(places), length, *places)
        known = self._vtables.get(vtable)
        to_vtable = (begin + len(vtable) if known is None else known) - begin
        self._prepend(struct.pack(f"{kinds}{length - place}x", to_vtable, *values))
        if known is None:
            self._vtables[vtable] = self._prepend(vtable)
        return begin

    def CreateNumpyVector(self, values: NDArray[np.int32]) -> int:  # noqa: N802
        return self.integers(tuple(values.tolist()))

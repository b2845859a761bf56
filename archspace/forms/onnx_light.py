"""An .onnx file without its weights, which pricing never looks at: 100 MB are read by jumping over them.

The encoding is Protocol Buffers' (https://protobuf.dev/programming-guides/encoding/), the numbers onnx.proto's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from netlathe.archspace.files import check_plain, read_whole
from netlathe.archspace.forms.onnx_constants import MOST_FOLDED
from netlathe.archspace.forms.onnx_limits import MOST_MESSAGES

_MOST_KEPT = 16 * MOST_FOLDED
"""Bytes of one constant's values beyond which they are more than are ever looked at."""
_GRAPH, _INITIALIZER = 7, 5
"""Numbers of ModelProto.graph, and of GraphProto.initializer in it."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def read_without_weights(path: Path, most_bytes: int) -> bytes:
    """The file's content without the values of its larger initializers, which keep name, type and shape. What is no
    whole .onnx file is given as it is. Raises what read_whole raises."""
    check_plain(path)
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size <= most_bytes:
                return _Walk(stream).message(size, (_GRAPH, _INITIALIZER))
    except ValueError:  # whoever parses it says what is amiss
        pass
    return read_whole(path, most_bytes)


class _Walk:
    """Goes through the fields of a message and of large ones inside of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = MOST_MESSAGES

    def message(self, end: int, inner: tuple[int, ...]) -> bytes:
        """The message that ends there. `inner` are the numbers of the fields that lead to tensors, from here on; in a
        tensor there are none left, and its large fields are left out. Raises ValueError where it breaks off."""
        parts = []
        while self._stream.tell() < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many parts")
            key = self._varint()
            if key & 7 != _LENGTH:
                parts += [_encoded(key), self._plain(key & 7)]
            else:
                length = self._varint()
                stop = self._stream.tell() + length
                if stop > end:
                    raise ValueError("it breaks off")
                if length > _MOST_KEPT and not inner:
                    self._stream.seek(stop)
                    continue
                is_inner = length > _MOST_KEPT and key >> 3 == inner[0]
                body = self.message(stop, inner[1:]) if is_inner else self._taken(length)
                parts += [_encoded(key), _encoded(len(body)), body]
        return b"".join(parts)

    def _plain(self, wire: int) -> bytes:
        """A number, as it is encoded."""
        if wire == _VARINT:
            return _encoded(self._varint())
        if wire in (_FIXED64, _FIXED32):
            return self._taken(8 if wire == _FIXED64 else 4)
        raise ValueError("there is no such encoding")

    def _varint(self) -> int:
        """A number of seven bits a byte."""
        value = 0
        for shift in range(0, 70, 7):
            (byte,) = self._taken(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("this number does not end")

    def _taken(self, count: int) -> bytes:
        found = self._stream.read(count)
        if len(found) < count:
            raise ValueError("it breaks off")
        return found


def _encoded(value: int) -> bytes:
    """A number in seven bits a byte."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
